"""Starting values of agents with momentum from how frames shift: the true ones, not their mirror image."""

import pytest
import torch
from agent_cases import painted
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.initialisation import FlowSearch
from gtm_pyro.initialisation.flow import image_shifts, lagged, response
from gtm_pyro.models import GTMSM
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation

# nothing, ahead, left, right, both at once
MOVES, TURNS = torch.tensor([0, 0.2, 0, 0, 0.2]), torch.tensor([0, 0, 0.3, -0.3, 0.3])
MOVE_LAG, TURN_LAG, HALF = 0.5, 0.2, 4.0


def walks(batch: int, time: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, one-hot actions and true states ``(batch, time, 3)``; headings grow to the left."""
    generator = torch.Generator().manual_seed(0)
    often = torch.tensor([0.1, 0.3, 0.25, 0.25, 0.1])
    numbers = often.multinomial(batch * time, True, generator=generator).reshape(batch, time)
    actions = torch.eye(5)[numbers.repeat_interleave(3, 1)[:, :time]]
    heading = (lagged(actions, TURN_LAG) @ TURNS).cumsum(1)
    step = (lagged(actions, MOVE_LAG) @ MOVES).unsqueeze(-1) * torch.stack([heading.cos(), heading.sin()], -1)
    place, places = torch.zeros(batch, 2), []
    for t in range(time):
        place = (place + step[:, t]).clamp(-0.9 * HALF, 0.9 * HALF)
        places.append(place)
    states = torch.cat([torch.stack(places, 1), heading.unsqueeze(-1)], -1)
    return painted(states[..., :2], heading, HALF, generator, rays=24).flip(-1), actions, states


def test_lags_turns_and_moves_are_found() -> None:
    frames, actions, states = walks(24, 120)
    transition = MomentumTranslation(5)
    left_over = FlowSearch(rounds=3).start(transition, frames, actions, 80)
    assert left_over < 0.6
    path = transition.rollout(torch.zeros(24, 3), actions, torch.zeros(24, 120, 3)).detach()
    heading, true = path[..., 2], states[..., 2] - states[:, :1, 2]
    assert float((heading - true).square().mean().sqrt()) < 0.1 * float(true.square().mean().sqrt()), "to the left"
    steps = path[..., :2].diff(dim=1).norm(dim=-1)[:, 1:]
    again = actions[:, 2:] * actions[:, 1:-1]  # the same action twice
    ahead, aside = (float(steps[again[..., i] > 0].mean()) for i in (1, 2))
    assert aside < 0.6 * ahead, "turns on the spot, but for what momentum is left"


def test_what_is_seen_shifts() -> None:
    """Two pixels to the right; and a picture that grows by a tenth about its middle."""
    x = torch.linspace(-1, 1, 40)
    picture = torch.stack([(k * x).sin() for k in (3, 7, 11)]).unsqueeze(1).expand(3, 4, 40)
    grown = torch.stack([(k * x / 1.1).sin() for k in (3, 7, 11)]).unsqueeze(1).expand(3, 4, 40)
    shifts = image_shifts(torch.stack([picture, picture.roll(2, -1), picture, grown]).unsqueeze(0))[0]
    assert shifts[:2, 0].tolist() == pytest.approx([2 / 40, -2 / 40], abs=0.006)
    assert abs(float(shifts[2, 0])) < 0.01 and float(shifts[2, 1]) > 0.02
    with pytest.raises(ConfigError, match="at least 8 columns, got 4"):
        image_shifts(torch.rand(1, 3, 3, 4, 4))


def test_a_response_is_that_of_most_steps() -> None:
    torch.manual_seed(0)
    actions = torch.eye(3)[torch.randint(3, (8, 100))]
    y = lagged(actions, 0.6)[:, 1:] @ torch.tensor([0.5, -1.0, 0.0]) + 0.02 * torch.randn(8, 99)
    y[:, ::10] = 5.0
    found = response(y, actions)
    assert found.lag == pytest.approx(0.6, abs=0.11)
    assert found.gain.tolist() == pytest.approx([0.5, -1.0, 0.0], abs=0.15)


def test_it_is_for_agents_with_momentum() -> None:
    frames = torch.rand(8, 12, 3, 8, 8)
    episodes = Episodes(frames, torch.eye(5)[torch.randint(5, (8, 12))], num_observed=8)
    with pytest.raises(ConfigError, match="FlowSearch expected a model whose transition is a MomentumTranslation"):
        FlowSearch()(GTMSM(RotatingTranslation(5)), episodes)
    with pytest.raises(ConfigError, match="rounds"):
        FlowSearch(rounds=0)
