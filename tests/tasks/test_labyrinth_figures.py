"""Figures, the animation and the report of agents with a heading show the poses, frames and numbers they claim."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from gtm_pyro.cli import main
from gtm_pyro.evaluation.alignment import best_affine, best_similarity
from gtm_pyro.evaluation.evaluation import Evaluation, evaluate
from gtm_pyro.evaluation.headings import map_poses
from gtm_pyro.evaluation.style import PREDICTED, TRUE, canvas, image
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.report.animation import rollout_gif
from gtm_pyro.report.figures import frames_figure, horizon_figure, save_figures, states_figure, walk_figure
from gtm_pyro.report.ground import picture_of
from gtm_pyro.report.model_figures import transition_figure
from gtm_pyro.report.page import summary, write_report
from gtm_pyro.tasks import LabyrinthRooms, LabyrinthRotation, LabyrinthWalk
from gtm_pyro.tasks.general import GeneralTask
from gtm_pyro.tasks.general.headings import last_frames_figure, map_figure
from gtm_pyro.tasks.general.views import VIEWS
from gtm_pyro.tasks.labyrinth.map_figure import LabyrinthGround, draw_world
from gtm_pyro.tasks.labyrinth.world import World
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition, Translation

TAU, LINES = 25, [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]


def evaluated(data: LabyrinthWalk | LabyrinthRotation, transition: type[Transition], predicted: int) -> Evaluation:
    torch.manual_seed(0)
    size = {"latent_dim": 4, "frame_shape": (3, 32, 32)}
    model = GTMSM(transition(data.action_dim), encoder=FrameEncoder(**size), decoder=FrameDecoder(**size))
    episodes = data.sample(3, num_observed=TAU, num_predicted=predicted, seed=0, split="test")
    return evaluate(model, DeadReckoning(model), episodes, iwae_particles=0)


@pytest.fixture(scope="module")
def walks() -> LabyrinthWalk:
    return LabyrinthWalk(num_episodes=1, num_test_episodes=3, num_steps=70)


@pytest.fixture(scope="module")
def walk(walks: LabyrinthWalk) -> Evaluation:
    return evaluated(walks, MomentumTranslation, 45)


@pytest.fixture(scope="module")
def world(walks: LabyrinthWalk) -> World:
    return walks.worlds(3, seed=0, split="test")[1]


@pytest.fixture(scope="module")
def turn() -> Evaluation:
    data = LabyrinthRotation(num_episodes=1, num_test_episodes=3, num_steps=60, from_rest=False)
    return evaluated(data, MomentumTranslation, 35)


def with_states(evaluation: Evaluation, states: torch.Tensor) -> Evaluation:
    places, s = evaluation.poses[..., :2], states[..., :2]
    return replace(evaluation, states=states, affine=best_affine(s, places), similarity=best_similarity(s, places))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_map_that_is_right_but_for_a_similarity_lies_on_the_true_one(walk: Evaluation, mirrored: bool) -> None:
    sign, turned = -1.0 if mirrored else 1.0, torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    x, y, heading = walk.poses.unbind(-1)
    states = torch.cat([3 * torch.stack([x, sign * y], -1) @ turned + 2, sign * heading.unsqueeze(-1)], -1)
    poses = map_poses(with_states(walk, states))
    assert poses.moving and poses.mirrored == mirrored
    np.testing.assert_allclose(poses.positions, walk.episodes.poses[..., :2], atol=1e-4)
    np.testing.assert_allclose(poses.headings, walk.episodes.poses[..., 2], atol=1e-4)


def test_agents_that_turn_have_no_path(turn: Evaluation) -> None:
    poses = map_poses(turn)
    assert not poses.moving
    np.testing.assert_array_equal(poses.positions, turn.episodes.poses[..., :2])
    assert states_figure(turn) is None and walk_figure(turn) is None
    assert [ax.get_ylabel().split(" ")[0] for ax in horizon_figure(turn).axes] == ["squared", "right", "heading"]


def test_a_map_shows_both_paths_and_their_headings(walk: Evaluation, world: World) -> None:
    bare, drawn = map_figure(walk, episode=1), map_figure(walk, LabyrinthGround(world), 1)
    poses, total = map_poses(walk), walk.episodes.num_steps
    assert len(drawn.axes) == 4
    assert len(drawn.axes[0].patches) == len(world.floors) + len(world.pillars) and not bare.axes[0].patches
    for ax, steps in zip(drawn.axes, (slice(0, TAU), slice(TAU, total)), strict=False):
        lines = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
        np.testing.assert_allclose(lines["true"], walk.episodes.poses[1, steps, :2])
        np.testing.assert_allclose(lines["inferred"], poses.positions[1, steps])
        true = next(c for c in ax.collections if hasattr(c, "U"))
        expected = walk.episodes.poses[1, steps, 2][::10].numpy()
        np.testing.assert_allclose(
            np.arctan2(np.sin(expected), np.cos(expected)), np.arctan2(true.V, true.U), atol=1e-5
        )
    colours = [ax.get_lines()[-3].get_color() for ax in drawn.axes[:2]]
    assert colours[0] != colours[1]
    heading, error = drawn.axes[2:]
    shown = {line.get_label(): line.get_ydata() for line in heading.get_lines()}
    since = np.degrees(poses.true[1, :, 2] - poses.true[1, 0, 2])
    np.testing.assert_allclose(shown["true"], since, atol=1e-3)
    inferred = np.degrees(walk.states[1, :, 2].numpy()) * (-1) ** poses.mirrored
    np.testing.assert_allclose(shown["inferred"], inferred, atol=1e-2)
    assert shown["memory ends"] is not None and heading.get_lines()[-1].get_xdata()[0] == TAU + 0.5
    (this,) = (line for line in error.get_lines() if line.get_label() == "this episode")
    np.testing.assert_allclose(this.get_ydata(), shown["inferred"] - shown["true"], atol=1e-2)


def test_spirals_run_outwards_along_the_heading(turn: Evaluation) -> None:
    figure, poses = map_figure(turn, episode=2), map_poses(turn)
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    for name, headings in (("true", poses.true[2, :, 2]), ("inferred", poses.headings[2])):
        path = np.concatenate([lines[f"{name}, memorised"][:TAU], lines[f"{name}, predicted"]]) - poses.true[2, 0, :2]
        assert (np.diff(np.hypot(*path.T)) > 0).all()
        across = np.arctan2(path[:, 1], path[:, 0]) - headings
        np.testing.assert_allclose(np.cos(across), 1, atol=1e-6)
    assert sum(len(patch.get_xy()) > 0 for patch in figure.axes[1].patches) == (~turn.visited[2]).sum() > 0


def test_the_last_frames_stand_over_the_nearest_memorised_ones(walk: Evaluation, turn: Evaluation) -> None:
    for case, titles in (
        (turn, ["memory"] * 3 + [f"+{h}" for h in range(1, 14)]),
        (walk, [f"+{h}" for h in range(15, 46, 2)]),
    ):
        axes = np.array(last_frames_figure(case).axes).reshape(6, 16)
        assert [ax.get_title() for ax in axes[0]] == titles
        last, rows = case.episodes.num_predicted, axes[3:, -1]
        assert rows[0].get_title() == f"+{last}"
        which = 1 if case is walk else 0
        pose = case.episodes.poses[which]
        turned = pose[-1, 2] - pose[:TAU, 2]
        far = (pose[-1, :2] - pose[:TAU, :2]).norm(dim=-1) / 0.25
        aside = torch.atan2(turned.sin(), turned.cos()).abs() / 0.0767
        nearest = int((far**2 + aside**2).argmin())
        shown = case.episodes.frames[which, -1], case.predicted_frames[which, -1], case.episodes.frames[which, nearest]
        for ax, frame in zip(rows, shown, strict=True):
            np.testing.assert_array_equal(ax.images[0].get_array(), image(frame))
        # nothing is predicted while frames are seen
        assert len(axes[1, 0].images) == (case is walk)


def test_a_map_has_the_colours_of_its_world() -> None:
    world = LabyrinthRooms(num_episodes=1, num_test_episodes=1).worlds(1, seed=0)[0]
    _, axes = canvas(1, 1, (3, 3))
    draw_world(axes[0, 0], world)
    means = world.textures.reshape(len(world.textures), -1, 3).mean(1) / 255
    floor = axes[0, 0].patches[0]
    np.testing.assert_allclose(floor.get_facecolor()[:3], 0.45 + 0.55 * means[world.floor_textures[0]])
    np.testing.assert_allclose(axes[0, 0].collections[1].get_colors()[:, :3], means[world.wall_textures])
    picture = picture_of(LabyrinthGround(world), 320)
    assert picture.pixels.shape == (320, 320, 3)

    def at(x: float, y: float) -> np.ndarray:
        column, row = picture.place(np.array([x, y])).astype(int)
        return picture.pixels[row, column] / 255

    for number in range(world.num_rooms):
        # a corner of the room, where no thing stands
        left, bottom, _, top = world.floors[number]
        for y in (bottom + 0.2, top - 0.2):
            expected = 0.45 + 0.55 * means[world.floor_textures[number]]
            np.testing.assert_allclose(at(left + 0.2, y), expected, atol=0.01)
    for (x, y, *_), kind in zip(world.objects, world.object_pictures, strict=True):
        pixels = world.pictures[kind].reshape(-1, 4)
        np.testing.assert_allclose(at(x, y), pixels[pixels[:, 3] > 0, :3].mean(0) / 255, atol=0.01)


@pytest.mark.parametrize("mapped", [True, False])
def test_the_animation_shows_the_agent_on_its_map(walk: Evaluation, world: World, mapped: bool) -> None:
    perfect = with_states(walk, walk.poses)
    content = rollout_gif(perfect, 1, ground=LabyrinthGround(world) if mapped else None)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == 45 and picture.size == (506, 384)
        for step in (0, 30):
            picture.seek(step)
            pixels = np.asarray(picture.convert("RGB"), dtype=float)[24:344, 14:334] / 255
            # the true pose is wider than the inferred one, which hides its middle
            near = {colour: np.abs(pixels - to_rgb(colour)).max(-1) < 0.1 for colour in (TRUE, PREDICTED)}
            assert near[TRUE].sum() > 40 and near[PREDICTED].sum() > 40
            if mapped:
                x, y, heading = walk.episodes.poses[1, TAU + step].numpy()
                ahead = np.array([x, y]) + 0.05 * np.array([math.cos(heading), math.sin(heading)])
                column, row = picture_of(LabyrinthGround(world), 320).place(ahead).round().astype(int)
                assert near[PREDICTED][row - 2 : row + 3, column - 2 : column + 3].any()


def test_states_without_headings_still_have_a_map() -> None:
    flat = evaluated(LabyrinthWalk(num_episodes=1, num_test_episodes=3, num_steps=30), Translation, 5)
    assert map_poses(flat).headings is None and len(map_figure(flat).axes) == 2
    with Image.open(io.BytesIO(rollout_gif(flat))) as picture:
        assert picture.n_frames == 5 and picture.size == (506, 384)
    said = summary(flat.metrics)
    # of views that are nearly all new, nothing is said of the map
    assert len(said) == 2 and "nan" not in "".join(said)


@pytest.mark.parametrize("kind", ["walk", "turn"])
def test_all_figures_and_the_report_fit_the_agents(
    kind: str, request: pytest.FixtureRequest, world: World, tmp_path: Path
) -> None:
    case = request.getfixturevalue(kind)
    transition = MomentumTranslation(case.episodes.action_dim)
    paths = save_figures(
        case,
        tmp_path / "figures",
        transition=transition,
        training=LINES,
        ground=LabyrinthGround(world) if kind == "walk" else None,
    )
    case.save(tmp_path / "evaluation.json")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    known = json.loads((tmp_path / "evaluation.json").read_text())
    words = GeneralTask().words(known)
    figures = words.captions
    assert {path.name for path in paths} == {figure.file for figure in figures}
    assert sum(path.stat().st_size for path in paths) < 5e6
    text = write_report(tmp_path).read_text()
    assert text.count("<img") == len(figures)
    for word in ("NaN", "nan", "not defined", "None", "visited place", "new place", "null"):
        assert word not in text.replace("<img", "").split("<h2>A rollout")[0] and word not in "".join(summary(known))
    shown = [measure for measure in words.measures if measure.name in known]
    for measure in shown:
        assert measure.meaning.format_map(VIEWS).replace("'", "&#39;") in text
    positions = [measure for measure in shown if "position" in measure.label]
    assert bool(positions) == (kind == "walk")
    assert ("position" in " ".join(summary(known))) == (kind == "walk")


def test_horizons_show_the_copy_of_the_nearest_view(walk: Evaluation, turn: Evaluation) -> None:
    for case, names in ((walk, ("mse",)), (turn, ("mse_unvisited", "mse_visited"))):
        ax = horizon_figure(case).axes[0]
        thin = [line.get_ydata() for line in ax.get_lines()[::2]]
        free = ("last_frame_mse", "mean_frame_mse_all", "copy_mse", "closest_copy_mse")
        expected = (*free, *names, "reconstruction_mse_all")
        for line, name in zip(thin, expected, strict=True):
            np.testing.assert_array_equal(line, case.by_horizon[name])
    # the running mean does not run over the steps that show no memorised view
    smooth = horizon_figure(turn).axes[0].get_lines()[11].get_ydata()
    new = np.isnan(turn.by_horizon["mse_visited"])
    assert new[:10].all() and np.isnan(smooth[:9]).all() and np.isfinite(smooth[~new]).all()
    assert any("new view" in text.get_text() for text in frames_figure(turn).axes[0].texts)


def test_the_learnt_motion_is_that_of_a_repeated_action(walk: Evaluation) -> None:
    plain, momentum = RotatingTranslation(8), MomentumTranslation(8)
    momentum.saturation.data = torch.full((3,), 1e3)  # far from the top speed
    momentum.displacement.data = 1e-2 * torch.eye(3, 8)
    scaled = with_states(walk, torch.cat([2 * walk.poses[..., :2], walk.poses[..., 2:]], -1))
    names = [f"name {i}" for i in range(8)]
    for transition, gain in ((plain, 1.0), (momentum, 1e3)):
        # momentum: d = 1e3 (sigma(0) d + M a) diverges unless friction is strong
        if transition is momentum:
            transition.friction.data = torch.full((3,), -12.0)
        axes = transition_figure(transition, scaled, names).axes
        assert [label.get_text() for label in axes[0].get_yticklabels()] == names
        moves = transition.displacement.detach() * gain
        units = (0.5, 0.5, math.degrees(1))
        for ax, expected, unit in zip(axes, moves, units, strict=True):
            shown = [bar.get_width() for bar in ax.containers[0]]
            np.testing.assert_allclose(shown, unit * expected, rtol=0.02, atol=1e-4)


TURN = {
    "num_episodes": 4.0, "num_observed": 33.0, "num_predicted": 49.0, "copy_mse": 0.01, "copy_mse_unvisited": 0.02,
    "mean_frame_mse_unvisited": 0.03, "best_copy_mse_unvisited": 0.02, "mse_unvisited": 0.012, "mse_visited": 0.0011,
    "reconstruction_mse": 0.001, "mean_frame_mse": 0.02, "mse": 0.005, "mean_frame_mse_all": 0.024,
    "retrieval_accuracy": 1.0, "heading_correlation": 0.99999999, "heading_rmse": 0.01, "localisation_rmse": 0.0,
    "position_error_last": None, "mse_drift": None,
}  # fmt: skip


def test_sentences_say_what_is_defined_and_nothing_of_places() -> None:
    assert summary(TURN)[1:] == [
        "Inferred headings correlate with the true ones at 0.999999 and are off by 0.573 degrees.",
        "At views that it had memorised, it read the right memory in 100 % of the steps.",
        "Its error there is 1.10 times the floor that its decoder sets, which is 5 % of the mean frame's error.",
        "On views that it had never seen, its error is 60 % of the best copy's, the memorised frame of the "
        "nearest true pose.",
    ]
    mean = TURN | {"best_copy_mse_unvisited": 0.015, "mean_frame_mse_unvisited": 0.015}
    assert summary(mean)[-1].endswith("its error is 80 % of the best copy's, the mean memorised frame.")
    walk = TURN | {"localisation_rmse": 0.3, "position_error_last": 0.041, "mse_drift": 1.1}
    assert summary(walk)[2:] == [
        "Its error is 20.8 % of the mean frame's and 50 % of that of the memorised frame of the nearest true pose; "
        "over the last 50 steps it is 1.10 times that of the 50 before.",
        "At the last step its inferred position is off by 4.1 % of the path's length after the best similarity fit.",
    ]
    no_new = {name: value for name, value in TURN.items() if "unvisited" not in name}
    assert not any("never seen" in sentence for sentence in summary(no_new))


def test_a_run_in_a_labyrinth_gets_its_map_and_its_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = """
model:
  class_path: gtm_pyro.models.GTMSM
  init_args:
    transition: {class_path: gtm_pyro.transitions.RotatingTranslation, init_args: {action_dim: 8}}
    encoder: {class_path: gtm_pyro.networks.FrameEncoder, init_args: {frame_shape: [3, 32, 32]}}
    decoder: {class_path: gtm_pyro.networks.FrameDecoder, init_args: {frame_shape: [3, 32, 32]}}
    displacement_weight: 1.0
guide: gtm_pyro.guides.DeadReckoning
data: {class_path: gtm_pyro.tasks.LabyrinthWalk, init_args: {num_episodes: 2, num_test_episodes: 2, num_steps: 20}}
loss: pyro.infer.Trace_ELBO
stages: [{steps: 1, batch_size: 2, num_observed: 10, num_predicted: 5}]
learning_rates: {default: 1.0e-3}
evaluation: {num_episodes: 2, num_observed: 12, num_predicted: 8, posterior_episodes: 1, posterior_samples: 2}
device: cpu
"""
    (tmp_path / "tiny.yaml").write_text(config)
    assert main(["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert "Inferred headings correlate" in capfd.readouterr().out
    assert (tmp_path / "run/figures/map.png").is_file() and (tmp_path / "run/figures/last_frames.png").is_file()
    assert "The map" in (tmp_path / "run/report.html").read_text()
