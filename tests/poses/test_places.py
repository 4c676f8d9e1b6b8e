"""What counts as the same place: given, as the data says, or read off poses in any unit."""

import json
import math
from pathlib import Path

import pytest
import torch
from command_cases import Fails
from torch import Tensor

from gtm_pyro.cli import main
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.views import located
from gtm_pyro.poses.places import VIEW_TOLERANCE, Cells, leaves, nearness, usual_cell, usual_move
from gtm_pyro.poses.planar import relative_poses
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.tasks.fixed import FixedEpisodes

UNITS = [1.0, 0.25, 0.37, 1e-3, 1e4]


def walk(*sizes: float, steps: int = 60) -> Tensor:
    """Steps of these sizes along the axes, or none: ``(3, steps, 2)``."""
    generator = torch.Generator().manual_seed(0)
    signed = torch.tensor([0.0, *sizes, *(-size for size in sizes)], dtype=torch.float64)
    return signed[torch.randint(len(signed), (3, steps, 2), generator=generator)].cumsum(1)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("sizes", "cell"), [((1.0,), 1.0), ((2.0, 3.0), 1.0), ((1.0, 0.5), 0.5)], ids=str)
def test_the_cell_of_a_grid_is_the_largest_step_of_which_all_are_multiples(
    sizes: tuple[float, ...], cell: float, unit: float
) -> None:
    for offset in (0.0, 0.125 * unit, -77.3 * unit):
        poses = (unit * walk(*sizes) + offset).float()
        assert usual_cell(poses) == pytest.approx(unit * cell, rel=1e-3)
        # cells are about where an episode starts, so that no pose lies between two
        numbers = nearness(poses).cells.number(poses)
        exact = walk(*sizes)
        torch.testing.assert_close(numbers.double(), (exact - exact[:, :1]) / cell, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_away_from_a_grid_a_cell_is_a_usual_move(unit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(4, 80, 2, generator=generator)
    moves = moves / moves.norm(dim=-1, keepdim=True)
    moves[:, ::3] = 0.0  # stands still
    jitter = 1e-3 * torch.randn(4, 80, 2, generator=generator)
    poses = unit * (moves.cumsum(1) + jitter)
    poses[:, 40:] += 100 * unit  # put elsewhere
    assert usual_move(poses) == pytest.approx(unit, rel=0.01)
    assert usual_cell(poses) == pytest.approx(unit, rel=0.01)
    headed = torch.cat([poses, torch.rand(4, 80, 1)], -1)
    assert nearness(headed).view == (pytest.approx(1.5 * unit, rel=0.01), VIEW_TOLERANCE[1])


def test_agents_that_do_not_move() -> None:
    for poses in (torch.zeros(2, 9, 2), torch.full((2, 9, 2), 7.5), torch.zeros(2, 1, 2)):
        assert usual_move(poses) == usual_cell(poses) == (7.5 if poses.any() else 1.0)
        assert len(nearness(poses).cells.number(poses).unique()) == 1
        assert not leaves(poses)


@pytest.mark.parametrize("unit", [1.0, 1e-4])
def test_which_agents_have_a_path_in_any_unit(unit: float) -> None:
    torch.manual_seed(0)
    poses = torch.randn(2, 8, 3)
    poses[..., :2] *= unit
    _, truth = located(torch.randn(2, 8, 3), poses, state_heading=True, pose_heading=True)
    assert truth.equal(relative_poses(poses)[..., :2])


def test_what_is_given_is_kept() -> None:
    near = nearness(walk(1.0), 3.0, (0.5, 0.1))
    assert near.cells == Cells(3.0) and near.view == (0.5, 0.1)
    assert Cells(2.0).number(torch.tensor([[[0.9, 1.1], [-1.1, 2.9]]])).tolist() == [[[0, 1], [-1, 1]]]
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"cell_size: expected a number over 0, got"):
            nearness(walk(1.0), bad)
        with pytest.raises(ConfigError, match=r"view_tolerance\[1\]: expected a number over 0, got"):
            nearness(walk(1.0), None, (1.0, bad))


def test_data_may_say_it() -> None:
    data = ImageNavigation(cuts_per_image=2)
    assert data.cell_size == FixedEpisodes(data).cell_size == 1.0
    assert FixedEpisodes(data).view_tolerance is None


def test_it_is_an_option_of_the_commands(copied: Path, tmp_path: Path, fails: Fails) -> None:
    shares = {}
    for size in ("null", "1.0", "3"):
        out = tmp_path / f"{size}.json"
        assert main(["evaluate", str(copied), "--evaluation.cell_size", size, "--out", str(out)]) == 0
        numbers = json.loads(out.read_text())
        assert numbers["cell_size"] == (3.0 if size == "3" else 1.0)
        shares[size] = numbers["visited_share"]
    assert shares["null"] == shares["1.0"] < shares["3"]
    assert "evaluation.cell_size: expected over 0 or null, got -1" in fails(
        "evaluate", str(copied), "--evaluation.cell_size", "-1"
    )
    assert "evaluation.view_tolerance: expected over 0 or null" in fails(
        "evaluate", str(copied), "--evaluation.view_tolerance", "[0.1, 0]"
    )
    assert "--cell_size: expected a number over 0, got 'big'" in fails("localise", str(copied), "--cell_size", "big")
