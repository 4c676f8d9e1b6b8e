"""What the numbers of poses and actions mean: said by the data, and checked."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folder_cases import loaded
from torch import Tensor
from view_cases import NAMES, agent, model_of, walk

from gtm_pyro.episodes import Episodes, concatenate, save_shards
from gtm_pyro.errors import EpisodesError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.evaluation.headings import map_poses
from gtm_pyro.evaluation.localisation import localise
from gtm_pyro.evaluation.views import pose_measures
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.initialisation.regression import regress
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM
from gtm_pyro.poses.conventions import check_actions, check_readings
from gtm_pyro.poses.planar import relative_poses, unwrapped, wrapped
from gtm_pyro.tasks import ImageNavigation, LabyrinthWalk, SavedEpisodes
from gtm_pyro.transitions import RotatingTranslation, Translation


def poses_of(episodes: Episodes) -> Tensor:
    assert episodes.poses is not None
    return episodes.poses


def with_headings(episodes: Episodes, change: Any) -> Episodes:
    poses = poses_of(episodes).clone()
    poses[..., 2] = change(poses[..., 2])
    return replace(episodes, poses=poses, validate=True)


@pytest.fixture(scope="module")
def labyrinth() -> Episodes:
    data = LabyrinthWalk(num_episodes=32, num_test_episodes=1, num_steps=50)
    return data.sample(32, num_observed=25, num_predicted=25, seed=0)


def shape(pose_dim: int = 2, action_dim: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    tensors = {"actions": torch.randn(2, 6, action_dim, generator=generator), "poses": torch.rand(2, 6, pose_dim)}
    return {"frames": torch.rand(2, 6, 3, 4, 4, generator=generator), "num_observed": 4} | tensors


# headings


def test_the_short_way_round() -> None:
    pi = math.pi
    angles = torch.tensor([0.0, 1.0, pi, -pi, 3 * pi / 2, -6.2, 6.2, 7.0, 100.0], dtype=torch.double)
    short = wrapped(angles)
    assert (short > -pi).all() and (short <= pi).all()
    torch.testing.assert_close(short.cos(), angles.cos())
    torch.testing.assert_close(short.sin(), angles.sin())
    assert float(short[5]) == pytest.approx(2 * pi - 6.2)
    onward = torch.linspace(-9.0, 25.0, 40).expand(2, 40)
    torch.testing.assert_close(unwrapped(wrapped(onward)) + (onward - wrapped(onward))[:, :1], onward)
    assert unwrapped(onward).equal(onward), "to the bit where there is nothing to do"


def test_yaw_from_3_1_to_minus_3_1_is_a_small_turn() -> None:
    poses = torch.tensor([[[0.0, 0.0, 3.1], [0.0, 0.0, -3.1], [0.0, 0.0, 3.1]]])
    episodes = Episodes(torch.rand(1, 3, 3, 2, 2), torch.zeros(1, 3, 4), 2, poses, pose_names=NAMES)
    turn = 2 * math.pi - 6.2
    torch.testing.assert_close(episodes.displacements[0, :, 2], torch.tensor([turn, -turn]))
    torch.testing.assert_close(relative_poses(poses)[0, :, 2], torch.tensor([0.0, turn, 0.0]))


@pytest.mark.parametrize("change", [wrapped, lambda h: h.remainder(2 * math.pi)], ids=["from -pi", "from 0"])
def test_wrapped_headings_are_as_good(change: Any) -> None:
    onward = walk()
    jumping = with_headings(onward, change)
    assert (poses_of(jumping)[..., 2].diff(dim=1).abs() > 5).any(), "they jump"
    torch.testing.assert_close(jumping.displacements, onward.displacements, atol=1e-5, rtol=0)
    torch.testing.assert_close(relative_poses(poses_of(jumping)), relative_poses(poses_of(onward)), atol=1e-5, rtol=0)
    model = model_of(agent())
    results = [evaluate(*model, episodes, iwae_particles=0) for episodes in (onward, jumping)]
    for name, value in results[0].metrics.items():
        # of views that are equally near, rounding chooses one to copy
        assert results[1].metrics[name] == pytest.approx(value, abs=1e-3, nan_ok=True), name
    drawn = [map_poses(result) for result in results]
    assert drawn[0] is not None and drawn[1] is not None
    for errors in (drawn[0].heading_errors, drawn[1].heading_errors):
        assert errors is not None and np.abs(errors).max() < 0.1


def test_measures_do_not_depend_on_the_zero() -> None:
    model = model_of(agent())
    east, north = walk(), with_headings(walk(), lambda h: h - math.pi / 2)
    torch.testing.assert_close(
        north.displacements[..., :2], east.displacements[..., [1, 0]] * torch.tensor([-1, 1]), atol=1e-5, rtol=0
    )
    metrics = [evaluate(*model, episodes, iwae_particles=0).metrics for episodes in (east, north)]
    for name, value in metrics[0].items():
        # of views that are equally near, rounding chooses one to copy
        tolerance = 5e-3 if "copy" in name else 1e-3
        assert metrics[1][name] == pytest.approx(value, abs=tolerance, nan_ok=True), name


def test_heading_rmse_is_the_same_however_headings_are_counted() -> None:
    torch.manual_seed(0)
    relative = relative_poses(torch.cat([torch.randn(3, 80, 2), 0.4 * torch.randn(3, 80, 1)], -1).cumsum(1))
    states = relative * torch.tensor([1.0, -1.0, -1.0])
    states[..., 2] += 0.05 * torch.randn(3, 80).cumsum(1)
    expected = pose_measures(states, relative)
    assert 0.05 < expected["heading_rmse"] < 1
    short = [torch.cat([x[..., :2], wrapped(x[..., 2:])], -1) for x in (states, relative)]
    turned = states + torch.tensor([0.0, 0.0, 4 * math.pi])
    for pair in ((short[0], relative), (states, short[1]), (short[0], short[1]), (turned, relative)):
        assert pose_measures(*pair) == pytest.approx(expected, abs=1e-4)


def test_regression_finds_the_same_agent_from_wrapped_headings(labyrinth: Episodes) -> None:
    """Measured before: turns of -6.2 made localisation 1.58 of 0.14 cells."""
    found = []
    jumping = with_headings(labyrinth, wrapped)
    assert (poses_of(jumping)[..., 2].diff(dim=1).abs() > 6).any()
    for episodes in (labyrinth, jumping):
        transition = RotatingTranslation(8)
        regress(transition, episodes.actions, episodes.displacements, iterations=60)
        found.append(transition.displacement.detach())
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)


def test_degrees_are_refused() -> None:
    onward = walk()
    for change in (torch.rad2deg, lambda h: torch.rad2deg(h).remainder(360), lambda h: torch.rad2deg(wrapped(h))):
        with pytest.raises(EpisodesError, match=r"poses\[\d, \d+, 2\]: expected a heading in radians.*times pi / 180"):
            with_headings(onward, change)
    slow = torch.linspace(10, 60, TOTAL := onward.num_steps).round().expand(5, TOTAL)
    with pytest.raises(EpisodesError, match="expected headings in radians, got whole numbers from 10 to 60"):
        with_headings(onward, lambda h: slow)
    with_headings(onward, lambda h: 0.1 * slow)


# which columns


def test_three_columns_of_poses_are_asked_what_they_are() -> None:
    with pytest.raises(EpisodesError, match=r"pose_names: expected names of the 3 columns .* \(x, y, heading\)"):
        Episodes(**shape(3))
    assert Episodes(**shape(3), pose_names=NAMES).has_heading
    assert not Episodes(**shape(3), pose_names=("x", "height", "y")).has_heading
    listed: Any = ["x", "z"]
    assert Episodes(**shape(), pose_names=listed).pose_names == ("x", "z")
    wrong: list[tuple[int, Any, str]] = [
        (3, ("x", "y"), r"expected 3 names, one for each column of poses, got \('x', 'y'\)"),
        (3, "xyz", "expected one name for each column of poses, got 'xyz'"),
        (3, ("x", "y", "yaw"), "two coordinates and then 'heading', an angle in radians"),
        (3, ("x", "heading", "y"), "two coordinates and then 'heading'"),
        (2, ("x", "heading"), "two coordinates and then 'heading'"),
        (3, ("x", "y", "heading (deg)"), "two coordinates and then 'heading'"),
    ]
    for pose_dim, names, message in wrong:
        with pytest.raises(EpisodesError, match=f"pose_names: .*{message}"):
            Episodes(**shape(pose_dim), pose_names=names)
    with pytest.raises(EpisodesError, match="pose_names: expected none without poses"):
        Episodes(**(shape() | {"poses": None}), pose_names=("x", "y"))


def test_a_height_is_no_heading_and_y_is_compared() -> None:
    """Before: with (x, height, y) only x and the height were compared, and the agent seemed to be found."""
    moves = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    actions = torch.eye(4)[torch.randint(4, (4, 60), generator=generator)]
    actions[:, 0] = 0
    places = (actions @ moves.mT).cumsum(1)
    transition = Translation(4, scale=1e-4)
    transition.displacement.data = moves.clone()
    transition.displacement.data[1] = 0  # an agent that does not know y
    model = GTMSM(transition, SpatialMemory(2))
    poses = torch.stack([places[..., 0], torch.full((4, 60), 1.5), places[..., 1]], -1)
    frames = torch.rand(4, 60, 3, 8, 8, generator=generator)
    episodes = Episodes(frames, actions, 40, poses, pose_names=("x", "height", "y"))
    metrics = evaluate(model, DeadReckoning(model), episodes, iwae_particles=0).metrics
    plain = Episodes(frames, actions, 40, places)
    assert metrics["localisation_rmse"] > 1
    assert metrics["localisation_rmse"] == pytest.approx(
        evaluate(model, DeadReckoning(model), plain, iwae_particles=0).metrics["localisation_rmse"], abs=1e-3
    )
    assert not metrics.keys() & {"heading_rmse", "copy_mse"}


def test_names_stay_with_the_poses_and_with_the_file(tmp_path: Path) -> None:
    episodes = Episodes(**shape(3), pose_names=NAMES, continuous_actions=True)
    for part in (episodes[0], episodes[:1], episodes.to(torch.float64), episodes.steps(0, 6, 2), episodes.steps(1, 4)):
        assert part.pose_names == NAMES and part.continuous_actions is True
    assert concatenate([episodes, episodes]).pose_names == NAMES
    with pytest.raises(EpisodesError, match=r"concatenate: pose_names: expected \('x', 'y', 'heading'\), got .*'z'"):
        concatenate([episodes, replace(episodes, pose_names=("x", "y", "z"), validate=True)])
    save_shards(episodes, tmp_path / "new")
    back = loaded(tmp_path / "new")
    assert back.pose_names == NAMES and back.continuous_actions is True
    assert SavedEpisodes(str(tmp_path / "new")).sample(1, num_observed=2, num_predicted=1, seed=0).has_heading
    with pytest.raises(EpisodesError, match=r"npz: pose_names: expected \['x', 'y', 'z'\], the file says .*'heading'"):
        SavedEpisodes(str(tmp_path / "new"), pose_names=("x", "y", "z"))


def test_shards_without_names_still_load(tmp_path: Path) -> None:
    arrays = {name: np.asarray(value) for name, value in shape(3).items()}
    np.savez(tmp_path / "old.npz", **arrays)
    for load in (loaded, SavedEpisodes):
        with pytest.raises(EpisodesError, match=r"old\.npz: pose_names: expected names of the 3 columns"):
            load(str(tmp_path))
    assert loaded(tmp_path, pose_names=NAMES).has_heading
    data = SavedEpisodes(str(tmp_path), pose_names=["x", "y", "heading"])
    assert data.sample(1, num_observed=2, num_predicted=1, seed=0).has_heading
    np.savez(tmp_path / "old.npz", **(arrays | {"poses": arrays["poses"][..., :2]}))
    assert loaded(tmp_path).pose_names is None
    for name, value in (("pose_names", np.arange(2)), ("continuous_actions", np.arange(2))):
        np.savez(tmp_path / "old.npz", **(arrays | {name: value}))
        with pytest.raises(EpisodesError, match=rf"npz: {name}: expected (a list of names|true or false), got int"):
            loaded(tmp_path)


def test_localisation_on_a_map_takes_positions() -> None:
    model: Any = model_of(agent())[0]
    guide: Any = type("Guide", (), {"filter": None, "memory": None, "anywhere": False})()
    with pytest.raises(EpisodesError, match=r"first: expected poses that are positions alone, got .*'heading'"):
        localise(model, guide, walk(), walk(), mapper=guide)


# actions and frames


def test_indices_are_no_actions() -> None:
    indices = torch.randint(4, (2, 6, 1)).float()
    indices[0, 0] = 3
    with pytest.raises(EpisodesError, match=r"actions: .* whole numbers up to 3, which look like indices.*one_hot"):
        Episodes(**(shape() | {"actions": indices}))
    with pytest.raises(EpisodesError, match=r"actions: expected \(batch, time, action_dim\).*actions.long"):
        Episodes(**(shape() | {"actions": indices[..., 0]}))
    Episodes(**(shape() | {"actions": indices}), continuous_actions=True)
    for speeds in (indices + 0.5, indices - 2, torch.zeros(2, 6, 1)):
        Episodes(**(shape() | {"actions": speeds}))


def test_one_hot_actions_are_checked_where_they_are_promised() -> None:
    actions = torch.eye(3)[torch.randint(3, (2, 6))]
    actions[:, 0] = 0  # says nothing
    check_actions(actions, False)
    for row in ((0.0, 0, 0), (1.0, 1, 0), (0.5, 0.5, 0), (2.0, 0, -1)):
        bad = actions.clone()
        bad[1, 4] = torch.tensor(row)
        check_actions(bad, None)
        with pytest.raises(EpisodesError, match=r"actions\[1, 4\]: expected a one-hot vector, got \("):
            check_actions(bad, False)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_with_the_channels_last(channels: int, tmp_path: Path) -> None:
    frames = torch.rand(2, 6, 8, 8, channels)
    message = r"frames: .*got \(2, 6, 8, 8, \d\), which seems to have the channels last; permute .* \(0, 1, 4, 2, 3\)"
    for validate in (True, False):
        with pytest.raises(EpisodesError, match=message):
            Episodes(frames, torch.rand(2, 6, 2), 4, validate=validate)
    np.savez(tmp_path / "a.npz", frames=frames, actions=np.random.rand(2, 6, 2))
    with pytest.raises(EpisodesError, match=r"a\.npz: frames: .*channels last"):
        SavedEpisodes(str(tmp_path))
    Episodes(frames.permute(0, 1, 4, 2, 3), torch.rand(2, 6, 2), 4)


# other readings


def read(episodes: Episodes) -> str | None:
    return check_readings(poses_of(episodes), episodes.actions, episodes.has_heading)


def test_walks_as_they_should_be_raise_no_doubt(labyrinth: Episodes) -> None:
    asked: Any = {"num_observed": 100, "num_predicted": 0, "seed": 0}
    sources = [ImageNavigation(), ImageNavigation(slip=0.1), ImageNavigation(motion="continuous", action_noise=0.1)]
    for data in sources:
        assert read(data.sample(16, **asked)) is None
    assert read(walk()) is None and read(labyrinth) is None


def test_walks_that_are_meant_in_another_way_are_told(labyrinth: Episodes) -> None:
    doubt = "headings seem to grow from y to x, expected from x to y; negate them"
    assert read(with_headings(labyrinth, lambda h: -h)) == doubt
    with pytest.raises(EpisodesError, match="poses: headings seem to be degrees, expected radians"):
        # as a camera that turns slowly would have them
        check_readings(poses_of(labyrinth) * torch.tensor([1, 1, 180 / math.pi]), labyrinth.actions, True)
    grid = ImageNavigation().sample(16, num_observed=100, num_predicted=0, seed=0)
    taken_at = replace(grid, actions=grid.actions.roll(-1, 1), validate=True)
    assert "actions[:, t] seem to be those taken at step t" in (read(taken_at) or "")
