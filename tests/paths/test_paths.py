"""TransitionPath: a distribution over trajectories."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.transitions import SlidingTranslation, Transition, Translation, WalledTranslation


def make(
    kind: type[Translation] = WalledTranslation, batch: tuple[int, ...] = (4, 1), time: int = 9, **kwargs: Any
) -> TransitionPath:
    torch.manual_seed(0)
    transition = kind(5, scale=0.3, **kwargs).double()
    torch.nn.init.normal_(transition.displacement)
    actions = torch.eye(5, dtype=torch.float64)[torch.randint(5, (*batch, time))]
    initial = dist.Normal(torch.zeros(2, dtype=torch.float64), 0.5).to_event(1)
    return TransitionPath(initial, transition, actions)


def plain_log_prob(path: TransitionPath, value: torch.Tensor) -> torch.Tensor:
    total = path.initial.log_prob(value[..., 0, :])
    for t in range(1, value.shape[-2]):
        total = total + path.transition(value[..., t - 1, :], path.actions[..., t, :]).log_prob(value[..., t, :])
    return total


@pytest.mark.parametrize("kind", [Translation, WalledTranslation, SlidingTranslation])
def test_log_prob_is_the_sum_over_steps(kind: type[Translation]) -> None:
    path = make(kind)
    value = torch.randn(3, 4, 1, 9, 2, dtype=torch.float64)
    torch.testing.assert_close(path.log_prob(value), plain_log_prob(path, value))
    assert path.log_prob(value).shape == (3, 4, 1)


@pytest.mark.parametrize("slip", [0.0, 0.4])
@pytest.mark.parametrize("kind", [Translation, WalledTranslation, SlidingTranslation])
def test_a_draw_is_scored_by_its_noise_with_the_same_value_and_gradient(kind: type[Translation], slip: float) -> None:
    path = make(kind, learn_scale=True, slip=slip, slip_scale=0.7)
    parameters = list(path.transition.parameters())
    draw = path.rsample()
    quick, plain = path.log_prob(draw), plain_log_prob(path, draw)
    torch.testing.assert_close(quick, plain)
    unused = torch.zeros((), dtype=torch.float64)
    total = sum((p.sum() * 0 for p in parameters), unused)
    one = torch.autograd.grad(quick.sum() + total, parameters, retain_graph=True)
    other = torch.autograd.grad(plain.sum() + total, parameters)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)
    if slip:
        assert other[0].abs() > 1e-3  # of log r, through which component a step may have come from


def test_a_draw_from_elsewhere_is_scored_in_full() -> None:
    path, other = make(), make()
    torch.nn.init.normal_(other.transition.displacement, std=2.0)
    draw = other.rsample()
    torch.testing.assert_close(path.log_prob(draw), plain_log_prob(path, draw))
    draw = path.rsample()
    moved = TransitionPath(path.initial, path.transition, path.actions.flip(-2))
    torch.testing.assert_close(moved.log_prob(draw), plain_log_prob(moved, draw))


def test_a_draw_is_scored_in_full_after_its_parameters_changed() -> None:
    path = make()
    changes = (
        lambda: path.transition.displacement.add_(1.0),
        lambda: path.transition.log_scale.fill_(-3.0),
        lambda: setattr(path.transition, "displacement", torch.nn.Parameter(torch.ones(2, 5).double())),
        lambda: path.actions.mul_(2.0),
    )
    for change in changes:
        draw = path.rsample()
        with torch.no_grad():
            change()
        torch.testing.assert_close(path.log_prob(draw), plain_log_prob(path, draw))


def test_moments_are_those_of_a_gaussian_random_walk() -> None:
    """Mean and variance over 20,000 draws within 5 standard errors.

    False-alarm rate under 1e-4 for the 36 comparisons.
    """
    path = make(Translation, batch=(1,))
    draws = path.rsample((20_000,))[:, 0]
    moves = path.transition.moves(path.actions[0]).detach()
    moves[0] = 0
    variance = 0.25 + 0.09 * torch.arange(9, dtype=torch.float64)
    error = (draws.mean(0) - moves.cumsum(0)).abs() / (variance / 20_000).sqrt().unsqueeze(-1)
    assert error.max() < 5
    spread = (draws.var(0) / variance.unsqueeze(-1) - 1).abs() / (2 / 20_000) ** 0.5
    assert spread.max() < 5


def test_shapes_expand_and_constraints() -> None:
    path = make()
    assert path.batch_shape == (4, 1) and path.event_shape == (9, 2) and path.has_rsample
    assert path.rsample((7,)).shape == (7, 4, 1, 9, 2)
    wide = path.expand((6, 4, 1))
    assert wide.batch_shape == (6, 4, 1) and wide.rsample().shape == (6, 4, 1, 9, 2)
    draw = wide.rsample()
    torch.testing.assert_close(wide.log_prob(draw), plain_log_prob(path, draw))
    assert path.support.check(path.sample()).all() and path.support.event_dim == 2
    assert set(path.arg_constraints) == {"actions"}
    assert not path.sample().requires_grad and path.rsample().requires_grad


def test_detached_and_copied_draws_are_scored_in_full() -> None:
    path = make()
    draw = path.rsample()
    for value in (draw.detach(), draw + 0.1):
        torch.testing.assert_close(path.log_prob(value), plain_log_prob(path, value))


def test_float32_draws_keep_a_small_scale_exact() -> None:
    transition = WalledTranslation(5)
    actions = torch.eye(5)[torch.randint(5, (2, 300))]
    path = TransitionPath(dist.Normal(torch.zeros(2), 1e-3).to_event(1), transition, actions)
    draw = path.rsample()
    initial = dist.Normal(torch.zeros(2).double(), 1e-3).to_event(1)
    exact = TransitionPath(initial, deepcopy(transition).double(), actions.double())
    scored = exact.log_prob(draw.detach().double()).float()
    torch.testing.assert_close(path.log_prob(draw), scored, rtol=1e-2, atol=0)


def test_a_draw_made_without_gradients_has_those_of_the_formula() -> None:
    path = make()
    parameters = list(path.transition.parameters())
    for value in (path.sample(), path.sample().requires_grad_()):
        wrt = [*parameters, value] if value.requires_grad else parameters
        got = torch.autograd.grad(path.log_prob(value).sum(), wrt)
        want = torch.autograd.grad(plain_log_prob(path, value).sum(), wrt)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_draws_are_plain_tensors_for_files_and_inference_mode(tmp_path: Path) -> None:
    path = make()
    torch.save(path.sample(), tmp_path / "draw.pt")
    assert torch.load(tmp_path / "draw.pt").shape == (4, 1, 9, 2)
    with torch.inference_mode():
        draw = path.sample()
        torch.testing.assert_close(path.log_prob(draw), plain_log_prob(path, draw))


@pytest.mark.parametrize("drawn_with, scored_with", [(True, False), (False, True)])
def test_a_path_with_slips_and_the_same_one_without_score_each_others_draws(
    drawn_with: bool, scored_with: bool
) -> None:
    paths = {True: make(learn_scale=True, slip=0.3)}
    paths[False] = paths[True].without_slips()
    path = paths[scored_with]
    draw = paths[drawn_with].rsample()
    reference = make(learn_scale=True, slip=0.3 if scored_with else 0.0)
    torch.testing.assert_close(path.log_prob(draw), plain_log_prob(reference, draw))
    parameters = list(path.transition.parameters())
    got = torch.autograd.grad(path.log_prob(draw).sum(), parameters, retain_graph=True, materialize_grads=True)
    path.transition.double()  # replaces no tensor
    del draw._gtm_draw  # type: ignore[attr-defined]
    want = torch.autograd.grad(path.log_prob(draw).sum(), parameters, materialize_grads=True)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


def test_without_slips_is_the_path_of_a_transition_that_never_slips() -> None:
    still, slipping = make(slip=0.0), make(slip=0.3)
    for path in (slipping.without_slips(), slipping.without_slips().expand((4, 1)), slipping.expand((4, 1))):
        torch.manual_seed(1)
        draw = path.rsample()
        torch.manual_seed(1)
        same = torch.equal(draw, still.rsample())
        assert same != path.slips
        assert torch.equal(path.log_prob(draw.detach()), still.log_prob(draw.detach())) != path.slips
    assert slipping.slips and not slipping.without_slips().slips


def test_slips_are_drawn_as_often_and_as_far_as_they_are_scored() -> None:
    """The share of far steps and their size in 72,000 draws, each within 5 standard errors (false alarms: 1e-6)."""
    path = make(Translation, batch=(1,), slip=0.1, slip_scale=30.0)
    draws = path.rsample((9_000,))[:, 0]
    noise = (draws.diff(dim=-2) - path.transition.moves(path.actions[0, 1:])).detach()
    far = noise.norm(dim=-1) > 2.0
    # of a two-dimensional Gaussian of 30 a step, exp(-4 / 1800) is farther than 2; none of one of 0.3
    share = 0.1 * 0.99778
    assert abs(far.double().mean() - share) < 5 * (share * (1 - share) / far.numel()) ** 0.5
    assert abs(noise[far].square().mean() / 900 - 1.00222) < 5 * (2 / (2 * 0.1 * far.numel())) ** 0.5


def test_errors_name_what_came() -> None:
    path = make()
    with pytest.raises(ValueError, match=r"initial: expected event shape \(2,\), got \(3,\)"):
        TransitionPath(dist.Normal(torch.zeros(3), 1.0).to_event(1), path.transition, path.actions)
    with pytest.raises(ValueError, match=r"actions: expected \(\.\.\., time, 5\), got \(4, 9, 4\)"):
        TransitionPath(dist.Normal(torch.zeros(2), 1.0).to_event(1), path.transition, torch.zeros(4, 9, 4))
    with pytest.raises(ValueError, match="event"):
        make().log_prob(torch.zeros(4, 1, 8, 2, dtype=torch.float64))
    with pytest.raises(NotImplementedError):
        Transition(5).loc(torch.zeros(2), torch.zeros(5))
