"""Which checks apply to which pair, by what it can do and never by the names of its sites; bad arguments."""

import numpy as np
import pytest
import torch
from exact_guides import Exact, twin, walks
from own_pairs import PAIRS
from pyro.poutine.messenger import Messenger

from gtm_pyro.diagnostics import CHECKS, diagnose
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.guides import AutoGuide
from gtm_pyro.reading import Reading
from gtm_pyro.tasks import ImageNavigation


def test_bad_arguments_are_named():
    model = twin()
    episodes, guide = walks(model, batch=2), Exact(model)
    with pytest.raises(ConfigError, match="checks: expected some of khat, .*, got 'khta'; did you mean khat"):
        diagnose(model, guide, episodes, checks=["khta"])
    with pytest.raises(ConfigError, match="num_draws: expected a whole number of at least 100, got 7"):
        diagnose(model, guide, episodes, num_draws=7)
    with pytest.raises(ConfigError, match="guide: khat needs path, which Identity does not have"):
        diagnose(model, torch.nn.Identity(), episodes, checks=["khat"])
    with pytest.raises(ConfigError, match="expected a model and a guide that run, got TypeError"):
        diagnose(torch.nn.Identity(), guide, episodes, checks=["pit"])
    with pytest.raises(EpisodesError, match="num_observed: expected fewer than the 9 steps for ppc, got 9"):
        diagnose(model, guide, episodes.observed, checks=["ppc"])


@pytest.mark.parametrize(
    ("kind", "found", "reasons"),
    [
        ("a plain autoencoder", {"pit"}, {"khat": "guide: khat needs path, which FrameGuide does not have"}),
        ("a memory without a path", {"pit"}, {"sbc": "guide: sbc needs path, which FrameGuide does not have"}),
        (
            "a path without a memory",
            {"khat", "pit", "sbc"},
            {
                "coverage": "model: coverage needs transition, which Drift does not have",
                "ppc": "model: ppc needs transition, which Drift does not have",
            },
        ),
    ],
)
def test_pairs_without_path_or_memory_have_the_checks_that_apply(kind, found, reasons, tmp_path):
    torch.manual_seed(0)
    model_class, guide_class = PAIRS[kind]
    model = model_class()
    episodes = ImageNavigation(cuts_per_image=4).sample(3, num_observed=6, num_predicted=5, seed=0)
    diagnosis = diagnose(model, guide_class(model), episodes, num_draws=100, num_simulations=40)
    assert set(diagnosis.findings) == found and set(diagnosis.advice) == set(CHECKS)
    assert {name: diagnosis.skipped[name] for name in reasons} == reasons
    assert all("\n" not in line for line in diagnosis.skipped.values())
    assert all(np.isfinite(value) for value in diagnosis.findings["pit"].numbers.values())
    assert len(diagnosis.save_figures(tmp_path)) == len(found) == len(diagnosis.datasets())


def test_an_exact_pair_of_other_names_is_calibrated():
    """The tractable twin with its sites renamed has the numbers that it had."""
    model = twin()
    episodes = walks(model, batch=2)
    renamed = {"s": "place", "z": "code", "x": "frame"}

    def other(program):
        module = Renamed(program, renamed)
        for name in ("path", "transition"):
            if hasattr(program, name):
                object.__setattr__(module, name, getattr(program, name))
        return module

    options = {"seed": 1, "num_draws": 100, "num_simulations": 40}
    first = diagnose(model, Exact(model), episodes, **options)
    second = diagnose(other(model), other(Exact(model)), episodes, **options)
    assert first.numbers == second.numbers and set(second.findings) == set(CHECKS)


class Renamed(torch.nn.Module):
    def __init__(self, program, names):
        super().__init__()
        self.program, self.names = program, names

    def forward(self, *args):
        with Rename(self.names):
            return self.program(*args)


class Rename(Messenger):
    def __init__(self, names):
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg):
        msg["name"] = self.names.get(msg["name"], msg["name"])


def test_an_automatic_guide_has_no_check_but_its_reason():
    model = twin()
    episodes = walks(model, batch=3)
    guide = AutoGuide(model)
    guide(episodes, Reading())
    found = diagnose(model, guide, episodes)
    assert not found.findings and set(found.skipped) == set(CHECKS)
    assert "AutoGuide has a posterior of the 3 episodes" in found.skipped["khat"]
