"""Draws of fused paths against a plain loop, and a transition's fast step against its own ``loc``."""

import pytest
import torch
from torch import Tensor

from gtm_pyro.localisation.explanations import Steps
from gtm_pyro.paths.fused import FusedPath, smoothing_path
from gtm_pyro.transitions import SlidingTranslation, Translation, WalledTranslation
from gtm_pyro.transitions.recurrence import unroll_plain


class Generic(WalledTranslation):
    """A subclass with a step of its own."""

    def gate(self, s: Tensor) -> Tensor:
        return 0.5 * super().gate(s)


def transition(kind: type[Translation]) -> Translation:
    torch.manual_seed(0)
    made = kind(5).double()
    torch.nn.init.normal_(made.displacement)
    if isinstance(made, SlidingTranslation):
        torch.nn.init.constant_(made.offsets, 0.8)
    return made


@pytest.mark.parametrize("kind", [Translation, WalledTranslation, Generic, SlidingTranslation])
def test_stepping_is_loc(kind: type[Translation]) -> None:
    f = transition(kind)
    s, actions = torch.randn(6, 2).double(), torch.randn(6, 4, 5).double()
    step = f.stepping(actions)
    for t in range(4):
        assert torch.allclose(step(s, t), f.loc(s, actions[:, t]), atol=1e-12)


@pytest.mark.parametrize("samples", [(), (3,)], ids=["one", "several"])
@pytest.mark.parametrize("kind", [Translation, WalledTranslation, Generic, SlidingTranslation])
def test_draws_and_their_gradients_equal_a_plain_loop(kind: type[Translation], samples: tuple[int, ...]) -> None:
    f = transition(kind)
    actions, target = torch.randn(2, 9, 5).double(), torch.randn(2, 9, 2).double()
    gain, scale, start = torch.rand(2, 9).double(), 0.1 + torch.rand(2, 9).double(), torch.randn(2, 2).double()
    path = FusedPath(f, actions, start, target, gain, scale)
    torch.manual_seed(1)
    fast = path.rsample(samples)
    torch.manual_seed(1)
    noise = scale.unsqueeze(-1) * torch.randn(*samples, 2, 9, 2, dtype=torch.float64)

    def step(s: Tensor, given: Tensor) -> Tensor:
        predicted = f.loc(s, given[..., :5])
        return predicted + given[..., 5:6] * (given[..., 6:] - predicted)

    inputs = torch.cat([actions, gain.unsqueeze(-1), target], -1).expand(*samples, -1, -1, -1)
    first = start + gain[:, :1] * (target[:, 0] - start) + noise[..., 0, :]
    plain = unroll_plain(step, first, inputs, noise)
    assert torch.allclose(fast, plain, atol=1e-12)
    weights, parameters = torch.randn_like(plain), list(f.parameters())
    for a, b in zip(
        torch.autograd.grad((fast * weights).sum(), parameters),
        torch.autograd.grad((plain * weights).sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_path_of_one_step_is_smoothed() -> None:
    """The product of the start, N(0, 0.5), and a landmark at 1 with variance 0.5."""
    f, one = transition(WalledTranslation), torch.ones(3, 1, dtype=torch.float64)
    target = torch.ones(3, 1, 2, dtype=torch.float64)
    steps = Steps(torch.zeros(3, 1, 5).double(), target, 0.5 * one, one, target)
    path = smoothing_path(f, steps, torch.zeros(3, 2).double(), 0.5 * one[:, 0])
    assert path.event_shape == (1, 2)
    assert torch.allclose(path.gain, 0.5 * one) and torch.allclose(path.scale, 0.5 * one)
    assert torch.equal(path.target, target) and path.rsample().shape == (3, 1, 2)
