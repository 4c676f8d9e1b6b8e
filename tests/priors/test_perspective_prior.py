"""PerspectivePrior: places in images by hand, and a wall that is seen from elsewhere."""

import math

import pytest
import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.priors import PerspectivePrior
from gtm_pyro.priors.perspective import reprojected
from gtm_pyro.priors.query import Guess

SIZE = 6


def seen_from(pose: Tensor, points: Tensor, tan_half: float) -> tuple[Tensor, Tensor]:
    """Places of points (x, y, height) in an image, and how far ahead they are; cameras have height 0."""
    east, north = (points[..., :2] - pose[:2]).unbind(-1)
    cos, sin = pose[2].cos(), pose[2].sin()
    ahead, left = cos * east + sin * north, cos * north - sin * east
    return torch.stack([-left, -points[..., 2]], -1) / (tan_half * ahead).unsqueeze(-1), ahead


@pytest.mark.parametrize("tan_half", [0.5, 1.2])
def test_places_in_another_image_are_those_of_the_same_points(tan_half: float) -> None:
    generator = torch.Generator().manual_seed(0)
    asks, other = torch.tensor([[1.0, 2.0, 0.4], [0.3, 2.5, 0.9]], dtype=torch.float64)
    far, aside, up = torch.rand(3, 50, dtype=torch.float64, generator=generator)
    far, aside, up = 2 + 3 * far, 2 * aside - 1, up - 0.5
    cos, sin = asks[2].cos(), asks[2].sin()
    points = torch.stack([asks[0] + cos * far - sin * aside, asks[1] + sin * far + cos * aside, up], -1)
    grid, depth = seen_from(asks, points, tan_half)
    torch.testing.assert_close(depth, far)
    expected, expected_depth = seen_from(other, points, tan_half)
    move, turn = asks[:2] - other[:2], asks[2] - other[2]
    ahead = other[2].cos() * move[0] + other[2].sin() * move[1]
    left = other[2].cos() * move[1] - other[2].sin() * move[0]
    # the image's height is told in units of half its width
    place, front = reprojected(grid, torch.tensor(tan_half, dtype=torch.float64), 1 / far, ahead, left, turn)
    torch.testing.assert_close(place, expected)
    torch.testing.assert_close(front, expected_depth / far)


def test_a_turn_alone_needs_no_depth_and_what_is_behind_has_no_place() -> None:
    grid, none = torch.tensor([[0.0, 0.0], [0.5, -0.2]]), torch.zeros(())
    for depth in (0.1, 7.0):
        place, front = reprojected(grid, torch.tensor(1.0), torch.tensor(1 / depth), none, none, torch.tensor(0.3))
        torch.testing.assert_close(place[0], torch.tensor([-math.tan(0.3), 0.0]))
        torch.testing.assert_close(place[1, 0], torch.tensor(math.tan(math.atan(0.5) - 0.3)))
    place, front = reprojected(grid, torch.tensor(1.0), torch.tensor(1.0), none, none, torch.tensor(math.pi))
    assert (front < 0).all() and place.isfinite().all() and place.abs().max() < 10


def found_alone(seen: Tensor, sure: Tensor, guess: Guess) -> Tensor:
    """In place of the correction: what was found takes the place of the first guess."""
    return torch.cat([(seen.flatten(-3) - guess.loc) / APART, torch.zeros_like(guess.loc)], -1)


WALL, APART = 3.0, math.tanh(math.hypot(0.4, 0.5))


def test_a_wall_of_known_distance_is_seen_from_elsewhere() -> None:
    """Latents are images of it, of one pixel a cell, whose brightness grows along the wall: between pixels linearly."""
    prior = PerspectivePrior(SIZE**2, 8, grid_size=SIZE, channels=1, num_warped=2, field_of_view=70.0).double()
    with torch.no_grad():
        prior.canvas.weight.copy_(torch.eye(SIZE**2))
        prior.canvas.bias.zero_()
        prior.inverse_depth[-1].weight.zero_()  # type: ignore[operator]
        prior.inverse_depth[-1].bias.fill_(math.log(math.expm1(1 / WALL)))  # type: ignore[operator]
        prior.confidence[-1].weight.zero_()  # type: ignore[operator]
    prior._correct = found_alone  # type: ignore[method-assign]
    # the wall is at x = WALL; the query stands at 0 and looks at it
    s = torch.zeros(1, 1, 3, dtype=torch.float64)
    where = torch.tensor([[[-0.5, 0.4, 0.0], [-0.5, -0.4, 0.0]]], dtype=torch.float64)
    half = math.tan(math.radians(35))

    def image(pose: Tensor) -> Tensor:
        depth = WALL - pose[0]
        along = pose[1] - prior.grid[..., 0] * half * depth
        return (along + 0.3 * prior.grid[..., 1] * half * depth).flatten()

    z = torch.stack([image(pose) for pose in where[0]]).unsqueeze(0)
    keys = HeadingKeys().double()
    read = SpatialMemory(2).write(keys(where), {"loc": z, "state": where}).read(keys(s))
    found = prior(read, s).heaviest.loc.view(SIZE, SIZE)
    true = image(s[0, 0]).view(SIZE, SIZE)
    # both entries stand behind the query and see all of it but at the side; the inner part is sure to be seen by both
    torch.testing.assert_close(found[1:-1, 1:-1], true[1:-1, 1:-1], atol=1e-6, rtol=0)
    copied = z.mean(1).view(SIZE, SIZE)
    assert (copied - true)[1:-1, 1:-1].abs().max() > 0.1


def test_fields_out_of_range_are_named() -> None:
    for name in ("grid_size", "channels", "num_warped"):
        with pytest.raises(ConfigError, match=f"{name}: expected a number over 0"):
            PerspectivePrior(4, **{name: 0})  # type: ignore[arg-type]
    for bad in (0.0, 180.0, math.nan):
        with pytest.raises(ConfigError, match="field_of_view: expected between 0 and 180 degrees, got"):
            PerspectivePrior(4, field_of_view=bad)
    assert "grid_size=8, num_warped=6" in repr(PerspectivePrior(4))
