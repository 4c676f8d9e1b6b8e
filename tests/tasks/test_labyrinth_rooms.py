"""A classifier tells the rooms of a labyrinth apart, and evaluations say how often frames are of the right one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_cases import Fails

from gtm_pyro.cli import main
from gtm_pyro.cli.inputs import stored
from gtm_pyro.evaluation.evaluation import Evaluation, evaluate
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import experiments, read_experiment
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.report.page import summary
from gtm_pyro.storage import checkpoints
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import parse_yaml, read_run
from gtm_pyro.tasks import LabyrinthRooms, LabyrinthWalk
from gtm_pyro.tasks.base import general_task, task_of
from gtm_pyro.tasks.labyrinth.clearance import Clearance, room_at
from gtm_pyro.tasks.labyrinth.raycaster import RayCaster
from gtm_pyro.tasks.labyrinth.room_figure import rooms_figure
from gtm_pyro.tasks.labyrinth.room_measures import (
    classifier_of,
    fit_classifier,
    free_poses,
    nearest_room,
    room_measures,
)
from gtm_pyro.tasks.labyrinth.task import RoomsTask
from gtm_pyro.tasks.labyrinth.world import AGENT_RADIUS, World
from gtm_pyro.transitions import MomentumTranslation

TAU, TOTAL, TOLERANCE = 60, 90, (0.25, 0.0767)
NAMES = ("", "_true_frames", "_reconstructed", "_copy", "_most_seen")


@pytest.fixture(scope="module")
def data() -> LabyrinthRooms:
    return LabyrinthRooms(num_episodes=2, num_test_episodes=4, num_steps=TOTAL)


@pytest.fixture(scope="module")
def evaluation(data: LabyrinthRooms) -> Evaluation:
    torch.manual_seed(0)
    size = {"latent_dim": 4, "frame_shape": (3, 32, 32)}
    model = GTMSM(MomentumTranslation(8), encoder=FrameEncoder(**size), decoder=FrameDecoder(**size))
    episodes = data.sample(2, num_observed=TAU, num_predicted=TOTAL - TAU, seed=0, split="test")
    return evaluate(model, DeadReckoning(model), episodes, iwae_particles=0)


@pytest.fixture(scope="module")
def worlds(data: LabyrinthRooms) -> list[World]:
    return data.worlds(2, seed=0, split="test")


def four_rooms(colours: list[tuple[int, int, int]]) -> World:
    """Closed rooms of 2 x 2 cells side by side, each of one colour."""
    number = len(colours)
    floors = np.array([[3.0 * i, 0, 3 * i + 2, 2] for i in range(number)])
    walls = []
    for left, bottom, right, top in floors:
        corners = [(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)]
        walls += [[*one, *other] for one, other in zip(corners, corners[1:], strict=False)]
    textures = np.tile(np.array(colours, np.uint8)[:, None, None], (1, 64, 64, 1))
    each = np.arange(number)
    return World(
        floors, number, np.zeros((0, 4)), np.array(walls), each.repeat(4), each, each, textures,
        np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 1, 1, 4), np.uint8),
    )  # fmt: skip


def seen(world: World, seed: int, number: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    poses, rooms = free_poses(world, np.random.default_rng(seed), number)
    return RayCaster([world]).render(torch.from_numpy(poses)[None])[0].float() / 255, torch.from_numpy(rooms)


RED, GREEN, BLUE, GREY = (180, 60, 60), (60, 160, 60), (60, 80, 190), (120, 120, 120)


def test_rooms_of_other_colours_are_told_apart() -> None:
    world = four_rooms([RED, GREEN, BLUE, GREY])
    classify = classifier_of(world, np.random.SeedSequence(0))
    frames, rooms = seen(world, 1)
    assert float((classify(frames) == rooms).double().mean()) > 0.99 and classify.accuracy > 0.99
    blurred = torch.nn.functional.interpolate(
        torch.nn.functional.adaptive_avg_pool2d(frames, 8), size=32, mode="bilinear"
    )
    assert float((classify(blurred) == rooms).double().mean()) > 0.99


def test_rooms_that_look_alike_are_not() -> None:
    # of 180 held-out frames a third is right by chance; 5 standard errors, a false alarm in 1.7 million
    classify = classifier_of(four_rooms([RED] * 3), np.random.SeedSequence(0))
    assert abs(classify.accuracy - 1 / 3) < 5 * (2 / 9 / 180) ** 0.5


def test_frames_of_a_labyrinth_are_told_apart_by_its_own_classifier_only(data: LabyrinthRooms) -> None:
    many = data.worlds(4, seed=0, split="test")
    classifiers = [classifier_of(world, np.random.SeedSequence(i)) for i, world in enumerate(many)]
    right = np.array([[(c(frames) == rooms).double().mean() for c in classifiers]
                      for frames, rooms in (seen(world, 5) for world in many)])  # fmt: skip
    assert right.diagonal().min() > 0.9 and min(c.accuracy for c in classifiers) > 0.9
    others, chance = right[~np.eye(4, dtype=bool)], np.mean([1 / world.num_rooms for world in many])
    # hues agree more or less by chance: 0.12 is the standard deviation of one pair, about 0.05 that of the mean of 12
    assert abs(others.mean() - chance) < 0.15


def test_the_same_seed_gives_the_same_classifier(worlds: list[World]) -> None:
    one, same, other = (classifier_of(worlds[0], np.random.SeedSequence(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.weight, same.weight) and not torch.equal(one.weight, other.weight)


def test_what_is_held_out_is_not_fitted_to() -> None:
    frames, rooms = torch.rand(500, 3, 32, 32), torch.arange(500) % 2
    changed = rooms.clone()
    changed[4::5] = 1 - changed[4::5]
    one, other = (fit_classifier(frames, target, 2) for target in (rooms, changed))
    assert torch.equal(one.weight, other.weight) and one.accuracy == pytest.approx(1 - other.accuracy)


def test_free_poses_are_where_agents_can_be(worlds: list[World]) -> None:
    for world in worlds:
        poses, rooms = free_poses(world, np.random.default_rng(0), 100)
        assert np.bincount(rooms).tolist() == [100] * world.num_rooms
        assert (Clearance(world).at(poses[:, :2]) >= AGENT_RADIUS).all()
        assert poses[:, 2].min() >= 0 and 6 < poses[:, 2].max() < 2 * np.pi
        inside = [room_at(world, x, y) for x, y in poses[:, :2]]
        assert all(known is None or known == room for known, room in zip(inside, rooms, strict=True))
    assert None in inside, "no pose is within a doorway"


def test_a_doorway_counts_as_the_nearest_room() -> None:
    world = replace(
        four_rooms([RED, GREEN]), floors=np.array([[0.0, 0, 2, 2], [2.25, 0, 4.25, 2], [2, 0.5, 2.25, 1.4]])
    )
    places = np.array([[1.9, 1], [2.1, 1], [2.15, 1], [2.3, 1], [2.125 - 1e-6, 0.6], [-1, -1], [5, 1]])
    assert nearest_room(world, places).tolist() == [0, 0, 1, 1, 0, 0, 1]
    assert nearest_room(world, places.reshape(7, 1, 2)).shape == (7, 1)


def expected_counts(evaluation: Evaluation, worlds: list[World]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True rooms, and which predicted steps count, one by one."""
    poses = evaluation.episodes.poses
    rooms = np.array(
        [[nearest_room(w, p[None, :2].numpy())[0] for p in path] for w, path in zip(worlds, poses, strict=True)]
    )
    known = np.array([[room in path[:TAU] for room in path[TAU:]] for path in rooms])
    most = np.array([np.bincount(path[:TAU]).argmax() for path in rooms])
    return rooms[:, TAU:], known, most


