"""Digits that come again: what is drawn, what is measured of it, and the experiment."""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")

from gtm_pyro.cli import main
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, MissingDependencyError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.guides import Filtering
from gtm_pyro.memory import Introspection
from gtm_pyro.models import GTMM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.tasks import EpisodeData, PerfectRecall
from gtm_pyro.tasks.recall import digits as pictures
from gtm_pyro.tasks.recall.digits import digits
from gtm_pyro.tasks.recall.task import RecallTask


def test_a_digit_is_for_training_or_for_testing() -> None:
    (train, train_labels), (test, test_labels) = digits("train"), digits("test")
    assert len(train) == 1438 and len(test) == 359 and train.shape[1:] == (1, 8, 8)
    assert float(train.min()) == 0 and float(train.max()) == 1
    for labels in (train_labels, test_labels):
        assert labels.unique().tolist() == list(range(10))
    whole = {image.numpy().tobytes() for image in train}
    assert sum(image.numpy().tobytes() in whole for image in test) <= 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_first_digits_come_again(split: str) -> None:
    data = PerfectRecall()
    assert isinstance(data, EpisodeData)
    episodes = data.sample(7, num_observed=15, num_predicted=5, seed=3, split=split)  # type: ignore[arg-type]
    assert episodes.frames.shape == (7, 20, 1, 8, 8) and episodes.actions.shape == (7, 20, 1)
    assert torch.equal(episodes.predicted_frames, episodes.frames[:, :5])
    known = {image.numpy().tobytes() for image in digits(split)[0]}  # type: ignore[arg-type]
    assert all(frame.numpy().tobytes() in known for frame in episodes.frames.flatten(0, 1))


def test_episodes_follow_from_the_seed() -> None:
    data = PerfectRecall()
    asked = {"num_observed": 6, "num_predicted": 2}
    before = torch.random.get_rng_state()
    first, again, other = (data.sample(4, seed=seed, **asked).frames for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first, data.sample(4, seed=1, split="test", **asked).frames)


def test_no_more_can_be_recalled_than_was_shown() -> None:
    with pytest.raises(ConfigError, match="num_predicted: expected at most the 3 digits that are memorised, got 4"):
        PerfectRecall().sample(1, num_observed=3, num_predicted=4, seed=0)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    pictures._all.cache_clear()
    with pytest.raises(MissingDependencyError, match=r'pip install "gtm-pyro\[digits\]"'):
        PerfectRecall()


def test_what_is_measured() -> None:
    """An evaluation in which three of four frames are right, and recall costs a tenth of what is new."""
    from dataclasses import replace

    torch.manual_seed(0)
    data = PerfectRecall()
    model = GTMM(
        1, Introspection(2, 4, num_slots=8), encoder=FrameEncoder(2, (1, 8, 8)), decoder=FrameDecoder(2, (1, 8, 8))
    )
    episodes = data.sample(2, num_observed=6, num_predicted=2, seed=0)
    evaluation = evaluate(model, Filtering(model), episodes, iwae_particles=0)
    assert evaluation.kl_steps is not None and evaluation.kl_steps.shape == (2, 8)
    shown = episodes.frames[:, [0, 1]].clone()
    shown[1, 1] = episodes.frames[1, 4]
    steps = torch.cat([torch.full((2, 6), 20.0), torch.tensor([[1.0, 3.0], [1.0, 3.0]])], 1)
    evaluation = replace(evaluation, predicted_frames=shown, kl_steps=steps)
    metrics, _ = RecallTask().measure(data, evaluation, seed=0)
    assert metrics == {"recall_accuracy": 0.75, "kl_recall_ratio": 0.1, "kl_last_step": 3.0}
    # the digit that is shown in the wrong place is the right one, too, if it was drawn twice
    twice = episodes.frames.clone()
    twice[1, 4] = twice[1, 1]
    evaluation = replace(
        evaluation,
        episodes=Episodes(twice, episodes.actions, 6, continuous_actions=True),
        predicted_frames=twice[:, [0, 4]],
    )
    assert RecallTask().measure(data, evaluation, seed=0).metrics["recall_accuracy"] == 0.5 + 0.25


SMALL = (
    "--steps", "3", "--evaluation.num_episodes", "2", "--evaluation.posterior_samples", "2",
    "--evaluation.posterior_episodes", "1",
)  # fmt: skip
VRNN = ("--model", "VRNN", "--model.hidden_dim", "8")


@pytest.mark.parametrize("words", [(), ("--model.memory", "DifferentiableNeuralComputer"), VRNN], ids=lambda w: w[1:2])
def test_the_experiment_trains_and_is_measured(words: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "recall-perfect", "--out", str(out), *SMALL, *words]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert {"recall_accuracy", "kl_recall_ratio", "kl_last_step", "elbo", "mse"} <= told.keys()
    assert "right item recalled" in (out / "report.html").read_text()
