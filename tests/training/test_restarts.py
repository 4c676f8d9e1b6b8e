"""Runs that are stuck after their first stage start again."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitting_cases import (
    SHORT,
    STAGES,
    TOTAL,
    HookedData,
    QuickGTMSM,
    assert_same,
    parameters,
    programs,
    stopping_at,
    train,
)
from torch import nn

from gtm_pyro.errors import ConfigError
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.training import loop as training
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.restarts import redraw_weights

WATCHED = (replace(STAGES[0], max_regret=1.0), STAGES[1])


@pytest.fixture
def regrets(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What each check for being stuck finds; the last is found again and again."""
    values = [5.0, 0.5]
    monkeypatch.setattr(training, "median_regret", lambda *_: values.pop(0) if len(values) > 1 else values[0])
    return values


def test_a_stuck_run_starts_again_and_says_so(
    tmp_path: Path, regrets: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = train(out=tmp_path / "a", stages=WATCHED)
    assert (run.restarts, run.steps) == (1, 8 + TOTAL)
    assert "step 8: stuck: 5 nats" in caplog.text and "starting again after 0 of 3" in caplog.text
    lines = {line["step"]: line for line in run.metrics}
    assert [lines[step]["stage"] for step in (8, 10, 16, 18)] == [1, 1, 1, 2]
    assert [lines[step]["restarts"] for step in (8, 10)] == [0, 1]
    assert [lines[step]["regret"] for step in (8, 10, 18)] == [None, 5.0, 0.5]
    assert lines[10]["learning_rate"] > lines[8]["learning_rate"]


def test_starting_values_are_fitted_with_nothing_frozen(regrets: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    free = []
    monkeypatch.setattr(
        QuickGTMSM, "initialise", lambda model, _: free.append(all(p.requires_grad for p in model.parameters()))
    )
    run = train(stages=[replace(WATCHED[0], frozen=("transition", "encoder")), STAGES[1]])
    assert run.restarts == 1 and free == [True, True]


def test_a_run_that_stays_stuck_goes_on_after_its_restarts(
    regrets: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    regrets[:] = [float("nan")]
    run = train(stages=WATCHED, max_restarts=2)
    assert (run.restarts, run.steps) == (2, 2 * 8 + TOTAL)
    assert "going on after 2 of 2" in caplog.text


@pytest.mark.parametrize("killed_at", [8, 10, 21])
def test_a_restarted_run_resumes_bit_for_bit(tmp_path: Path, regrets: list[float], killed_at: int) -> None:
    whole = train(stages=WATCHED)
    regrets[:] = [5.0, 0.5]
    with pytest.raises(Interrupted, match=f"step {killed_at};"):
        train(stopping_at(killed_at), out=tmp_path / "a", stages=WATCHED)
    # the check is made again only if the run was stopped between the stage's last step and the check
    regrets[:] = [5.0, 0.5] if killed_at == 8 else [0.5]
    resumed = train(out=tmp_path / "a", stages=WATCHED, resume=True, model_seed=5)
    assert (resumed.restarts, resumed.steps) == (1, whole.steps)
    assert_same(parameters(resumed), parameters(whole))


def test_fresh_weights_are_another_draw_of_the_same_law() -> None:
    model, _ = programs()
    before = {name: p.clone() for name, p in model.named_parameters()}
    redraw_weights(model)
    for name, p in model.named_parameters():
        assert torch.equal(p.flatten().sort().values, before[name].flatten().sort().values)
        shuffled = name.endswith("weight") and p.numel() > 1
        assert torch.equal(p, before[name]) != shuffled, name


def test_regret_is_checked_with_the_models_own_measure() -> None:
    run = train(stages=[replace(SHORT[0], max_regret=1e9)])
    assert run.restarts == 0
    with pytest.raises(ConfigError, match="max_regret needs remember, which Linear"):
        fit(nn.Linear(1, 1), nn.Linear(1, 1), HookedData(), stages=WATCHED)
