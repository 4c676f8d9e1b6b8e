"""Momentum, friction and a top speed: displacements against a loop, and what earlier actions leave."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.initialisation.regression import regress
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM
from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation
from gtm_pyro.transitions.rotation import Momentum

ACTIONS, TIME = 4, 15
BOTH: list[Momentum] = ["agent", "world"]


def make(momentum: Momentum = "agent") -> MomentumTranslation:
    torch.manual_seed(0)
    transition = MomentumTranslation(ACTIONS, momentum=momentum).double()
    with torch.no_grad():
        transition.displacement.normal_()
        transition.friction.copy_(torch.tensor([1.0, 0.3, 2.0]))
        transition.saturation.copy_(torch.tensor([0.3, 0.4, 0.7]))
    return transition


def some_actions(*batch: int, time: int = TIME, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, time, ACTIONS, dtype=torch.float64, generator=generator)


def known(forward: float, turn: float, carried: float, momentum: Momentum) -> MomentumTranslation:
    """Actions: nothing, one step forward, a turn. Pushes are small, so that tanh does nothing."""
    transition = MomentumTranslation(3, momentum=momentum).double()
    with torch.no_grad():
        transition.displacement.zero_()
        transition.displacement[0, 1], transition.displacement[2, 2] = forward, turn
        transition.friction.fill_(math.log(carried / (1 - carried)))
        transition.friction[2] = -60.0  # a turn ends at once
        transition.saturation.fill_(1.0)
    return transition


def numbered(*actions: int) -> Tensor:
    return torch.eye(3, dtype=torch.float64)[list(actions)]


def by_hand(transition: MomentumTranslation, actions: Tensor) -> Tensor:
    """d_t = c_s tanh(sigma(c_f) d_{t-1} + M a_t), d_1 = 0."""
    d = [torch.zeros(*actions.shape[:-2], 3, dtype=torch.float64)]
    for t in range(1, actions.shape[-2]):
        carried = d[-1]
        if transition.momentum == "world":
            right, up, turn = carried.unbind(-1)
            carried = torch.stack(
                [right * turn.cos() + up * turn.sin(), up * turn.cos() - right * turn.sin(), turn], -1
            )
        push = actions[..., t, :] @ transition.displacement.mT
        d.append(transition.saturation * torch.tanh(torch.sigmoid(transition.friction) * carried + push))
    return torch.stack(d, -2)


@pytest.mark.parametrize("batch", [(), (3, 1), (2, 3, 1)], ids=str)
@pytest.mark.parametrize("momentum", BOTH)
def test_displacements_and_their_gradients_equal_a_loop(momentum: Momentum, batch: tuple[int, ...]) -> None:
    transition, actions = make(momentum), some_actions(*batch).requires_grad_()
    d, expected = transition.controls(actions), by_hand(transition, actions)
    torch.testing.assert_close(d, expected, rtol=1e-12, atol=1e-12)
    assert (d[..., 0, :] == 0).all()
    wrt = [actions, transition.displacement, transition.friction, transition.saturation]
    weights = torch.randn_like(d)
    for one, other in zip(
        torch.autograd.grad((d.sin() * weights).sum(), wrt),
        torch.autograd.grad((expected.sin() * weights).sum(), wrt),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(transition.controls(actions), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", BOTH)
def test_no_displacement_is_over_the_top_speed(momentum: Momentum) -> None:
    transition = make(momentum)
    d = transition.controls(100 * some_actions(8, time=60)).detach()
    assert (d.abs() <= transition.saturation).all()
    assert (d.abs().amax((0, 1)) > 0.999 * transition.saturation).all()


def test_friction_takes_the_same_share_of_every_step() -> None:
    transition = known(forward=1e-4, turn=0.0, carried=0.8, momentum="agent")
    d = transition.controls(numbered(0, 1, *[0] * 10)).detach()
    expected = 1e-4 * 0.8 ** torch.arange(11, dtype=torch.float64)
    torch.testing.assert_close(d[1:, 0], expected, rtol=1e-6, atol=0)
    assert (d[:, 1:] == 0).all()


def test_only_in_the_world_s_frame_does_a_gliding_agent_keep_its_direction() -> None:
    """Pushed east, then turned by 90 degrees to the left while it glides."""
    north = 0.5 * math.pi
    push, carried = 1e-4, 0.9
    ways = {}
    for momentum in BOTH:
        transition = known(push, 0.0, carried, momentum)
        with torch.no_grad():
            transition.saturation[2], transition.displacement[2, 2] = 10.0, math.atanh(north / 10.0)
        start, still = torch.zeros(3, dtype=torch.float64), torch.zeros(6, 3, dtype=torch.float64)
        ways[momentum] = transition.rollout(start, numbered(0, 1, 2, 0, 0, 0), still).detach()
    for path in ways.values():
        torch.testing.assert_close(path[2:, 2], torch.full((4,), north, dtype=torch.float64))
    glide = push * carried ** torch.arange(1, 5, dtype=torch.float64)
    # the turn itself is under way while the agent still moves as it stood
    torch.testing.assert_close(ways["world"].diff(dim=0)[1:, 0], glide, rtol=1e-5, atol=1e-12)
    assert ways["world"].diff(dim=0)[1:, 1].abs().max() < 1e-12
    torch.testing.assert_close(ways["agent"].diff(dim=0)[2:, 1], glide[1:], rtol=1e-5, atol=1e-12)
    assert ways["agent"].diff(dim=0)[2:, 0].abs().max() < 1e-12


def test_without_carry_and_at_low_speed_it_is_the_plain_agent() -> None:
    transition, plain = make(), RotatingTranslation(ACTIONS).double()
    with torch.no_grad():
        transition.friction.fill_(-60.0)
        transition.saturation.fill_(1e4)
        transition.displacement.div_(1e4)
        plain.displacement.copy_(1e4 * transition.displacement)
    start, still = torch.zeros(3, dtype=torch.float64), torch.zeros(TIME, 3, dtype=torch.float64)
    actions = 0.3 * some_actions()
    torch.testing.assert_close(transition.rollout(start, actions, still), plain.rollout(start, actions, still))


@pytest.mark.parametrize("cut", [1, 2, 9, 14])
@pytest.mark.parametrize("momentum", BOTH)
def test_a_path_with_its_past_is_the_second_part_of_a_long_one(momentum: Momentum, cut: int) -> None:
    """``past`` ends with the action that led to the first state, which the later actions repeat and do not use."""
    transition, actions = make(momentum), some_actions(2, 1)
    noise = 0.1 * torch.randn_like(actions[..., :3])
    whole = transition.rollout(torch.zeros(2, 1, 3, dtype=torch.float64), actions, noise)
    past, later = actions[..., :cut, :], actions[..., cut - 1 :, :].clone()
    later[..., 0, :] = 77.0
    part = transition.rollout(whole[..., cut - 1, :], later, noise[..., cut - 1 :, :], past)
    torch.testing.assert_close(part, whole[..., cut - 1 :, :], rtol=1e-9, atol=1e-9)
    expected = transition.controls(actions)[..., cut - 1 :, :]
    torch.testing.assert_close(transition.controls(later, past), expected, rtol=1e-12, atol=1e-12)
    if cut > 1:  # an agent at rest does something else
        rest = transition.rollout(whole[..., cut - 1, :], later, noise[..., cut - 1 :, :])
        assert (rest - part)[..., -1, :].abs().max() > 1e-3


@pytest.mark.parametrize("momentum", BOTH)
def test_regression_on_true_displacements_recovers_the_parameters(momentum: Momentum) -> None:
    true, fitted = make(momentum), MomentumTranslation(ACTIONS, momentum=momentum).double()
    actions = torch.eye(ACTIONS, dtype=torch.float64)[torch.randint(ACTIONS, (8, 30))]
    displacements = true.controls(actions)[:, 1:].detach()
    regress(fitted, actions, displacements, iterations=400)
    torch.testing.assert_close(fitted.displacement, true.displacement, rtol=0.02, atol=0.02)
    torch.testing.assert_close(fitted.friction.sigmoid(), true.friction.sigmoid(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(fitted.saturation, true.saturation, rtol=0.02, atol=0.02)
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in fitted.parameters())
    error = (fitted.controls(actions)[:, 1:] - displacements).square().mean().sqrt()
    assert error < 1e-3 * displacements.square().mean().sqrt()


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_regression_without_momentum_is_exact_in_any_unit(size: float) -> None:
    torch.manual_seed(0)
    true, fitted = RotatingTranslation(ACTIONS), RotatingTranslation(ACTIONS)
    actions = torch.eye(ACTIONS)[torch.randint(ACTIONS, (8, 30))]
    regress(fitted, actions, size * true.controls(actions)[:, 1:].detach())
    torch.testing.assert_close(fitted.displacement, size * true.displacement, rtol=1e-3, atol=1e-3 * size)


@pytest.mark.parametrize("momentum", BOTH)
def test_what_is_imagined_continues_the_path(momentum: Momentum) -> None:
    """A model whose agent glides at step tau goes on gliding, in one go or in two."""
    model = GTMSM(make(momentum).float(), SpatialMemory(1), initial_scale=1e-6)
    model.transition.log_scale.fill_(-30.0)
    actions = some_actions(3).float()
    frames = torch.rand(3, TIME, 3, 8, 8)
    tau = 8
    s = DeadReckoning(model).path(Episodes(frames, actions, tau)).sample().squeeze(-3)
    memory = model.remember(s[:, :tau], frames[:, :tau])
    whole = model.imagine(s[:, tau - 1], memory, actions[:, tau:], past=actions[:, :tau])
    torch.testing.assert_close(whole.states, s[:, tau:], atol=1e-4, rtol=1e-4)
    first = model.imagine(s[:, tau - 1], memory, actions[:, tau : tau + 3], past=actions[:, :tau])
    second = model.imagine(first.states[:, -1], memory, actions[:, tau + 3 :], past=actions[:, : tau + 3])
    torch.testing.assert_close(torch.cat([first.states, second.states], 1), whole.states, atol=1e-4, rtol=1e-4)
    at_rest = model.imagine(s[:, tau - 1], memory, actions[:, tau:])
    assert (at_rest.states - s[:, tau:]).abs().max() > 0.01


def test_a_path_scores_a_gliding_agent_and_not_one_that_stops() -> None:
    transition = known(forward=0.01, turn=0.0, carried=0.9, momentum="agent")
    initial = dist.Normal(torch.zeros(3, dtype=torch.float64), 1e-3).to_event(1)
    path = TransitionPath(initial, transition, numbered(0, 1, *[0] * 6).unsqueeze(0))
    glides = transition.rollout(torch.zeros(1, 3).double(), path.actions, torch.zeros(1, 8, 3).double()).detach()
    stops = glides.clone()
    stops[:, 2:] = stops[:, 1:2]
    residual = torch.cat([torch.zeros(1, 1).double(), (0.01 * 0.9 ** torch.arange(1, 7).double()).unsqueeze(0)], 1)
    lost = 0.5 * (residual / 1e-3).square().sum()
    gap = path.log_prob(glides) - path.log_prob(stops)
    torch.testing.assert_close(gap.detach(), lost.expand(1), rtol=1e-2, atol=0)


def test_an_unknown_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="momentum: expected 'agent' or 'world', got 'moon'"):
        MomentumTranslation(3, momentum="moon")  # type: ignore[arg-type]


def test_a_run_is_resumed_with_the_same_momentum_only() -> None:
    assert "momentum='world'" in repr(MomentumTranslation(3, momentum="world")), "of which the plan of a run is made"
