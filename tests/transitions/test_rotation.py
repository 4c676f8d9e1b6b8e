"""Agents that turn: values, gradients and densities of whole paths against loops of single steps."""

import math
from copy import deepcopy

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.poses.planar import turned
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation
from gtm_pyro.transitions.recurrence import unroll_plain

ACTIONS, TIME = 4, 13
KINDS = [RotatingTranslation, MomentumTranslation]


def make(kind: type[RotatingTranslation], **fields: object) -> RotatingTranslation:
    torch.manual_seed(0)
    transition = kind(ACTIONS, **fields).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter.normal_(0.4, 0.5)
    return transition


def inputs(*batch: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    actions = torch.randn(*batch, TIME, ACTIONS, dtype=torch.float64)
    noise = 0.1 * torch.randn(*batch, TIME, 3, dtype=torch.float64)
    return torch.randn(*batch, 3, dtype=torch.float64), actions, noise


def by_hand(s: Tensor, displacement: Tensor) -> Tensor:
    """Eq. (5), a matrix and a product for each state."""
    flat, moves = s.reshape(-1, 3), displacement.expand_as(s).reshape(-1, 3)
    states = []
    for state, move in zip(flat, moves, strict=True):
        cos, sin, zero = state[2].cos(), state[2].sin(), torch.zeros_like(state[2])
        rotation = torch.stack([torch.stack([cos, -sin, zero]), torch.stack([sin, cos, zero])])
        states.append(state + torch.cat([rotation @ move, move[2:]]))
    return torch.stack(states).reshape(s.shape)


def gradients(path: Tensor, wrt: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, path.numel(), dtype=path.dtype).view_as(path)
    return list(torch.autograd.grad((weights * path.sin()).sum(), wrt, retain_graph=True))


def path_of(kind: type[RotatingTranslation], *batch: int, learn_scale: bool = False) -> TransitionPath:
    transition = make(kind, learn_scale=learn_scale)
    with torch.no_grad():
        transition.log_scale.fill_(math.log(0.3))
    initial = dist.Normal(torch.zeros(3, dtype=torch.float64), 0.5).to_event(1)
    return TransitionPath(initial, transition, inputs(*batch)[1])


def plain_log_prob(path: TransitionPath, value: Tensor) -> Tensor:
    total, controls = path.initial.log_prob(value[..., 0, :]), path.transition.controls(path.actions)
    for t in range(1, value.shape[-2]):
        total = total + path.transition(value[..., t - 1, :], controls[..., t, :]).log_prob(value[..., t, :])
    return total


@pytest.mark.parametrize("batch", [(), (3, 1), (2, 3, 1)], ids=str)
def test_paths_in_closed_form_and_their_gradients_equal_the_plain_loop(batch: tuple[int, ...]) -> None:
    transition = make(RotatingTranslation)
    start, actions, noise = (tensor.requires_grad_() for tensor in inputs(*batch))
    wrt = [start, actions, noise, transition.displacement]
    fast = transition.rollout(start, actions, noise)
    step_by_step = unroll_plain(transition.loc, start, transition.controls(actions), noise)
    moves = actions @ transition.displacement.mT
    assert fast.shape == (*batch, TIME, 3)
    for plain in (step_by_step, unroll_plain(by_hand, start, moves, noise)):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
        for one, other in zip(gradients(fast, wrt), gradients(plain, wrt), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_eq_5_by_hand() -> None:
    """Facing north at (1, 2): one forward is one up, one to the side is one to the left; then it faces west."""
    s = torch.tensor([1.0, 2.0, math.pi / 2])
    after = s + turned(torch.tensor([1.0, 0.0, 0.0]), s[2])
    torch.testing.assert_close(after, torch.tensor([1.0, 3.0, math.pi / 2]))
    transition = RotatingTranslation(2)
    with torch.no_grad():
        transition.displacement.copy_(torch.tensor([[1.0, 2.0], [0.5, 0.0], [math.pi / 2, 0.0]]))
    first, second = torch.eye(2)
    s = transition.loc(s, transition.controls(first))
    torch.testing.assert_close(s, torch.tensor([0.5, 3.0, math.pi]))
    s = transition.loc(s, transition.controls(second))
    torch.testing.assert_close(s, torch.tensor([-1.5, 3.0, math.pi]))
    start, actions = torch.tensor([1.0, 2.0, math.pi / 2]), torch.stack([second, first, second])
    path = transition.rollout(start, actions, torch.zeros(3, 3))
    torch.testing.assert_close(path[-1], s)
    assert torch.equal(path[0], start)


def test_a_full_circle_comes_back_to_where_it_began() -> None:
    transition = make(RotatingTranslation)
    turns = 41
    with torch.no_grad():
        transition.displacement[:, 0] = torch.tensor([0.3, -0.1, 2 * math.pi / turns], dtype=torch.float64)
    actions = torch.eye(ACTIONS, dtype=torch.float64)[torch.zeros(turns + 1, dtype=torch.long)]
    start = torch.tensor([0.4, -2.0, 0.7], dtype=torch.float64)
    path = transition.rollout(start, actions, torch.zeros(turns + 1, 3, dtype=torch.float64))
    torch.testing.assert_close(path[-1, :2], start[:2])
    assert float((path[-1, 2] - start[2]).detach()) == pytest.approx(2 * math.pi)
    side = path.diff(dim=0)[:, :2].norm(dim=-1)
    torch.testing.assert_close(side, torch.full_like(side, 0.1**0.5))  # of a regular polygon
    assert 0.9 < float(path[turns // 2, :2].sub(start[:2]).norm().detach() / (0.1**0.5 * turns / math.pi)) < 1.1


def test_without_momentum_the_past_is_ignored() -> None:
    transition, (start, actions, noise) = make(RotatingTranslation), inputs(2)
    past = torch.randn(2, 5, ACTIONS, dtype=torch.float64)
    torch.testing.assert_close(transition.controls(actions, past), transition.controls(actions))
    expected = transition.rollout(start, actions, noise)
    torch.testing.assert_close(transition.rollout(start, actions, noise, past), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_subclass_with_another_step_is_rolled_by_it(kind: type[RotatingTranslation]) -> None:
    class Drifting(kind):  # type: ignore[valid-type, misc]
        def loc(self, s: Tensor, control: Tensor) -> Tensor:
            return 0.9 * super().loc(s, control)

    transition, (start, actions, noise) = make(Drifting), inputs(3, 1)
    plain = unroll_plain(transition.loc, start, transition.controls(actions), noise)
    torch.testing.assert_close(transition.rollout(start, actions, noise), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_and_stepping(kind: type[RotatingTranslation]) -> None:
    transition, (start, actions, noise) = make(kind), inputs(6)
    single = transition.rollout(start, actions[:, :1], noise[:, :1])
    assert torch.equal(single, start.unsqueeze(1))
    controls = transition.controls(actions)
    step = transition.stepping(controls)
    for t in range(TIME):
        torch.testing.assert_close(step(start, t), by_hand(start, controls[:, t]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_density_is_normal_about_eq_5(kind: type[RotatingTranslation]) -> None:
    path = path_of(kind, 3, 1)
    start, transition = inputs(3, 1)[0], path.transition
    controls = transition.controls(path.actions)
    step = transition(start, controls[..., 4, :])
    assert step.event_shape == (3,) and step.batch_shape == (3, 1)
    torch.testing.assert_close(step.mean, by_hand(start, controls[..., 4, :]))
    torch.testing.assert_close(step.stddev, torch.full_like(start, 0.3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_the_sum_over_steps(kind: type[RotatingTranslation]) -> None:
    path = path_of(kind, 4, 1)
    value = torch.randn(5, 4, 1, TIME, 3, dtype=torch.float64)
    torch.testing.assert_close(path.log_prob(value), plain_log_prob(path, value))
    assert path.log_prob(value).shape == (5, 4, 1)


@pytest.mark.parametrize("samples", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_draws_equal_the_plain_loop_over_their_noise(kind: type[RotatingTranslation], samples: tuple[int, ...]) -> None:
    path = path_of(kind, 4, 1)
    torch.manual_seed(3)
    draw = path.rsample(samples)
    torch.manual_seed(3)
    start = path.initial.rsample(samples)
    noise = 0.3 * torch.randn(*samples, 4, 1, TIME, 3, dtype=torch.float64)
    controls = path.transition.controls(path.actions).expand(*noise.shape)
    torch.testing.assert_close(draw, unroll_plain(by_hand, start, controls, noise), rtol=1e-6, atol=1e-6)
    assert path.expand((6, 4, 1)).rsample(samples).shape == (*samples, 6, 4, 1, TIME, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_scored_by_its_noise_with_the_value_and_gradient_of_a_copy(kind: type[RotatingTranslation]) -> None:
    path = path_of(kind, 4, 1, learn_scale=True)
    parameters = list(path.transition.parameters())
    draw = path.rsample((3,))
    assert hasattr(draw, "_gtm_draw")
    quick = path.log_prob(draw)
    torch.testing.assert_close(quick, path.log_prob(draw.detach().clone()))
    plain = plain_log_prob(path, draw)
    unused = sum((p.sum() * 0 for p in parameters), torch.zeros((), dtype=torch.float64))
    one = torch.autograd.grad(quick.sum() + unused, parameters, retain_graph=True)
    other = torch.autograd.grad(plain.sum(), parameters)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_scored_in_full_after_its_parameters_changed(kind: type[RotatingTranslation]) -> None:
    path = path_of(kind, 4, 1)
    for parameter in path.transition.parameters():
        draw = path.rsample()
        before = path.log_prob(draw)
        with torch.no_grad():
            parameter.add_(0.5)
        after = path.log_prob(draw)
        torch.testing.assert_close(after, plain_log_prob(path, draw))
        assert (after < before).any()


def test_the_mean_of_a_step_from_an_uncertain_heading() -> None:
    """Mean of the first two steps over 40,000 draws within 5 standard errors: false alarms 1e-5 for 9 comparisons.

    A heading h ~ N(0, 0.5^2) turns moves, E[cos h] = exp(-0.125).
    """
    path = path_of(RotatingTranslation, 1)
    draws = path.rsample((40_000,))[:, 0, :2].detach()
    move = path.transition.controls(path.actions)[0, 1].detach()
    shrink = math.exp(-0.125)
    mean = torch.stack([torch.zeros(3).double(), torch.stack([shrink * move[0], shrink * move[1], move[2]])])
    error = (draws.mean(0) - mean).abs() / (draws.std(0) / 200)
    assert error.max() < 5


def test_copies_and_single_precision() -> None:
    """Draws in float32 with a small scale are scored as in float64."""
    torch.manual_seed(0)
    transition = MomentumTranslation(ACTIONS)
    actions = torch.eye(ACTIONS)[torch.randint(ACTIONS, (2, 300))]
    path = TransitionPath(dist.Normal(torch.zeros(3), 1e-3).to_event(1), transition, actions)
    draw = path.rsample()
    initial = dist.Normal(torch.zeros(3).double(), 1e-3).to_event(1)
    exact = TransitionPath(initial, deepcopy(transition).double(), actions.double())
    scored = exact.log_prob(draw.detach().double()).float()
    torch.testing.assert_close(path.log_prob(draw), scored, rtol=1e-2, atol=0)