def test_known_answers(evaluation: Evaluation, worlds: list[World]) -> None:
    true, known, most = expected_counts(evaluation, worlds)
    # two of three predicted frames are the true ones, the others are black
    half = (torch.arange(TOTAL - TAU) % 3 != 0)[:, None, None, None]
    frames = evaluation.episodes.predicted_frames
    case = replace(evaluation, predicted_frames=frames * half, reconstructed_frames=frames)
    metrics, arrays = room_measures(case, worlds, seed=0, view_tolerance=TOLERANCE)
    assert set(arrays) == {f"room_accuracy{name}" for name in NAMES} | {"room_visited_share"}
    assert metrics["room_visited_share"] == pytest.approx(known.mean())
    hits = (true == most[:, None]) & known
    assert metrics["room_accuracy_most_seen"] == pytest.approx(hits.sum() / known.sum())
    np.testing.assert_allclose(arrays["room_accuracy_most_seen"], hits.sum(0) / known.sum(0))
    assert metrics["room_accuracy_reconstructed"] == metrics["room_accuracy_true_frames"] > 0.7
    shown = half.flatten().numpy()
    np.testing.assert_array_equal(arrays["room_accuracy"][shown], arrays["room_accuracy_true_frames"][shown])
    assert metrics["room_accuracy"] < metrics["room_accuracy_true_frames"]
    for name in NAMES:
        weighted = np.nansum(arrays[f"room_accuracy{name}"] * known.sum(0)) / known.sum()
        assert metrics[f"room_accuracy{name}"] == pytest.approx(weighted)
    assert metrics["room_classifier_accuracy"] > 0.9


