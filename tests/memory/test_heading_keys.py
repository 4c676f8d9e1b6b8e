"""What the memory's distances see of a heading."""

import math

import pytest
import torch

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory.keys import HeadingKeys


def states(*batch: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [(), (4,), (2, 5, 7)], ids=str)
def test_keys_are_a_linear_map_of_position_cosine_and_sine(batch: tuple[int, ...]) -> None:
    keys, s = HeadingKeys(0.5).double(), states(*batch)
    found = keys(s)
    assert found.shape == (*batch, 4)
    expected = torch.stack([s[..., 0], s[..., 1], 0.5 * s[..., 2].cos(), 0.5 * s[..., 2].sin()], -1)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        keys.matrix.normal_()
    torch.testing.assert_close(
        keys(s),
        torch.einsum(
            "ij,...j->...i", keys.matrix, expected.div(torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=torch.float64))
        ),
    )


def test_headings_are_periodic() -> None:
    keys, s = HeadingKeys().double(), states(6)
    for turns in (-3, 1, 2):
        around = s + torch.tensor([0.0, 0.0, 2 * math.pi * turns], dtype=torch.float64)
        torch.testing.assert_close(keys(around), keys(s))
    opposite = s + torch.tensor([0.0, 0.0, math.pi], dtype=torch.float64)
    torch.testing.assert_close((keys(opposite) - keys(s)).norm(dim=-1), torch.full((6,), 2.0, dtype=torch.float64))


def test_a_small_turn_is_as_far_as_a_move_of_radius_times_its_angle() -> None:
    keys, s = HeadingKeys(3.0).double(), states(5)
    turned = (keys(s + torch.tensor([0.0, 0.0, 1e-4], dtype=torch.float64)) - keys(s)).norm(dim=-1)
    moved = (keys(s + torch.tensor([3e-4, 0.0, 0.0], dtype=torch.float64)) - keys(s)).norm(dim=-1)
    torch.testing.assert_close(turned, moved, rtol=1e-6, atol=0)


def test_with_a_look_ahead_places_that_are_looked_at_are_compared() -> None:
    keys, (one, other) = HeadingKeys(0.7, 1.5).double(), states(2)
    looked_at = [s[:2] + 1.5 * torch.stack([s[2].cos(), s[2].sin()]) for s in (one, other)]
    square = (looked_at[0] - looked_at[1]).square().sum() + 0.7**2 * (2 - 2 * (one[2] - other[2]).cos())
    torch.testing.assert_close((keys(one) - keys(other)).square().sum(), square)


def test_the_map_and_the_states_have_gradients() -> None:
    keys, s = HeadingKeys(2.0).double(), states(3).requires_grad_()
    assert [name for name, _ in keys.named_parameters()] == ["matrix"]

    def of(matrix: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(keys, {"matrix": matrix}, (s,))
        return found

    assert torch.autograd.gradcheck(of, (keys.matrix, s))


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan])
def test_a_radius_must_be_positive(radius: float) -> None:
    with pytest.raises(ConfigError, match="radius: expected a number over 0, got"):
        HeadingKeys(radius)


@pytest.mark.parametrize("look_ahead", [-1.0, math.nan])
def test_a_look_ahead_is_not_negative(look_ahead: float) -> None:
    with pytest.raises(ConfigError, match="look_ahead: expected a number of at least 0, got"):
        HeadingKeys(look_ahead=look_ahead)


def test_states_without_a_heading_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"keys: expected states .*\(\.\.\., 3\), got \(5, 2\)"):
        HeadingKeys()(torch.zeros(5, 2))
