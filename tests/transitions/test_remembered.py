"""Walls that are read from the memory: what maps say of places, and where an agent stops."""

import math
from typing import Any

import pytest
import torch

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.networks.walls import WallNetwork
from gtm_pyro.paths.transition import continued
from gtm_pyro.transitions import RememberedWalls
from gtm_pyro.transitions.remembered import SeenWalls

LEFT, RIGHT, AHEAD = torch.eye(3)


def make(ahead: tuple[float, float] = (0.3, 0.4), **settings: Any) -> RememberedWalls:
    """Turns of a quarter, moves of half a unit in a direction that is none of the axes."""
    transition = RememberedWalls(3, (1, 2, 2), scale=1e-6, side=5, **settings)
    with torch.no_grad():
        transition.displacement.copy_(
            torch.tensor([[0, 0, ahead[0]], [0, 0, ahead[1]], [math.pi / 2, -math.pi / 2, 0]])
        )
    return transition


def one_wall(ahead: int, side: int) -> torch.Tensor:
    """A map that knows of one wall, so many moves ahead and to the side."""
    map_ = torch.full((5, 5), -1.0)
    map_[2 + ahead, 2 + side] = 5.0
    return map_


def walk(actions: list[torch.Tensor], maps: torch.Tensor, transition: RememberedWalls) -> torch.Tensor:
    """States after each action, from the origin, where one entry was made there."""
    values = {"state": torch.zeros(1, len(maps), 3), "walls": maps.unsqueeze(0)}
    memory = SpatialMemory().write(torch.zeros(1, len(maps), 3), values)
    return continued(transition.reading(memory), torch.zeros(1, 3), torch.stack(actions).unsqueeze(0))[0]


def moves_of(path: torch.Tensor) -> torch.Tensor:
    """Positions in moves, forward and to the side of the first direction."""
    unit = torch.tensor([0.6, 0.8])
    across = torch.tensor([-0.8, 0.6])
    return torch.stack([path[:, :2] @ unit, path[:, :2] @ across], -1) / 0.5


def test_an_agent_stops_at_a_wall_that_was_seen_and_turns_there() -> None:
    path = walk([AHEAD, AHEAD, LEFT, AHEAD, RIGHT, AHEAD], one_wall(2, 0).unsqueeze(0), make())
    expected = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 1], [1, 1], [2, 1]])
    torch.testing.assert_close(moves_of(path), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(path[:, 2], math.pi / 2 * torch.tensor([0.0, 0, 1, 1, 0, 0]), atol=1e-3, rtol=0)


def test_the_surest_entry_decides() -> None:
    free = torch.full((5, 5), 0.0)
    free[3, 2] = -6.0
    path = walk([AHEAD, AHEAD], torch.stack([one_wall(1, 0), free]), make())
    torch.testing.assert_close(moves_of(path)[:, 0], torch.tensor([1.0, 2.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_what_is_seen_turns_and_grows_with_the_coordinates(turn: float, unit: float) -> None:
    transition = make((0.3 * unit, 0.4 * unit))
    maps = torch.randn(2, 5, 5)
    states = torch.tensor([[0.5, -0.4, 0.3], [0.1, 0.9, 2.0]])
    places = torch.randn(7, 2)

    def said(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        scaled = torch.cat([states[:, :2] * unit, states[:, 2:]], -1)
        return transition.wall_logit(SeenWalls(scaled, maps), places * unit)

    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    turned = torch.cat([states[:, :2] @ rotation.mT + 3.0, states[:, 2:] + turn], -1)
    torch.testing.assert_close(
        said(turned, places @ rotation.mT + 3.0), make().wall_logit(SeenWalls(states, maps), places)
    )


def test_places_that_nobody_saw_are_free() -> None:
    seen = SeenWalls(torch.zeros(1, 3), torch.full((1, 5, 5), 3.0))
    logit = make().wall_logit(seen, torch.tensor([[0.3, 0.4], [10.0, 0.0]]))
    assert logit[0] > 0 and logit[1] == -8.0
    allowed = torch.zeros(2, 1, dtype=torch.bool)
    assert (make().wall_logit(seen, torch.tensor([[0.3, 0.4], [10.0, 0.0]]), allowed) == -8.0).all()


def test_known_moves_leave_out_those_that_walls_stopped() -> None:
    transition = make()
    actions = torch.stack([AHEAD, AHEAD, LEFT, AHEAD])
    told = torch.cat([actions, torch.tensor([[0.0], [1.0], [1.0], [0.0]])], -1)
    controls = transition.told().controls(told)
    torch.testing.assert_close(controls[[0, 2, 3]], transition.controls(actions)[[0, 2, 3]])  # no wall stops a turn
    assert (controls[1, :2] == 0).all()
    assert transition.action_dim == 3 and transition.told().action_dim == 4


def test_frames_learn_what_a_path_says_of_places() -> None:
    torch.manual_seed(0)
    transition = make(hidden=16)
    frames = torch.rand(1, 3, 1, 2, 2)
    actions = torch.stack([AHEAD, AHEAD, AHEAD]).unsqueeze(0)
    blocked = torch.tensor([[False, False, True]])
    told = torch.cat([actions, blocked.unsqueeze(-1)], -1)
    path = transition.told().rollout(torch.zeros(1, 3), told, torch.zeros(1, 3, 3))
    controls = transition.controls(actions)
    first = transition.wall_loss(transition.walls(frames), path, controls, blocked)
    torch.testing.assert_close(first, torch.full((1,), 2 * math.log(2)))  # nothing is known of two places
    optimiser = torch.optim.Adam(transition.walls.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        transition.wall_loss(transition.walls(frames), path, controls, blocked).sum().backward()
        optimiser.step()
    maps = transition.walls(frames)[0]
    assert maps[0, 3, 2] < -2 and maps[0, 4, 2] > 2  # the first frame: one move ahead free, then a wall
    assert maps[1, 3, 2] > 2 and maps[1, 2, 2] < -2


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="side: expected an odd number"):
        WallNetwork((1, 2, 2), side=4)
    with pytest.raises(ConfigError, match=r"walls: expected frames \(..., \(1, 2, 2\)\), got \(4, 3, 2, 2\)"):
        make().walls(torch.rand(4, 3, 2, 2))