def test_copies_are_those_of_the_nearest_true_pose(evaluation: Evaluation, worlds: list[World]) -> None:
    # an agent that goes on as it came sees every memorised frame again
    episodes = evaluation.episodes
    back = torch.arange(TAU - 1, TAU - 1 - (TOTAL - TAU), -1)
    order = torch.cat([torch.arange(TAU), back])
    again = replace(episodes, frames=episodes.frames[:, order], poses=episodes.poses[:, order])
    metrics, arrays = room_measures(replace(evaluation, episodes=again), worlds, seed=0, view_tolerance=TOLERANCE)
    assert metrics["room_visited_share"] == 1
    np.testing.assert_array_equal(arrays["room_accuracy_copy"], arrays["room_accuracy_true_frames"])


def test_rooms_never_visited_do_not_count(evaluation: Evaluation, worlds: list[World]) -> None:
    poses = evaluation.episodes.poses.clone()
    for i, world in enumerate(worlds):
        left, bottom, right, top = world.floors[[0] * TAU + [1] * (TOTAL - TAU)].T
        poses[i, :, 0], poses[i, :, 1] = torch.tensor((left + right) / 2), torch.tensor((bottom + top) / 2)
    poses[0, -1, :2] = poses[0, 0, :2]
    case = replace(evaluation, episodes=replace(evaluation.episodes, poses=poses))
    metrics, arrays = room_measures(case, worlds, seed=0, view_tolerance=TOLERANCE)
    assert metrics["room_visited_share"] == pytest.approx(1 / (2 * (TOTAL - TAU)))
    assert metrics["room_accuracy_most_seen"] == 1
    assert np.isnan(arrays["room_accuracy"][:-1]).all() and np.isfinite(arrays["room_accuracy"][-1])


def test_the_source_measures_its_own_worlds(data: LabyrinthRooms, evaluation: Evaluation, worlds: list[World]) -> None:
    walk, task = LabyrinthWalk(num_episodes=1), task_of(data)
    assert isinstance(task, RoomsTask) and task_of(walk).measure(walk, evaluation, seed=0).metrics == {}
    metrics, _ = task.measure(data, evaluation, seed=0)
    assert metrics == room_measures(evaluation, worlds, seed=0, view_tolerance=TOLERANCE).metrics
    full = replace(evaluation, metrics=evaluation.metrics | metrics)
    words = task.words(full.metrics)
    assert words.captions[5].file == "rooms.png"
    assert set(metrics) <= {measure.name for measure in words.measures}
    assert not {measure.name for measure in general_task().measures} & set(metrics)
    said = summary(full.metrics, task)[-1]
    assert said.startswith("In rooms that it had visited (") and said.count(" %") == 5
    assert not any("rooms" in sentence for sentence in summary(evaluation.metrics, task))


def test_the_figure_has_a_curve_for_each(evaluation: Evaluation, worlds: list[World]) -> None:
    assert rooms_figure(evaluation) is None
    by_horizon = room_measures(evaluation, worlds, seed=0, view_tolerance=TOLERANCE).by_horizon
    axes = rooms_figure(replace(evaluation, by_horizon=evaluation.by_horizon | by_horizon)).axes[0]
    thin = [line.get_ydata() for line in axes.get_lines()[::2]]
    for line, name in zip(thin, ("_most_seen", "_copy", "", "_true_frames"), strict=True):
        np.testing.assert_array_equal(line, by_horizon[f"room_accuracy{name}"])


