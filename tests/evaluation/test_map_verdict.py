"""Whether a training found the map is told from frames and actions alone."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from command_cases import SMALL
from fitting_cases import STAGES, HookedData, QuickGTMSM, programs
from torch import nn

from gtm_pyro.cli import main
from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.evaluation.map_verdict import doubt, map_measures
from gtm_pyro.report.page import summary
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.fitting import Run, fit

MOVES = torch.tensor([[0.0, 0, -1, 1, 0], [-1, 1, 0, 0, 0]])
MIXED_UP = MOVES[:, [2, 1, 0, 4, 3]]
DATA = ImageNavigation(cuts_per_image=16, walls=False)


class NoPoses(HookedData):
    """True poses would be of no use: there are none."""

    def sample(self, *args: object, **kwargs: object) -> Episodes:
        e = DATA.sample(*args, **kwargs)  # type: ignore[arg-type]
        return Episodes(e.frames, e.actions, e.num_observed)


def trained(displacement: torch.Tensor, steps: int, monkeypatch: pytest.MonkeyPatch) -> Run:
    def initialise(self: QuickGTMSM, episodes: Episodes) -> None:
        with torch.no_grad():
            self.transition.displacement.copy_(displacement)

    monkeypatch.setattr(QuickGTMSM, "initialise", initialise)
    return fit(*programs(latent_dim=32), NoPoses(), stages=STAGES, steps=steps, progress=False)


@pytest.mark.parametrize("steps", [1, 20])
def test_a_run_that_has_the_map_says_nothing(
    steps: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = trained(MOVES, steps, monkeypatch)
    assert run.doubt is None and caplog.text == ""


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("wrong", ["mixed up", "too small to be seen"])
def test_a_run_that_has_not_says_so_at_its_end(
    wrong: str, steps: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Moves of a thousandth of a state's unit are what actions in hundredths used to lead to."""
    with caplog.at_level(logging.WARNING):
        run = trained(MIXED_UP if wrong == "mixed up" else 1e-3 * MOVES, steps, monkeypatch)
    assert run.doubt is not None and run.doubt.startswith("It has not found the map")
    assert f"{run.doubt} More steps, another seed or other starting values may help" in caplog.records[-1].getMessage()


def test_evaluation_measures_the_same_without_poses() -> None:
    episodes = NoPoses().sample(8, num_observed=24, num_predicted=24, seed=0, split="test")
    model, guide = programs(latent_dim=32)
    for displacement, found in ((MOVES, True), (MIXED_UP, False)):
        model.transition.displacement.data.copy_(displacement)
        metrics = evaluate(model, guide, episodes, iwae_particles=0, chunk_size=4).metrics
        alone = map_measures(model, guide, episodes)
        assert (doubt(metrics) is None) == (doubt(alone) is None) == found
        assert metrics["regret"] == pytest.approx(alone["regret"], rel=0.5, abs=0.01)
        assert ("It has not found the map" in " ".join(summary(metrics))) != found


def test_verdicts_by_their_numbers() -> None:
    found = {"regret": 0.002, "regret_by_chance": 3.0, "mse": 2.0, "mean_frame_mse_all": 1.0}
    assert doubt(found) is None
    assert "costs 0.31 nats a frame at the median, and 3 at" in str(doubt(found | {"regret": 0.31}))
    assert doubt(found | {"regret": 0.29}) is None, "under a tenth of what chance costs"
    # off a grid no two frames are of one place: reading by place costs something, and yet predictions are good
    off_grid = found | {"regret": 0.45, "regret_by_chance": 0.7}
    assert doubt(off_grid | {"familiar_error": 0.12}) is None
    assert doubt(off_grid | {"familiar_error": 0.6}) is not None and doubt(off_grid) is not None
    # encodings that are all alike, and priors without entries to weigh: regret says nothing
    for blind in ({"regret": 0.0, "regret_by_chance": 0.0}, {"regret": math.nan, "regret_by_chance": math.nan}):
        assert "squared errors 2 and 1" in str(doubt(found | blind))
        assert doubt(found | blind | {"mse": 0.9}) is None
    assert doubt({}) is None and doubt({"regret": None, "mse": None}) is None


def test_programs_that_cannot_be_evaluated_get_no_verdict() -> None:
    assert map_measures(nn.Linear(1, 1), nn.Linear(1, 1), DATA.sample(1, num_observed=2, num_predicted=1, seed=0)) == {}


LOST = """
from gtm_pyro.transitions import WalledTranslation

class Lost(WalledTranslation):
    def initialise(self, *given, **more) -> None:
        self.displacement.data.mul_(0.01)
"""


def test_the_command_says_so_in_its_last_lines_and_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lost_case.py").write_text(LOST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--model.transition", "lost_case.Lost", "--learning_rates.by_prefix", "{}"]
    assert main(["train", "image-navigation", "--out", "run", *SMALL, *words]) == 0
    assert "It has not found the map" in "\n".join(capfd.readouterr().out.splitlines()[-6:])
    assert "It has not found the map" in (tmp_path / "run" / "report.html").read_text()
    numbers = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert numbers["regret"] > 0.1 and numbers["regret_by_chance"] > 0.1 and numbers["cell_size"] == 1


def test_a_training_does_not_fail_for_want_of_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def imagine(*_: object, **__: object) -> None:
        raise TypeError("another signature")

    monkeypatch.setattr(QuickGTMSM, "imagine", imagine)
    assert trained(MOVES, 1, monkeypatch).doubt is None
