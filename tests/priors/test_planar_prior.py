"""PlanarPrior: places in views from above by hand, and a map that is seen from elsewhere."""

import math

import pytest
import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.priors import PlanarPrior
from gtm_pyro.priors.planar import moved

SIZE = 7


def seen_from(pose: Tensor, points: Tensor, eye: Tensor, half_width: float) -> Tensor:
    """Places of points of the ground ``(..., 2)`` in a view."""
    east, north = (points - pose[:2]).unbind(-1)
    cos, sin = pose[2].cos(), pose[2].sin()
    ahead, left = cos * east + sin * north, cos * north - sin * east
    return torch.stack([eye[0] - left / half_width, eye[1] - ahead / half_width], -1)


@pytest.mark.parametrize("half_width", [0.5, 3.5])
def test_places_in_another_view_are_those_of_the_same_points(half_width: float) -> None:
    points = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6 - 3
    asks, other = torch.tensor([[1.0, 2.0, 0.4], [0.3, 2.5, 2.9]], dtype=torch.float64)
    eye = torch.tensor([0.1, 0.8], dtype=torch.float64)
    move, turn = asks[:2] - other[:2], asks[2] - other[2]
    ahead = other[2].cos() * move[0] + other[2].sin() * move[1]
    left = other[2].cos() * move[1] - other[2].sin() * move[0]
    grid = seen_from(asks, points, eye, half_width)
    place = moved(grid, eye, torch.tensor(half_width, dtype=torch.float64), ahead, left, turn)
    torch.testing.assert_close(place, seen_from(other, points, eye, half_width))


def test_quarters_of_a_turn_and_whole_moves_take_cells_to_cells() -> None:
    """In a view of seven cells a side, the agent in the middle of the last row; the cell before it stays there."""
    prior = PlanarPrior(SIZE**2, 8)
    # one cell ahead of the other agent, and turned to the left
    place = moved(
        prior.grid, prior.eye, torch.tensor(3.5), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0.5 * math.pi)
    )
    cells = (place + 1) * SIZE / 2 - 0.5
    torch.testing.assert_close(cells, cells.round(), atol=1e-4, rtol=0)
    assert cells[6, 3].round().tolist() == [3, 5], "column and row of the agent's own cell"
    assert cells[5, 3].round().tolist() == [2, 5], "the one before it is to the left of that"
    assert cells[6, 4].round().tolist() == [3, 4], "and the one to its right is further ahead"


class Seen(nn.Module):
    """In place of the correction: what was found takes the place of the first guess."""

    def forward(self, told: Tensor) -> Tensor:
        found, guess = told[..., : SIZE**2], told[..., SIZE**2 * 2 : SIZE**2 * 3]
        return torch.cat([(found - guess) / APART, torch.zeros_like(found)], -1)


APART = math.tanh(math.sqrt(2.0 + 2.0))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_map_is_seen_from_elsewhere(mirrored: bool) -> None:
    """Latents are views of one map, a number a cell; the query is diagonal to the one entry, and turned left."""
    prior = PlanarPrior(SIZE**2, 8, channels=1, num_warped=1, mirrored=mirrored).double()
    with torch.no_grad():
        prior.canvas.weight.copy_(torch.eye(SIZE**2))
        prior.canvas.bias.zero_()
    prior.correction = nn.Sequential(nn.Identity(), Seen())
    ground = torch.rand(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def view(x: int, y: int, quarters: int) -> Tensor:
        """Rows from the furthest to the agent's own; x to the east, y to the north."""
        ahead = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
        left = (-ahead[1], ahead[0])
        cells = [
            [
                ground[x + far * ahead[0] + side * left[0], y + far * ahead[1] + side * left[1]]
                for side in range(3, -4, -1)
            ]
            for far in range(6, -1, -1)
        ]
        return torch.tensor(cells, dtype=torch.float64)

    entry = torch.tensor([[[0.0, 0.0, 0.0]]], dtype=torch.float64)
    sign = -1.0 if mirrored else 1.0
    query = torch.tensor([[[1.0, sign, sign * 0.5 * math.pi]]], dtype=torch.float64)
    z = view(15, 15, 0).flatten()
    keys = HeadingKeys().double()
    memory = SpatialMemory(1).write(keys(entry), {"loc": z[None, None], "scale": z[None, None], "state": entry})
    with torch.no_grad():
        loc = prior(memory.read(keys(query)), query).mean.reshape(SIZE, SIZE)
    true = view(16, 16, 1)
    place = moved(
        prior.grid, prior.eye, torch.tensor(3.5), torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.5 * math.pi)
    )
    known = place.abs().amax(-1) < 1
    assert 10 < known.sum() < 40
    torch.testing.assert_close(loc[known], true[known], atol=1e-5, rtol=0)


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="half_width"):
        PlanarPrior(half_width=0.0)
    with pytest.raises(ConfigError, match="grid_size"):
        PlanarPrior(grid_size=0)
