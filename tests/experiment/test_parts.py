"""Parts of a user's own train, evaluate, generate, diagnose, localise and report, from Python and the command line."""

from pathlib import Path

import my_parts
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from command_cases import SMALL, Fails

from gtm_pyro import ImageNavigation, Stage, WalledTranslation, evaluate, fit
from gtm_pyro.cli import main
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.generation import generate
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.inference import regret as of_model
from gtm_pyro.localisation.finding import landmarks
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.priors import MixturePrior, regret, shown
from gtm_pyro.priors.mixtures import NormalMixture
from gtm_pyro.reading import Reading
from gtm_pyro.testing import check_evaluation

EVERY_PART = (
    "--model.prior", "my_parts.MyPrior", "--model.prior.scale", "0.5",
    "--model.memory", "my_parts.MyMemory", "--model.memory.power", "3",
    "--model.encoder", "my_parts.MyEncoder", "--model.decoder", "my_parts.MyDecoder",
    "--model.keys", "my_parts.MyKeys", "--model.transition", "my_parts.MyTransition",
    "--guide", "my_parts.MyGuide", "--guide.width", "0.02", "--learning_rates.by_prefix", "{}",
)  # fmt: skip


def test_every_part_at_once_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "image-navigation", "--out", "run", *EVERY_PART, *SMALL]) == 0
    for command in (
        "evaluate run",
        "evaluate run --guide Smoothing --out smoothed.json",
        "generate run --steps 8 --num_observed 24 --out generated.npz",
        "diagnose run --checks khat,coverage,unseen,ppc,pit",
        "localise run --num_episodes 2 --memorised_steps 24 --observed_steps 8",
        "report run",
    ):
        assert main([*command.split(), "--trust"]) == 0, command
    for name in ("run/report.html", "smoothed.json", "generated.npz", "run/figures/khat.png", "run/localisation.json"):
        assert (tmp_path / name).is_file(), name


def own(**parts: object) -> GTMSM:
    torch.manual_seed(0)
    parts = {"encoder": FrameEncoder(4), "decoder": FrameDecoder(4)} | parts
    return GTMSM(WalledTranslation(5, scale=0.05), **parts)  # type: ignore[arg-type]


def test_a_prior_may_return_any_distribution_and_be_no_module() -> None:
    data = ImageNavigation()
    model = own(prior=my_parts.PlainPrior(0.5), memory=my_parts.BareMemory())
    guide = DeadReckoning(model)
    stages = [Stage(2, batch_size=2, num_observed=8, num_predicted=4, reading=Reading("others", "all"), max_regret=1e9)]
    run = fit(model, guide, data, stages=stages, progress=False)
    episodes = data.sample(2, num_observed=8, num_predicted=3, seed=0)
    assert check_evaluation(model, guide, episodes) is None
    assert np.isfinite(evaluate(model, guide, episodes).metrics["elbo"]) and run.posterior(episodes, 2)
    assert generate(model, guide, data, steps=4, num_observed=8).frames.shape == (4, 3, 8, 8)
    with pytest.raises(ConfigError, match="^memory: a known map needs num_entries, which BareMemory does not have"):
        landmarks(model, episodes.frames, model.remember(torch.zeros(2, 8, 2), episodes.observed_frames))


def test_what_is_shown_of_a_prior_and_what_it_regrets() -> None:
    torch.manual_seed(0)
    memory = SpatialMemory(2).write(
        torch.tensor([[[0.0], [1.0], [5.0]]]), {"loc": torch.randn(1, 3, 4)} | {"scale": torch.ones(1, 3, 4)}
    )
    allowed = torch.tensor([[True, True, True], [False, False, True], [False, False, False]])
    read = memory.read(torch.tensor([[[0.9], [0.9], [0.9]]]), allowed=allowed)
    normal = dist.Normal(torch.randn(1, 3, 4), 2.0).to_event(1)
    z, entry = shown(normal, read)
    assert torch.equal(z, normal.mean) and entry.tolist() == [[1, 2, -1]]
    mixture = MixturePrior()(read)
    assert isinstance(mixture, NormalMixture)
    assert torch.equal(shown(mixture, read)[1], torch.tensor([[1, 2, -1]]))
    value = torch.randn(1, 3, 4)
    assert torch.equal(regret(normal, read, value), mixture.regret(value))
    assert torch.equal(regret(mixture, read, value), mixture.regret(value))
    meanless = dist.TransformedDistribution(normal, [dist.transforms.AffineTransform(0.0, 2.0)])
    with pytest.raises(
        ConfigError, match="^prior: expected a distribution that knows its mean, which is shown, got Tr"
    ):
        shown(meanless, read)


def test_a_memory_stays_what_it_is_when_it_is_written() -> None:
    empty = my_parts.MyMemory(power=4.0, num_neighbors=1)
    keys = torch.tensor([[[0.0], [2.0]]])
    memory = empty.write(keys, {"loc": keys}).write(keys + 10, {"loc": keys})
    assert type(memory) is my_parts.MyMemory and memory.power == 4.0 and memory.num_entries == 4
    assert empty.num_entries == 0
    assert memory.read(torch.tensor([[[0.5]]])).squared_distance.tolist() == [[[1.0]]]
    model = own(memory=my_parts.MyMemory())
    episodes = ImageNavigation().sample(2, num_observed=8, num_predicted=3, seed=0)
    model(episodes)
    assert model.memory.reads, "the model reads by the memory's own read"  # type: ignore[attr-defined]
    assert repr(memory).startswith("MyMemory(num_neighbors=1")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("decoder", my_parts.NoFrames(), "decoder: expected methods __call__ and frames, NoFrames has no frames"),
        ("encoder", my_parts.NoFrames(), "encoder: expected methods __call__ and statistics, NoFrames has no stat"),
        ("memory", my_parts.MyKeys(), "memory: expected methods write and read, MyKeys has no write"),
        ("prior", my_parts.BareMemory(), "prior: expected methods __call__, BareMemory has no __call__"),
    ],
)
def test_what_a_part_lacks_is_said_at_once(part: str, value: object, message: str, fails: Fails) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        own(**{part: value})
    said = fails("train", "image-navigation", f"--model.{part}", f"my_parts.{type(value).__name__}")
    expected = "expected a class whose objects can be called, got my_parts.BareMemory" if part == "prior" else message
    assert f"model.{part}: {expected.partition(': ')[2] or expected}"[:60] in said


def test_what_a_later_stage_cannot_use_is_said_before_anything_is_written(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = (
        "[{steps: 2, batch_size: 2, num_observed: 12, num_predicted: 4, reading: {scored: others, num_neighbors: all}}]"
    )
    small = [*SMALL[2:], "--stages", stages]
    message = fails("train", "image-navigation", "--model.prior", "my_parts.FailsOnWholeMemories", *small)
    assert "stage 1: KeyError ('index')" in message and list(tmp_path.iterdir()) == []


def test_an_encoder_need_not_name_the_length_of_z() -> None:
    model = own(encoder=my_parts.MyEncoder(4))
    episodes = ImageNavigation().sample(2, num_observed=8, num_predicted=3, seed=0)
    model(episodes, Reading("alone"))
    assert of_model.regret(model, episodes, model.path(episodes.actions)).shape == (2, 3)