def test_the_experiment_is_that_of_the_walk_in_other_worlds() -> None:
    walk, rooms = (resolve(read_experiment(name)).flat() for name in ("labyrinth-walk", "labyrinth-rooms"))
    differ = {name for name in walk | rooms if walk.get(name) != rooms.get(name)}
    assert {name for name in differ if not name.startswith("data.")} == {"evaluation.num_predicted"}
    assert (rooms["evaluation.num_observed"], rooms["evaluation.num_predicted"]) == (150, 300)
    assert (
        rooms["data.class_path"] == "gtm_pyro.tasks.LabyrinthRooms"
        and "several rooms" in experiments()["labyrinth-rooms"]
    )


WALK = """
model:
  class_path: gtm_pyro.models.GTMSM
  init_args:
    transition: {class_path: gtm_pyro.transitions.MomentumTranslation, init_args: {action_dim: 8}}
    encoder: {class_path: gtm_pyro.networks.FrameEncoder, init_args: {frame_shape: [3, 32, 32]}}
    decoder: {class_path: gtm_pyro.networks.FrameDecoder, init_args: {frame_shape: [3, 32, 32]}}
guide: gtm_pyro.guides.DeadReckoning
data: {class_path: gtm_pyro.tasks.LabyrinthWalk, init_args: {num_test_episodes: 2, seed: 5, cache: CACHE}}
stages: [{steps: 1}]
evaluation: {num_episodes: 2, num_observed: 10, num_predicted: 10, posterior_episodes: 1, posterior_samples: 2}
"""


@pytest.fixture(scope="module")
def walk_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose parameters are the starting values, and whose config names a folder for the walks."""
    folder = RunFolder.create(tmp_path_factory.mktemp("walk"))
    config = resolve(parse_yaml("walk", WALK.replace("CACHE", str(folder.path / "shards"))))
    experiment = config.build()
    folder.config.write_text(config.yaml())
    module = checkpoints.program(experiment.model, experiment.guide)
    checkpoints.save(folder.checkpoints, checkpoints.Checkpoint(1, dict(module.state_dict()), {}))
    return folder


def test_a_model_of_walks_is_evaluated_in_rooms(
    walk_run: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = walk_run.contents()
    out, apart = tmp_path / "rooms.json", tmp_path / "rooms"
    words = ["--data", "LabyrinthRooms", "--data.num_steps", "36", "--evaluation.num_predicted", "26"]
    assert main(["evaluate", str(walk_run.path), *words, "--out", str(out), "--report", str(apart)]) == 0
    said, numbers = capfd.readouterr().out, json.loads(out.read_text())
    assert numbers["num_predicted"] == 26 and numbers["room_visited_share"] > 0 and numbers["room_accuracy"] <= 1
    assert "In rooms that it had visited" in said and f"written: {out} and {apart / 'report.html'}" in said
    assert json.loads((apart / "evaluation.json").read_text()) == numbers
    with np.load(apart / "evaluation_by_horizon.npz") as arrays:
        assert arrays["room_accuracy_true_frames"].shape == (26,)
    page = (apart / "report.html").read_text()
    assert "The right room, by horizon" in page and "right room shown" in page
    assert {path.name for path in (apart / "figures").iterdir()} >= {"rooms.png", "map.png", "rollout.gif"}
    assert walk_run.contents() == before, "the run itself was changed"


def test_what_was_chosen_for_a_run_is_kept_in_other_worlds(walk_run: RunFolder) -> None:
    """Neither the length of the walks, 300 steps, nor their shards are any good for rooms."""
    for words in (
        {"data": "LabyrinthRooms"},
        {"data.class_path": "gtm_pyro.tasks.LabyrinthRooms", "data.seed": "7"},
        {"data": "{class_path: gtm_pyro.tasks.LabyrinthRooms, init_args: {seed: 7}}"},
    ):
        data = resolve(stored(walk_run, words), words)["data"]["init_args"]
        assert (data["num_test_episodes"], data["seed"]) == (2, 5 if words == {"data": "LabyrinthRooms"} else 7)
        assert (data["num_steps"], data["num_episodes"], data["cache"]) == (450, 256, None)
    for words in ({}, {"data": "LabyrinthWalk"}, {"data": "gtm_pyro.tasks.LabyrinthWalk"}, {"data.seed": "3"}):
        assert stored(walk_run, words) == read_run(walk_run.config)


def test_a_report_does_not_go_into_a_run(walk_run: RunFolder, fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = fails("evaluate", str(walk_run.path), "--data", "LabyrinthRooms", "--report", str(walk_run.path))
    assert "--report: expected a folder without a run" in message
    assert "is a file" in fails("evaluate", str(walk_run.path), "--report", str(tmp_path / "file"))
