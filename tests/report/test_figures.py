"""Figures show what they claim, the animation is small, and the report is one readable, self-contained page."""

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import RunFolderError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.evaluation.style import image, pixels_per_cell
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.report import figures
from gtm_pyro.report.animation import rollout_gif
from gtm_pyro.report.curves import curve
from gtm_pyro.report.model_figures import training_figure, transition_figure
from gtm_pyro.report.page import summary, write_report
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.tasks.base import general_task, task_of
from gtm_pyro.tasks.general.words import FIGURES, PLACES
from gtm_pyro.transitions import SlidingTranslation, Translation, WalledTranslation

NAMES = ImageNavigation.action_names
LINES = [
    {"step": step, "stage": int(step > 60), "restarts": int(step > 40), "seconds": step / 10, "loss": 100 - step,
     "kl_z": 3.0, "kl_s": 0.0, "log_likelihood": step - 100, "grad_norm": 1 + step, "learning_rate": 1e-3}
    for step in range(20, 121, 20)
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return ImageNavigation(str(folder))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GTMSM(WalledTranslation(5), encoder=FrameEncoder(4), decoder=FrameDecoder(4))
    model.transition.displacement.data = torch.tensor([[0.0, 0.0, -1.0, 1.0, 0.0], [-1.0, 1.0, 0.0, 0.0, 0.0]])
    return model


@pytest.fixture(scope="module")
def evaluation(model, data):
    episodes = data.sample(4, num_observed=30, num_predicted=20, seed=0, split="test")
    return evaluate(model, DeadReckoning(model), episodes, iwae_particles=0)


def reduced(model, evaluation, **fields):
    """The same steps without poses or worlds, or with others."""
    old = evaluation.episodes
    new = Episodes(**({"frames": old.frames, "actions": old.actions, "num_observed": 30} | fields))
    return evaluate(model, DeadReckoning(model), new, iwae_particles=0)


@pytest.fixture(scope="module")
def run_folder(evaluation, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "a <run>"
    folder.mkdir()
    (folder / "config.yaml").write_text("note: <script>alert('no')</script> & more\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 9')
    evaluation.save(folder / "evaluation.json")
    drawn = {"transition": model.transition, "training": LINES, "action_names": NAMES}
    figures.save_figures(evaluation, folder / "figures", **drawn)
    return folder


def test_every_figure_is_written_and_can_be_read(run_folder):
    written = {path.name for path in (run_folder / "figures").iterdir()}
    assert written == {figure.file for figure in FIGURES}
    for path in (run_folder / "figures").glob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=float)
        assert min(pixels.shape[:2]) > 200 and pixels.std() > 10, path.name


def test_the_place_of_crops_on_the_world_is_found_or_denied(evaluation, data):
    episodes = evaluation.episodes
    assert pixels_per_cell(episodes) == data.stride == 3
    moved = replace(episodes, poses=episodes.poses + 0.5, validate=False)
    blank = replace(episodes, worlds=torch.zeros_like(episodes.worlds), validate=False)
    for other in (moved, blank, replace(episodes, worlds=None, validate=False)):
        assert pixels_per_cell(other) is None


def test_images_have_three_channels_in_the_unit_interval():
    for channels in (1, 2, 3, 5):
        pixels = image(torch.linspace(-1, 2, channels * 12).reshape(channels, 3, 4))
        assert pixels.shape == (3, 4, 3) and pixels.min() >= 0 and pixels.max() <= 1


def test_frames_are_those_of_their_horizons(evaluation):
    figure = figures.frames_figure(evaluation, num_episodes=2)
    axes = figure.axes[1]
    titles = [text.get_text() for text in axes.texts if "+" in text.get_text()]
    horizons = [int(re.search(r"\+(\d+)", title).group(1)) for title in titles]
    assert horizons == [1, 2, 4, 8, 16, 20]
    pictures = np.array([picture.get_array() for picture in axes.images]).reshape(6, 3, 8, 8, 3)
    for title, horizon, (true, predicted, floor) in zip(titles, horizons, pictures, strict=True):
        np.testing.assert_allclose(true, image(evaluation.episodes.frames[1, 30 + horizon - 1]))
        np.testing.assert_allclose(predicted, image(evaluation.predicted_frames[1, horizon - 1]))
        np.testing.assert_allclose(floor, image(evaluation.reconstructed_frames[1, horizon - 1]))
        assert ("new place" in title) == (not evaluation.visited[1, horizon - 1])


def test_curves_by_horizon_are_the_arrays_with_both_baselines(evaluation):
    axes = figures.horizon_figure(evaluation).axes
    assert [ax.get_ylabel().split(" ")[0] for ax in axes] == ["squared", "right", "position"]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels[:2] == ["last memorised frame", "mean memorised frame"] and labels[-1].startswith(
        "decoded from its own encoding"
    )
    thin = [line.get_ydata() for line in axes[0].get_lines()[::2]]
    expected = ("last_frame_mse", "mean_frame_mse_all", "closest_copy_mse", "mse_unvisited", "mse_visited",
                "reconstruction_mse_all")  # fmt: skip
    for line, name in zip(thin, expected, strict=True):
        np.testing.assert_array_equal(line, evaluation.by_horizon[name])


def test_the_running_mean_skips_steps_without_a_value():
    from gtm_pyro.evaluation.style import canvas

    values = np.array([1.0, math.nan, 3.0, 5.0])
    _, axes = canvas(1, 1, (2, 2))
    curve(axes[0, 0], np.arange(4), values, "k", "-", None)
    np.testing.assert_allclose(axes[0, 0].get_lines()[1].get_ydata(), [1, 2, 3, 4])


def test_states_are_shown_true_aligned_and_raw(evaluation):
    figure = figures.states_figure(evaluation, episode=1)
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert [t.split(", ")[-1] for t in titles] == ["true positions", "best affine fit", "best similarity fit", "raw"]
    shown = [ax.collections[2].get_offsets() for ax in figure.axes[:4]]
    np.testing.assert_allclose(shown[0], evaluation.episodes.poses[1])
    np.testing.assert_allclose(shown[1], evaluation.affine(evaluation.states[1]))
    np.testing.assert_allclose(shown[3], evaluation.states[1])


def test_displacements_and_gate_are_the_transition_s(evaluation, model):
    figure = transition_figure(model.transition, evaluation, NAMES)
    raw, cells, gate = figure.axes[:3]
    assert [text.get_text() for text in raw.texts if text.get_text()] == list(NAMES)
    ends = [text.xy for text in raw.texts if text.get_text() == ""]
    np.testing.assert_allclose(ends, model.transition.displacement.detach().mT[:4])
    ends = [text.xy for text in cells.texts if text.get_text() == ""]
    moves = model.transition.displacement.detach().double().mT[:4]
    np.testing.assert_allclose(ends, moves @ evaluation.affine.matrix.mT, atol=1e-9)
    field = gate.collections[0].get_array()
    low, corner = evaluation.episodes.poses.amin((0, 1)) - 2, np.asarray(field).reshape(161, 161)[0, 0]
    at_corner = model.transition.gate(evaluation.affine.inverse(low)).detach()
    assert corner == pytest.approx(float(at_corner), rel=1e-4)


def test_figures_that_the_data_has_no_room_for_are_left_out(evaluation, model, tmp_path):
    bare = reduced(model, evaluation)
    assert figures.walk_figure(bare) is None
    assert len(figures.states_figure(bare).axes) == 2  # raw, and the bar of time
    assert len(figures.horizon_figure(bare).axes) == 1
    assert len(transition_figure(model.transition, bare).axes) == 3  # raw displacements, gate, its bar
    assert len(transition_figure(Translation(5), bare).axes) == 1
    room = SlidingTranslation(5)
    with torch.no_grad():
        room.offsets.fill_(float(bare.states.abs().max()))
    drawn = transition_figure(room, bare).axes
    assert len(drawn) == 2 and drawn[1].get_title() == "the room inside the walls"
    assert transition_figure(torch.nn.Linear(2, 2), bare) is None
    assert transition_figure(Translation(5, state_dim=3), bare) is None
    assert training_figure([]) is None and training_figure([{"step": 3}]) is None
    paths = figures.save_figures(bare, tmp_path)
    assert [path.name for path in paths] == ["states.png", "frames.png", "horizon.png", "rollout.gif"]


def test_walks_without_a_known_image_are_drawn_in_cells(evaluation, model):
    placed = reduced(model, evaluation, poses=evaluation.episodes.poses)
    for case, images in ((evaluation, 1), (placed, 0)):
        axes = figures.walk_figure(case, 2).axes
        assert axes[0].get_xlabel() == "x (cells)" and len(axes[0].images) == images
        assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]  # y points down
    # the middle of the first crop, of 8 pixels, is cell 0; the next cell is 3 pixels on
    assert figures.walk_figure(evaluation).axes[0].images[0].get_extent() == pytest.approx(
        [-4 / 3, 28 / 3, 28 / 3, -4 / 3]
    )


def test_training_curves_keep_given_up_attempts_apart():
    axes = [ax for ax in training_figure(LINES).axes if ax.get_visible()]
    assert len(axes) == 5
    given_up, kept, *stages = axes[0].get_lines()
    assert given_up.get_xdata().tolist() == [20, 40] and given_up.get_color() == "#CCCCCC"
    assert kept.get_xdata().tolist() == [60, 80, 100, 120] and kept.get_ydata().tolist() == [40, 20, 0, -20]
    assert [line.get_xdata()[0] for line in stages] == [80]


@pytest.mark.parametrize("missing", ["nothing", "worlds", "poses"])
def test_the_animation_shows_the_steps_in_turn(evaluation, model, missing):
    poses = None if missing == "poses" else evaluation.episodes.poses
    case = evaluation if missing == "nothing" else reduced(model, evaluation, poses=poses)
    with Image.open(io.BytesIO(rollout_gif(case, episode=1, max_frames=10))) as picture:
        assert picture.n_frames == 10 and picture.info["loop"] == 0 and picture.info["duration"] == 120
        left = picture.size[0] - 148 - 10
        for number in (0, 7):
            picture.seek(number)
            pixels = np.asarray(picture.convert("RGB"), dtype=float) / 255
            step = 2 * number
            for top, frame in ((24, case.episodes.frames[1, 30 + step]), (24 + 172, case.predicted_frames[1, step])):
                places = top + 9 + 18 * np.arange(8), left + 9 + 18 * np.arange(8)
                # a palette of 256 colours
                assert np.abs(pixels[np.ix_(*places)] - image(frame)).mean() < 0.06


def test_a_long_animation_stays_small(model, data):
    episodes = data.sample(1, num_observed=30, num_predicted=256, seed=0, split="test")
    content = rollout_gif(evaluate(model, DeadReckoning(model), episodes, iwae_particles=0))
    assert len(content) < 3e6  # a world of noise, the worst case
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == 128


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_page_with_numbers_figures_and_configuration(run_folder, evaluation):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    content = path.read_text()
    page = Page(content)
    assert not page.open
    assert len(page.sources) == len(FIGURES)
    assert all(source.startswith("data:image/") for source in page.sources)
    text = " ".join(" ".join(page.text).split())
    for measure in MEASURES:
        shown = measure.name in evaluation.metrics
        label, meaning = (words.format_map(PLACES) for words in (measure.label, measure.meaning))
        assert (label in text and meaning in text) or not shown, measure.name
    for figure in FIGURES:
        assert figure.caption in text
    assert f"{evaluation.metrics['mse_visited']:.4g} ↓" in text
    assert "On 4 held-out episodes the model memorised 30 frames and predicted the next 20" in text
    assert "a <run>" in text and "note: <script>alert('no')</script> & more" in text
    assert "<script" not in content
    assert "optimiser steps 120" in text and "restarts, for being stuck 1" in text


def test_a_run_without_results_still_has_a_report(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    text = write_report(tmp_path).read_text()
    assert "has not been evaluated yet" in text and "There are no figures yet" in text and "seed: 1" in text


def test_the_summary_says_what_is_known_and_rounds_no_failure_away():
    assert summary({}) == []
    known = {"retrieval_accuracy": 0.99999, "retrieval_accuracy_last_32": 1.0, "localisation_rmse": None}
    assert summary(known) == [
        "At places it had visited, it read the right memory in 99.99 % of the steps (100 % over the last 32)."
    ]
    errors = summary({"mse_visited": 0.0042, "reconstruction_mse": 0.004, "mean_frame_mse": 0.042})
    assert errors == ["Its error there is 1.05 times the floor that its decoder sets, and 10 % of the mean frame's."]


def test_what_was_not_measured_is_left_out_and_what_is_unknown_is_shown(evaluation, model, tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    reduced(model, evaluation).save(tmp_path / "evaluation.json")
    known = json.loads((tmp_path / "evaluation.json").read_text())
    assert "retrieval_accuracy" not in known and None not in known.values()
    before = write_report(tmp_path).read_text()
    # nulls of an earlier version, and a number of a later one
    (tmp_path / "evaluation.json").write_text(json.dumps(known | {"retrieval_accuracy": None, "insight": 0.25}))
    text = write_report(tmp_path).read_text()
    assert "NaN" not in text and "None" not in text and "right place retrieved" not in text
    row = '<tr><td>insight</td><td class="number">0.25</td><td>not described by this version</td></tr>\n'
    assert row in text and text.replace(row, "") == before


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(RunFolderError, match="nowhere"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", "[1]", '"low"', b"\xff"])
def test_a_damaged_evaluation_counts_as_none(tmp_path, content, caplog):
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "evaluation.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "has not been evaluated yet" in write_report(tmp_path).read_text()
    assert "evaluation.json: expected an object of numbers in JSON" in caplog.text


def test_a_report_finds_its_task_without_running_a_class_of_a_user_s_own(tmp_path, monkeypatch):
    """The captions of a run on images speak of images, by the class that its config names."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "their_data.py").write_text("raise SystemExit('it was run')")
    drawn = tmp_path / "figures" / "walk.png"
    drawn.parent.mkdir()
    drawn.write_bytes(b"")
    walks = "gtm_pyro.tasks.ImageNavigation"
    nested = f"{{class_path: gtm_pyro.tasks.FixedEpisodes, init_args: {{data: {{class_path: {walks}}}}}}}"
    for data, images in ((walks, True), (nested, True), ("their_data.Walks", False)):
        (tmp_path / "config.yaml").write_text(f"data: {data}\n")
        assert ("on the image it walked on" in write_report(tmp_path).read_text()) == images
    assert type(task_of(object())) is type(general_task())
