"""Cells and headings after a rigid fit an episode, by known answers."""

import math

import pytest
import torch
from torch import Tensor

from gtm_pyro.evaluation.rigid import placed, rigid_measures
from gtm_pyro.poses.places import usual_turn

TAU, QUARTER = 40, math.pi / 2
EXACT = {
    "cell_size": 1.0,
    "cell_accuracy": 1.0,
    "cell_accuracy_memorised": 1.0,
    "heading_accuracy": 1.0,
    "heading_accuracy_memorised": 1.0,
    "position_error_predicted": 0.0,
    "position_error_predicted_median": 0.0,
}


def walks(batch: int = 6, steps: int = 60, seed: int = 0) -> Tensor:
    """Poses on a grid: quarters of a turn and moves of one cell, half of each."""
    generator = torch.Generator().manual_seed(seed)
    move = torch.rand(batch, steps, generator=generator) < 0.5
    turn = torch.where(torch.rand(batch, steps, generator=generator) < 0.5, QUARTER, -QUARTER)
    heading = torch.where(move, 0.0, turn).cumsum(1)
    step = torch.stack([heading.cos(), heading.sin()], -1) * move.unsqueeze(-1)
    return torch.cat([step.cumsum(1).round() + 5, heading.unsqueeze(-1)], -1)


def inferred(poses: Tensor, *, unit: float = 0.3, camera: float = 0.0, mirrored: bool = False) -> Tensor:
    """The same paths on maps of their own: turned and shifted by episode."""
    generator = torch.Generator().manual_seed(1)
    angle = 6 * torch.rand(len(poses), 1, generator=generator)
    shift = 9 * torch.rand(len(poses), 1, 2, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    x, y = poses[..., 0], poses[..., 1]
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
    states = torch.cat([unit * turned + shift, (poses[..., 2] + angle + camera).unsqueeze(-1)], -1)
    return states * torch.tensor([1.0, -1.0, -1.0]) if mirrored else states


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("unit", "camera"), [(1.0, 0.0), (0.3, 2.0), (40.0, -1.0)])
def test_a_path_is_right_wherever_its_map_lies(unit: float, camera: float, mirrored: bool) -> None:
    poses = walks()
    states = inferred(poses, unit=unit, camera=camera, mirrored=mirrored)
    assert rigid_measures(states, poses, TAU, None) == pytest.approx(EXACT, abs=1e-4)
    fit = placed(states, poses, TAU)
    torch.testing.assert_close(fit.positions, poses[..., :2].double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(fit.headings.cos(), poses[..., 2].double().cos(), atol=1e-3, rtol=0)


def test_a_map_is_mirrored_in_all_episodes_or_in_none() -> None:
    poses = walks()
    states = inferred(poses)
    states[:1] *= torch.tensor([1.0, -1.0, -1.0])
    measures = rigid_measures(states, poses, TAU, None)
    assert measures["heading_accuracy"] < 1 - 0.3 / 6 and measures["cell_accuracy"] < 1
    # nor may headings be mirrored alone
    only = inferred(poses) * torch.tensor([1.0, 1.0, -1.0])
    assert rigid_measures(only, poses, TAU, None)["heading_accuracy"] < 0.8


def test_what_is_predicted_does_not_move_the_fit() -> None:
    """From a predicted step on, all lie a cell aside; then half of them look back."""
    poses = walks()
    states = inferred(poses, unit=1.0)
    states[:, 50:, 0] += 1
    measures = rigid_measures(states, poses, TAU, None)
    assert measures["cell_accuracy"] == pytest.approx(0.5) and measures["cell_accuracy_memorised"] == 1
    length = poses[:, TAU - 1 :, :2].diff(dim=1).norm(dim=-1).sum(1)
    assert measures["position_error_predicted"] == pytest.approx(float(1 / length.mean()), rel=1e-4)
    assert measures["position_error_predicted_median"] == pytest.approx(float((1 / length).median()), rel=1e-4)
    # cells of another size
    assert rigid_measures(states, poses, TAU, 2.1)["cell_accuracy"] == 1
    states[:3, 50:, 2] += math.pi
    assert rigid_measures(states, poses, TAU, None)["heading_accuracy"] == pytest.approx(0.75)


def test_steps_that_are_far_off_do_not_move_the_others() -> None:
    """A blocked move was taken for a move at step 12 of 40, and the start is four cells away from then on."""
    poses = walks()
    states = inferred(poses, unit=1.0)
    states[:, :12, :2] += torch.tensor([4.0, -1.0])
    measures = rigid_measures(states, poses, TAU, None)
    assert measures["cell_accuracy_memorised"] == pytest.approx(28 / 40)
    assert measures["cell_accuracy"] == measures["heading_accuracy_memorised"] == 1


def test_a_unit_is_that_of_a_move_and_not_of_the_walk() -> None:
    """A path whose moves into walls are taken for moves is not shrunk."""
    poses = walks()
    states = inferred(poses, unit=1.0)
    states[:, 20:, 0] += 7
    fit = placed(states, poses, TAU)
    moves = fit.positions[:, 41:].diff(dim=1).norm(dim=-1)
    assert float(moves.max()) == pytest.approx(1, abs=1e-4)


def test_an_agent_that_first_turns_only_is_placed_by_its_headings() -> None:
    poses = walks()
    poses[:2, :TAU, :2] = poses[:2, TAU : TAU + 1, :2]
    assert rigid_measures(inferred(poses, camera=0.7), poses, TAU, None) == pytest.approx(EXACT, abs=1e-4)


def test_an_agent_that_stays_has_no_share_of_its_path() -> None:
    poses = walks()
    poses[0, TAU - 1 :, :2] = poses[0, TAU - 1, :2]
    assert rigid_measures(inferred(poses), poses, TAU, None) == pytest.approx(EXACT, abs=1e-4)
    poses[:, TAU - 1 :, :2] = poses[:, TAU - 1 : TAU, :2]
    measures = rigid_measures(inferred(poses), poses, TAU, None)
    assert math.isnan(measures["position_error_predicted"]) and measures["cell_accuracy"] == 1


def test_the_usual_turn() -> None:
    assert usual_turn(walks()[..., 2]) == pytest.approx(QUARTER)
    wrapped = torch.tensor([[0.0, 3.1, -3.1, -3.1, 3.1]])  # half a turn once, small ones across the seam
    assert usual_turn(wrapped[:, 1:]) == pytest.approx(2 * math.pi - 6.2, abs=1e-6)
    assert usual_turn(torch.ones(2, 5)) == pytest.approx(2 * math.pi)
