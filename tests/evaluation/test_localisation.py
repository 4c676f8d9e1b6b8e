"""Global localisation: what is measured on walks whose answer is known, the command, and what is refused."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_cases import Fails
from torch import Tensor

from gtm_pyro import ImageNavigation, SavedEpisodes, WalledTranslation
from gtm_pyro.cli import main
from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.errors import ConfigError, EpisodesError, GTMPyroError
from gtm_pyro.evaluation.localisation import Localisation, frames_until_found, localise, most_probable, two_walks
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide
from gtm_pyro.models import GTMSM


class OpenBox(WalledTranslation):
    """The walls of an image of 9 x 9 cells and the true moves: nothing has to be learnt for these tests."""

    def __init__(self) -> None:
        super().__init__(5)
        moves = torch.tensor([[0.0, 0.0, -1.0, 1.0, 0.0], [-1.0, 1.0, 0.0, 0.0, 0.0]])
        self.displacement.data.copy_(moves)

    def gate_logit(self, s: Tensor) -> Tensor:
        return 40 * (4.5 - s.abs().amax(-1, keepdim=True))


@pytest.fixture(scope="module")
def model() -> GTMSM:
    """Encodings of untrained networks tell frames without noise apart."""
    torch.manual_seed(0)
    return GTMSM(OpenBox()).eval()


@pytest.fixture(scope="module")
def walks() -> tuple[Episodes, Episodes]:
    kidnapper = ImageNavigation(start="random", kidnap=0.5)
    numbers: dict[str, Any] = {"num_episodes": 6, "memorised_steps": 400, "observed_steps": 48}
    return two_walks(ImageNavigation(), kidnapper, **numbers, split="train")


@pytest.fixture(scope="module")
def result(model: GTMSM, walks: tuple[Episodes, Episodes]) -> Localisation:
    guide = ParticleGuide(model, 24, kidnap=0.05)
    found = localise(model, guide, *walks, mapper=DeadReckoning(model), kidnapped=24)
    assert guide.memory is None and guide.anywhere is False
    return found


def test_agents_are_found_and_found_again(result: Localisation) -> None:
    metrics = result.metrics
    assert metrics["map_rmse"] < 0.05 and metrics["localised_in_map"] == metrics["recovered_in_map"] == 1
    assert metrics["num_episodes"] == 6 and metrics["observed_steps"] == metrics["steps_after_kidnap"] == 24
    assert 40 < metrics["map_cells"] <= 81 and 0.5 < metrics["steps_in_map"] <= 1
    assert metrics["localised_blind"] < metrics["localised"] and metrics["recovered_blind"] < 0.5
    assert metrics["median_error"] < 0.1 and 1 <= metrics["steps_to_recover"] <= 24
    assert not result.found[:, 24].all() or result.error[:, 24].max() > 0.5
    assert torch.allclose(result.weight.sum(-1), torch.ones(6, 48), atol=1e-4)
    by_step = result.by_step()["localised_by_step"]
    assert by_step[23] == pytest.approx(metrics["localised"]) and by_step[-1] == pytest.approx(metrics["recovered"])


def test_without_a_place_for_jumps_a_kidnapped_agent_stays_lost(model: GTMSM, walks: tuple[Episodes, Episodes]) -> None:
    lost = localise(model, ParticleGuide(model, 24), *walks, mapper=DeadReckoning(model), kidnapped=24)
    assert lost.metrics["recovered"] < 0.5
    assert lost.metrics["steps_to_recover"] == math.inf


def test_nothing_is_said_of_a_kidnap_that_did_not_happen(model: GTMSM, walks: tuple[Episodes, Episodes]) -> None:
    first, second = walks[0][:2], walks[1][:2]
    found = localise(model, ParticleGuide(model, 8, kidnap=0.05), first, second, mapper=DeadReckoning(model))
    assert "recovered" not in found.metrics and found.metrics["observed_steps"] == 48


def test_the_truth_counts_in_its_own_world(model: GTMSM, walks: tuple[Episodes, Episodes]) -> None:
    """With the maps of other worlds the same frames must not lead to the same places."""
    first, second = walks[0], walks[1][torch.tensor([1, 2, 3, 4, 5, 0])]
    found = localise(model, ParticleGuide(model, 24, kidnap=0.05), first, second, mapper=DeadReckoning(model))
    assert found.metrics["localised"] < 0.5


def test_the_disc_with_the_most_weight_is_the_estimate() -> None:
    points = torch.tensor([[0.0, 0.0], [5.0, 5.0], [5.2, 5.0], [5.0, 5.2]])
    weight = torch.tensor([0.4, 0.2, 0.2, 0.2])
    estimate, held = most_probable(points.expand(1, 3, 4, 2), weight.expand(1, 3, 4), 0.5)
    assert torch.allclose(estimate, torch.tensor([5.0667, 5.0667]).expand(1, 3, 2), atol=1e-3)
    assert torch.allclose(held, torch.full((1, 3), 0.6))


def test_found_is_found_for_good() -> None:
    found = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 0]]).bool()
    assert frames_until_found(found).tolist() == [1, 4, 3, math.inf]


def test_the_file_is_json_without_nan(result: Localisation, tmp_path: Path) -> None:
    result.metrics["steps_to_recover"] = math.inf
    result.save(tmp_path / "new" / "found.json", settings={"seed": 0})
    stored = json.loads((tmp_path / "new" / "found.json").read_text(), parse_constant=pytest.fail)
    assert stored["steps_to_recover"] is None and stored["settings"] == {"seed": 0}
    assert len(stored["localised_by_step"]) == 48 and len(stored["error_at_the_end"]) == 6


def test_bad_arguments_say_what_and_where(model: GTMSM, walks: tuple[Episodes, Episodes], tmp_path: Path) -> None:
    first, second = walks
    mapper, guide = DeadReckoning(model), ParticleGuide(model, 8)
    blind = Episodes(first.frames, first.actions, first.num_observed, worlds=first.worlds)
    cases: list[tuple[type[GTMPyroError], str, tuple[Any, ...], dict[str, Any]]] = [
        (ConfigError, "guide: localisation needs filter, which DeadReckoning", (model, mapper, *walks), {}),
        (ConfigError, "which LandmarkCorrected does not", (model, LandmarkCorrected(model), *walks), {}),
        (EpisodesError, "second: expected 6 walks", (model, guide, first, second[:2]), {}),
        (EpisodesError, "first: expected episodes with poses", (model, guide, blind, second), {}),
        (ConfigError, "kidnapped: expected a step from 1 to 47", (model, guide, *walks), {"kidnapped": 48}),
        (ConfigError, "within: expected a number over 0", (model, guide, *walks), {"within": 0.0}),
    ]
    for kind, message, arguments, more in cases:
        with pytest.raises(kind, match=message):
            localise(*arguments, mapper=mapper, **more)
    save_shards(first[:2], tmp_path / "shards")
    saved = SavedEpisodes(str(tmp_path / "shards"))
    numbers: dict[str, Any] = {"num_episodes": 1, "memorised_steps": 8}
    with pytest.raises(ConfigError, match="SavedEpisodes has no revisit"):
        two_walks(saved, saved, **numbers, observed_steps=4)
    with pytest.raises(ConfigError, match="observed_steps: expected a whole number of at least 1, got 0"):
        two_walks(ImageNavigation(), ImageNavigation(start="random"), **numbers, observed_steps=0)


@pytest.fixture(scope="module")
def unevaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped before its evaluation: localisation takes parameters alone."""
    folder = tmp_path_factory.mktemp("runs") / "unevaluated"
    made_by_evaluation = ("evaluation*", "posterior.nc", "report.html", "figures")
    return Path(shutil.copytree(run, folder, ignore=shutil.ignore_patterns(*made_by_evaluation)))


