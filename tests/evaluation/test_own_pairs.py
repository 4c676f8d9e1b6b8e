"""Pairs of a user's own: what they can do is measured, drawn and compared, and what they cannot is left out."""

import inspect
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from own_pairs import PAIRS

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.evaluation.evaluation import Evaluation, evaluate
from gtm_pyro.evaluation.frame_errors import baselines, closest_copies
from gtm_pyro.evaluation.generation import generate
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.inference.capabilities import Capability, capabilities, lacking, predict
from gtm_pyro.report.comparison import compare
from gtm_pyro.report.figures import save_figures
from gtm_pyro.report.page import summary, write_report
from gtm_pyro.report.video import save_video
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.tasks.base import Measure, Measures, Truth, task_of, task_of_config
from gtm_pyro.tasks.general import GeneralTask

DATA = ImageNavigation(cuts_per_image=4)
VAE, DRIFT, MEMORY = PAIRS
EPISODES = DATA.sample(2, num_observed=16, num_predicted=36, seed=0, split="test")


def pair(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model_class, guide_class = PAIRS[name]
    sizes = {size: getattr(DATA, size) for size in inspect.signature(model_class).parameters if hasattr(DATA, size)}
    model = model_class(**sizes)
    return model, guide_class(model)


@pytest.fixture(scope="module")
def evaluations() -> dict[str, Evaluation]:
    return {name: evaluate(*pair(name), EPISODES, chunk_size=1) for name in PAIRS}


@pytest.mark.parametrize("name", PAIRS)
def test_measured_is_what_episodes_and_pair_allow(name: str, evaluations: dict[str, Evaluation]) -> None:
    known = evaluations[name].metrics
    given = {Truth.POSES, *capabilities(*pair(name))}
    possible = {measure.name for measure in MEASURES if given.issuperset(measure.needs)}
    assert all(math.isfinite(value) for value in known.values())
    # too few steps for a drift; whether memory entries are retrieved shows in what is imagined
    left_out = {"mse_drift"} | ({n for n in possible if n.startswith("retrieval")} if name == DRIFT else set())
    assert known.keys() == possible - left_out
    assert ("mse" in known) == (name != VAE) and ("localisation_rmse" in known) == (name == DRIFT)
    assert {"elbo", "iwae", "kl_per_step", "last_frame_mse", "closest_copy_mse", "mean_frame_mse_all"} <= known.keys()


def test_without_poses_nothing_is_said_of_places() -> None:
    bare = Episodes(EPISODES.frames, EPISODES.actions, EPISODES.num_observed)
    measured = {name: evaluate(*pair(name), bare, iwae_particles=0) for name in PAIRS}
    for evaluation in measured.values():
        assert evaluation.poses is evaluation.visited is evaluation.affine is None
        needed = {m.name: m.needs for m in MEASURES}
        assert not any({Truth.POSES, Truth.HEADINGS} & set(needed[name]) for name in evaluation.metrics)
    assert measured[DRIFT].states is not None and measured[MEMORY].states is None


def test_baselines_equal_a_loop_over_steps() -> None:
    tau, errors = EPISODES.num_observed, baselines(EPISODES)
    for b, episode in enumerate(EPISODES.frames):
        for h, true in enumerate(episode[tau:]):
            apart = [float((seen - true).square().mean()) for seen in episode[:tau]]
            assert float(errors["closest_copy_mse"][b, h]) == pytest.approx(min(apart), rel=1e-4, abs=1e-9)
            assert float(errors["last_frame_mse"][b, h]) == pytest.approx(apart[-1])
            mean = float((episode[:tau].mean(0) - true).square().mean())
            assert float(errors["mean_frame_mse_all"][b, h]) == pytest.approx(mean)


def test_a_frame_seen_before_has_a_perfect_copy_however_many_steps_there_are() -> None:
    """Steps are compared some at a time: the copies of 700 steps are those of each."""
    frames = torch.rand(1, 50, 3, 4, 4)
    order = torch.randint(50, (700,), generator=torch.Generator().manual_seed(0))
    long = Episodes(torch.cat([frames, frames[:, order]], 1), torch.zeros(1, 750, 2), 50)
    torch.testing.assert_close(closest_copies(long)[0], order)
    assert float(baselines(long)["closest_copy_mse"].max()) == 0


def test_curves_and_numbers_agree(evaluations: dict[str, Evaluation]) -> None:
    evaluation = evaluations[MEMORY]
    for name in ("mse", "last_frame_mse", "closest_copy_mse", "mean_frame_mse_all"):
        assert evaluation.by_horizon[name].mean() == pytest.approx(evaluation.metrics[name])
    assert evaluation.by_horizon["mse"][:8].mean() == pytest.approx(evaluation.metrics["mse_first_8"])
    assert evaluation.by_horizon["mse"][-32:].mean() == pytest.approx(evaluation.metrics["mse_last_32"])


@pytest.fixture(scope="module")
def runs(evaluations: dict[str, Evaluation], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each pair, with figures and a page."""
    root, folders = tmp_path_factory.mktemp("runs"), {}
    for name, evaluation in evaluations.items():
        folder = folders[name] = root / PAIRS[name][0].__name__
        folder.mkdir()
        (folder / "config.yaml").write_text(f"model: {folder.name}\ndata: gtm_pyro.tasks.ImageNavigation\n")
        evaluation.save(folder / "evaluation.json")
        save_figures(evaluation, folder / "figures")
        write_report(folder)
    return folders


def test_each_pair_has_a_report_of_what_it_can_do(runs: dict[str, Path]) -> None:
    pages = {name: (folder / "report.html").read_text() for name, folder in runs.items()}
    figures = {name: {path.name for path in (folder / "figures").iterdir()} for name, folder in runs.items()}
    common = {"walk.png", "frames.png", "horizon.png"}
    assert figures == {
        VAE: common, DRIFT: common | {"states.png", "rollout.gif"}, MEMORY: common | {"rollout.gif"}
    }  # fmt: skip
    for name, page in pages.items():
        words = re.sub('data:image[^"]*', "", page)
        assert page.count("<img") == len(figures[name])
        assert not any(word in words for word in ("not defined", "nan", "None", "{place}", "{visited}"))
        assert "best copy" in page and "last memorised frame" in page and "has not been evaluated" not in page
    assert "it cannot imagine frames from actions alone" in pages[VAE] and "position error" not in pages[VAE]
    assert "times that of the mean memorised frame" in pages[DRIFT] and "position error" in pages[DRIFT]
    assert "right place retrieved" in pages[MEMORY] and "right place retrieved" not in pages[DRIFT]


def test_any_mixture_of_runs_is_compared(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = {"damaged": "{", "old": json.dumps({"elbo": 1.0, "mse": None}), "newer": '{"elbo": 2, "insight": 0.5}'}
    folders = [str(folder) for folder in runs.values()]
    for name, content in others.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"model: {name}\n")
        (tmp_path / name / "evaluation.json").write_text(content)
        folders.append(str(tmp_path / name))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.yaml").write_text("model: bare\n")
    comparison = compare([*folders, tmp_path / "bare"])
    assert "damaged/evaluation.json: expected an object of numbers" in caplog.text
    head, *rows = comparison.rows()
    table = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert table["old"]["best copy"] == "-", "gtm-pyro report measures it"
    assert table["FrameVAE"]["mse"] == table["FrameVAE"]["localisation"] == table["old"]["mse"] == "none"
    assert table["FrameVAE"]["best copy"] == table["Drift"]["best copy"] == table["ActionMemory"]["best copy"]
    assert table["damaged"]["ELBO"] == table["bare"]["ELBO"] == "-" and table["newer"]["ELBO"] == "2.00"
    assert table["ActionMemory"]["retrieval"] != "none" == table["Drift"]["retrieval"]
    assert comparison.numbers["insight"] == (None,) * 5 + (0.5, None) and "insight" not in head
    assert json.loads(comparison.json())[5]["numbers"]["insight"] == 0.5
    shown = [ax for ax in comparison.figure().axes if ax.get_visible()]
    titles = [ax.get_title().partition("\n")[0] for ax in shown]
    assert "best copy" in titles and set(titles) <= set(head)


@pytest.mark.parametrize("name", [DRIFT, MEMORY])
def test_pairs_that_imagine_generate(name: str, tmp_path: Path) -> None:
    model, guide = pair(name)
    generated = generate(model, guide, DATA, steps=12, num_observed=9)
    assert generated.frames.shape == (12, *DATA.frame_shape) and generated.true_frames is not None
    placed = name == DRIFT
    assert (generated.states is None, generated.entries is None) == (not placed, placed)
    assert (generated.observed_states is None) == (not placed) and (generated.retrieved is None) == placed
    assert generated.visited is not None and generated.retrieval_accuracy is None or not placed
    generated.save(tmp_path / "generated.npz")
    with np.load(tmp_path / "generated.npz") as arrays:
        assert ("states" in arrays) == placed and ("entries" in arrays) == (not placed)
    assert save_video(generated, tmp_path / "film.gif").stat().st_size > 1000
    episode = DATA.sample(1, num_observed=9, num_predicted=12, seed=0, split="test")
    imagined = predict(model, guide, episode.observed, episode.predicted_actions)
    assert imagined.frames.shape == (1, 12, *DATA.frame_shape) and (imagined.states is None) == (not placed)


def test_what_is_missing_is_said_in_one_line() -> None:
    model, guide = pair(VAE)
    with pytest.raises(ConfigError) as error:
        generate(model, guide, DATA, steps=3)
    assert str(error.value) == "model: generation needs predict, or remember and imagine, which FrameVAE does not have"
    assert lacking(Capability.PATH, model, guide) == "path, which FrameGuide does not have"
    model.remember = model.imagine = None  # a memory, and a guide without a path that would address it
    assert lacking(Capability.IMAGINES, model, guide) == "path, which FrameGuide does not have"
    with pytest.raises(ConfigError, match="guide: generation needs path, which FrameGuide does not have"):
        generate(model, guide, DATA, steps=3)


def test_bounds_of_sites_outside_of_plates_and_of_one_plate_alone() -> None:
    """log N(y_b; 0, 2) by a guide that is exact given w, which all episodes share and guide and model agree on."""
    y = torch.tensor([0.3, -1.0])

    def model(episodes: Any, reading: Any) -> None:
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("episodes", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(episodes: Any, reading: Any) -> None:
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("episodes", 2, dim=-1):
            pyro.sample("z", dist.Normal(y / 2, 0.5**0.5))

    weights = log_weights(model, guide, EPISODES, 4)
    torch.testing.assert_close(weights.total, dist.Normal(0.0, 2**0.5).log_prob(y).expand(4, 2))


class Counting(GeneralTask):
    """A task of a user's own: one measure more, and a sentence about it."""

    measures = (Measure("brightness", "how bright", "mean of the predicted frames", form=".3f"), *MEASURES)

    def measure(self, data: Any, evaluation: Evaluation, *, seed: int) -> Measures:
        return Measures({"brightness": float(evaluation.episodes.predicted_frames.mean())}, {})

    def sentences(self, metrics: Mapping[str, float]) -> list[str]:
        return [f"It is {metrics['brightness']:.1f} bright."] if "brightness" in metrics else []


class Walks:
    task = "test_own_pairs.Counting"


def test_a_source_names_its_task(evaluations: dict[str, Evaluation], tmp_path: Path) -> None:
    task = task_of(Walks())
    measured = task.measure(Walks(), evaluations[VAE], seed=0).metrics
    assert summary(measured, task) == [f"It is {measured['brightness']:.1f} bright."]
    (tmp_path / "evaluation.json").write_text(json.dumps(measured))
    (tmp_path / "config.yaml").write_text("data: test_own_pairs.Walks\n")
    # the module is loaded, so that the task that its class names is looked up
    page = write_report(tmp_path).read_text()
    assert "how bright" in page and "mean of the predicted frames" in page
    assert isinstance(task_of_config({"data": {"class_path": "test_own_pairs.Walks"}}), Counting)
    Walks.task = "test_own_pairs.Nothing"
    with pytest.raises(ConfigError, match=r"task: expected the import path of a class .*got 'test_own_pairs.Nothing'"):
        task_of(Walks())
