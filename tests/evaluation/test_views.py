"""Measures for agents with a heading: against loops, by known answers, and of a model that knows its world."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from view_cases import NAMES, TAU, TOTAL, agent, model_of, walk

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.evaluation.views import VIEW_TOLERANCE, compare_views, drift, located, pose_measures
from gtm_pyro.poses.planar import relative_poses


def apart(one: Tensor, other: Tensor) -> tuple[float, float]:
    """In position, and in radians, the short way round."""
    turn = math.remainder(float(one[2] - other[2]), 2 * math.pi)
    return float((one[:2] - other[:2]).norm()), abs(turn)


@pytest.mark.parametrize("tolerance", [VIEW_TOLERANCE, (0.5, 0.5), (3.0, 0.1)], ids=str)
def test_views_are_compared_as_in_a_loop(tolerance: tuple[float, float]) -> None:
    torch.manual_seed(0)
    poses = torch.rand(3, 60, 3) * torch.tensor([1.5, 1.5, 30.0]) - torch.tensor([0.0, 0.0, 15.0])
    entries = torch.randint(-1, 40, (3, 20))
    found = compare_views(poses, 40, entries, tolerance)
    for b in range(3):
        for h in range(20):
            every = [apart(poses[b, 40 + h], poses[b, i]) for i in range(40)]
            same = [far <= tolerance[0] and aside <= tolerance[1] for far, aside in every]
            square = [(far / tolerance[0]) ** 2 + (aside / tolerance[1]) ** 2 for far, aside in every]
            entry = int(entries[b, h])
            assert bool(found.visited[b, h]) == any(same)
            assert bool(found.retrieved[b, h]) == (entry >= 0 and same[entry])
            assert int(found.nearest[b, h]) == int(np.argmin(square))
    assert 0 < found.visited.float().mean() < 1 and (tolerance != (0.5, 0.5) or found.retrieved.any())


def test_headings_wrap_around() -> None:
    pi = math.pi
    poses = torch.tensor([[[0.0, 0, 0.01], [0, 0, pi], [0, 0, 2 * pi - 0.01], [0, 0, -pi + 0.05], [0, 0.3, 0]]])
    found = compare_views(poses, 2, torch.tensor([[0, 1, 0]]), VIEW_TOLERANCE)
    assert found.visited.tolist() == [[True, True, False]]
    assert found.retrieved.tolist() == [[True, True, False]]
    assert found.nearest.tolist() == [[0, 1, 0]]
    none = compare_views(poses, 2, torch.tensor([[-1, 0, -1]]), VIEW_TOLERANCE)
    assert none.retrieved.tolist() == [[False, False, False]]


def test_a_step_of_a_turn_of_41_is_nearest_to_its_own_view() -> None:
    """Half a step away is the same view; one step is another."""
    step = 2 * math.pi / 41
    assert 0.5 * step < VIEW_TOLERANCE[1] < step


def test_relative_poses_by_hand() -> None:
    """An agent that looks north and goes north has gone straight on."""
    north = math.pi / 2
    poses = torch.tensor([[[2.0, 3.0, north], [2.0, 5.0, north], [1.0, 5.0, 3 * north]]])
    expected = torch.tensor([[[0.0, 0, 0], [2.0, 0, 0], [2.0, 1.0, 2 * north]]])
    torch.testing.assert_close(relative_poses(poses), expected, atol=1e-6, rtol=0)


def test_relative_poses_are_where_a_model_starts() -> None:
    episodes = walk()
    assert episodes.poses is not None
    with torch.no_grad():
        path = agent().rollout(torch.zeros(5, 3), episodes.actions, torch.zeros(5, TOTAL, 3))
    torch.testing.assert_close(relative_poses(episodes.poses), path, atol=1e-4, rtol=1e-4)


def test_perfect_and_mirrored_paths_have_no_error() -> None:
    relative = relative_poses(torch.randn(3, 40, 3).cumsum(1))
    mirrored = relative * torch.tensor([1.0, -1.0, -1.0])
    larger = relative * torch.tensor([7.0, 7.0, 1.0])
    for states in (relative, mirrored, larger):
        measures = pose_measures(states, relative)
        assert measures["heading_correlation"] == pytest.approx(1)
        assert measures["heading_rmse"] < 1e-6 and measures["position_error_last"] < 1e-6


def test_pose_measures_by_hand() -> None:
    """A heading that turns at 1.1 of the true rate correlates fully; the last position is off by one of nine."""
    line = torch.arange(10.0)
    relative = torch.stack([line, torch.zeros(10), 0.2 * line], -1).unsqueeze(0)
    states = relative * torch.tensor([1.0, 1.0, 1.1])
    measures = pose_measures(states, relative)
    assert measures["heading_correlation"] == pytest.approx(1)
    assert measures["heading_rmse"] == pytest.approx(0.02 * math.sqrt(sum(i * i for i in range(10)) / 10))
    assert measures["position_error_last"] < 1e-6
    noisy = relative.clone()
    noisy[..., 2] += torch.tensor([1.0, -1.0] * 5)
    expected = abs(np.corrcoef(noisy[0, :, 2], relative[0, :, 2])[0, 1])
    assert pose_measures(noisy, relative)["heading_correlation"] == pytest.approx(expected)
    both = torch.cat([relative, relative])
    off = both.clone()
    off[1, -1, 1] += 1e-3  # too little to move the fit
    assert pose_measures(off, both)["position_error_last"] == pytest.approx(0.5 * 1e-3 / 9, rel=0.2)


def test_agents_that_stay_where_they_are() -> None:
    turning = torch.zeros(2, 9, 3)
    turning[..., 2] = torch.arange(9.0)
    measures = pose_measures(turning, turning)
    assert measures["heading_correlation"] == pytest.approx(1) and "position_error_last" not in measures
    assert math.isnan(pose_measures(torch.zeros(2, 9, 3), turning)["heading_correlation"])


def test_drift() -> None:
    error = torch.cat([torch.full((2, 30), 9.0), torch.ones(2, 50), torch.full((2, 50), 3.0)], 1)
    assert drift(error) == 3 and drift(error[:, 30:]) == 3
    assert math.isnan(drift(error[:, 31:]))


@torch.no_grad()
def test_a_model_that_knows_its_world_is_perfect_and_copies_are_compared_by_true_pose() -> None:
    episodes, tolerance = walk(), (0.02, 0.0767)  # no two of these places are so near
    result = evaluate(*model_of(agent()), episodes, view_tolerance=tolerance, iwae_particles=2)
    metrics, poses = result.metrics, episodes.poses
    assert poses is not None and metrics.keys() == {measure.name for measure in MEASURES} - {
        "retrieval_accuracy_last_32"  # no late view was memorised
    }  # fmt: skip
    assert metrics["heading_correlation"] > 1 - 1e-6 and metrics["heading_rmse"] < 1e-3
    assert metrics["position_error_last"] < 1e-3 and metrics["localisation_rmse"] < 1e-3
    assert metrics["cell_accuracy"] == metrics["heading_accuracy"] == metrics["retrieval_accuracy"] == 1
    assert metrics["mse_visited"] < 1e-6 < 0.01 < metrics["mse_unvisited"]
    kinds: dict[str, list[float]] = {
        "copy_mse": [], "copy_mse_unvisited": [], "mean_frame_mse_unvisited": [], "visited_share": []
    }  # fmt: skip
    for b in range(5):
        mean = episodes.frames[b, :TAU].mean(0)
        for t in range(TAU, TOTAL):
            every = [apart(poses[b, t], poses[b, i]) for i in range(TAU)]
            square = [(far / tolerance[0]) ** 2 + (aside / tolerance[1]) ** 2 for far, aside in every]
            visited = any(far <= tolerance[0] and aside <= tolerance[1] for far, aside in every)
            true = episodes.frames[b, t]
            copy = float((episodes.frames[b, int(np.argmin(square))] - true).square().mean())
            kinds["visited_share"].append(visited)
            kinds["copy_mse"].append(copy)
            if not visited:
                kinds["copy_mse_unvisited"].append(copy)
                kinds["mean_frame_mse_unvisited"].append(float((mean - true).square().mean()))
    for name, values in kinds.items():
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-3), name
    best = min(metrics["copy_mse_unvisited"], metrics["mean_frame_mse_unvisited"])
    assert metrics["best_copy_mse_unvisited"] == best and 0.05 < metrics["visited_share"] < 0.95
    error = (result.predicted_frames - episodes.predicted_frames).square().mean((0, 2, 3, 4))
    assert metrics["mse_drift"] == pytest.approx(float(error[-50:].mean() / error[-100:-50].mean()), rel=1e-4)
    torch.testing.assert_close(result.poses, relative_poses(poses))
    assert result.aligned_states is not None and result.aligned_states.shape == (5, TOTAL, 2)
    torch.testing.assert_close(result.aligned_states, relative_poses(poses)[..., :2], atol=1e-3, rtol=0)
    for name in ("copy_mse", "copy_mse_unvisited"):
        assert result.by_horizon[name].shape == (TOTAL - TAU,)


def test_a_wrong_agent_is_told_from_a_right_one() -> None:
    """At 0.9 of the true rate of one action, its views are those of other places."""
    transition = agent(scale=0.5)
    with torch.no_grad():
        transition.displacement[2, 1] *= 0.9
    metrics = evaluate(*model_of(transition), walk(), iwae_particles=0).metrics
    assert metrics["heading_rmse"] > 0.3 and metrics["position_error_last"] > 0.02
    assert metrics["cell_accuracy"] < 0.9 and metrics["heading_accuracy"] < 0.9
    assert metrics["retrieval_accuracy"] < 0.8 and metrics["mse_visited"] > 1e-3


def test_a_wider_tolerance_calls_more_views_memorised() -> None:
    shares = [
        evaluate(*model_of(agent()), walk(), view_tolerance=tolerance, iwae_particles=0).metrics["visited_share"]
        for tolerance in ((0.01, 0.01), VIEW_TOLERANCE, (1.0, 0.5), (100.0, 4.0))
    ]
    assert shares == sorted(shares) and shares[0] < shares[2] < shares[3] == 1


def test_true_displacements_by_hand_and_from_any_start() -> None:
    north = math.pi / 2
    poses = torch.tensor([[[0.0, 0, north], [0.0, 2.0, north], [-1.0, 2.0, 2 * north], [-1.0, 2.0, 5 * north]]])
    episodes = Episodes(torch.rand(1, 4, 3, 2, 2), torch.zeros(1, 4, 4), 2, poses, pose_names=NAMES)
    # three quarters of a turn to the left are one to the right
    expected = torch.tensor([[[2.0, 0, 0], [0, 1.0, north], [0, 0, -north]]])
    torch.testing.assert_close(episodes.displacements, expected, atol=1e-6, rtol=0)
    moved = walk()
    with torch.no_grad():
        moves = agent().controls(moved.actions)[:, 1:]
    torch.testing.assert_close(moved.displacements, moves, atol=1e-5, rtol=0)


def test_displacements_need_a_heading() -> None:
    episodes = walk()
    assert episodes.poses is not None
    cases = ((None, None, "none"), (episodes.poses[..., :2], None, r"\(5, 144, 2\) named None"))
    for poses, names, got in (*cases, (episodes.poses, ("x", "height", "y"), r"\(5, 144, 3\) named .*height")):
        without = Episodes(episodes.frames, episodes.actions, TAU, poses, pose_names=names)
        with pytest.raises(EpisodesError, match=rf"poses: expected \(batch, time, 3\).*got {got}"):
            _ = without.displacements


def test_what_tells_where_an_agent_was() -> None:
    torch.manual_seed(0)
    poses, states = torch.randn(2, 5, 3), torch.randn(7, 2, 5, 3)
    both = {"state_heading": True, "pose_heading": True}
    moved, truth = located(states, poses, **both)
    assert moved.equal(states[..., :2]) and truth.equal(relative_poses(poses)[..., :2])
    poses[..., :2] = 1.5  # turns on the spot
    turned, truth = located(states, poses, **both)
    assert turned.equal(states[..., 2:]) and torch.allclose(truth[..., 0], poses[..., 2] - poses[:, :1, 2])
    flat = torch.randn(2, 5, 2)
    positions = located(states[..., :2], flat, state_heading=False, pose_heading=False)
    assert all(a.equal(b) for a, b in zip(positions, (states[..., :2], flat), strict=True))
    # what has three numbers may have no heading
    assert located(states, poses, state_heading=False, pose_heading=False)[1].equal(poses)
    assert located(states, poses, state_heading=False, pose_heading=True)[1].equal(relative_poses(poses)[..., :2])