FEW = ("--num_episodes", "2", "--memorised_steps", "40", "--observed_steps", "6", "--num_hypotheses", "8")


def test_the_command_writes_numbers_and_a_figure(unevaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (unevaluated / "config.yaml").read_bytes()
    assert main(["localise", str(unevaluated), *FEW, "--kidnap", "--slip", "0.2"]) == 0
    stored = json.loads((unevaluated / "localisation.json").read_text())
    assert "recovered" in capsys.readouterr().out and (unevaluated / "config.yaml").read_bytes() == before
    assert len(stored["localised_by_step"]) == 6 + 32 and stored["steps_after_kidnap"] == 32
    assert stored["settings"]["slip"] == 0.2 and stored["step"] == 6
    assert stored["settings"]["guide"]["guide.num_hypotheses"] == "8"
    assert (unevaluated / "localisation.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_repeats_itself_and_leaves_the_run_alone(unevaluated: Path, tmp_path: Path) -> None:
    held = sorted(path.name for path in unevaluated.iterdir())
    for name in ("a", "b"):
        assert main(["localise", str(unevaluated), *FEW, "--guide.kidnap", "0.1", "--out", str(tmp_path / name)]) == 0
    assert sorted(path.name for path in unevaluated.iterdir()) == held
    texts = [(tmp_path / name / "localisation.json").read_text() for name in "ab"]
    assert texts[0] == texts[1] and "recovered" not in json.loads(texts[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--observed_steps", "0"), "--observed_steps: expected a whole number of at least 1, got '0'"),
        (("--guide", "DeadReckoning"), "guide: localisation needs filter, which DeadReckoning does not have"),
        (("--slip", "1.5"), "--slip: expected a probability from 0 up to but not including 1, got '1.5'"),
        (("--split", "all"), "split: expected 'train' or 'test', got 'all'"),
        (("--data", "SavedEpisodes", "--data.directory", "shards"), "SavedEpisodes has no revisit"),
    ],
)
def test_the_command_refuses_in_one_line(
    unevaluated: Path, words: tuple[str, ...], message: str, tmp_path: Path, fails: Fails
) -> None:
    data = ImageNavigation().sample(1, num_observed=8, num_predicted=4, seed=0)
    save_shards(data, tmp_path / "shards")
    words = tuple(str(tmp_path / word) if word == "shards" else word for word in words)
    assert message in fails("localise", str(unevaluated), "--out", str(tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()
