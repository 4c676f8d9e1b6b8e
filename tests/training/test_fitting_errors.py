"""Fitting: numbers that are not finite, and settings that cannot be right."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting_cases import SHORT, STAGES, HookedData, assert_same, at_step, parameters, programs, train
from pyro.infer import Trace_ELBO

from gtm_pyro.errors import ConfigError, DeviceError, NonFiniteLossError, RunFolderError
from gtm_pyro.reading import Reading
from gtm_pyro.storage import checkpoints
from gtm_pyro.training import loop as training
from gtm_pyro.training.fitting import fit, resolve_device
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.stages import LearningRates, Schedule


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path: Path) -> None:
    bad = at_step(7, lambda batch: replace(batch, frames=batch.frames * torch.nan, validate=False))
    message = r"step 7: the loss is nan; the last good state is step 6 in"
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        train(bad, out=tmp_path / "a")
    assert "\n" not in str(caught.value)
    latest = checkpoints.load_latest(tmp_path / "a" / "checkpoint")
    assert latest is not None and latest.step == 6
    assert all(bool(tensor.isfinite().all()) for tensor in latest.tensors.values())
    assert_same(parameters(train(out=tmp_path / "a", resume=True)), parameters(train()))


def test_losses_that_were_not_looked_at_are_before_a_checkpoint() -> None:
    """On a GPU the loss is looked at when a line is logged or a checkpoint is due, and the first bad step is named."""
    model, guide = programs()
    learner = Learner(model, guide, Trace_ELBO(), LearningRates(), None)
    run = training.Training(learner, HookedData(), Schedule(SHORT), 0, torch.device("cpu"), 0, {}, None, 3, 2)
    run._unchecked = [(step, torch.tensor([loss, 1.0])) for step, loss in ((5, 1.0), (6, torch.nan), (7, torch.nan))]
    with pytest.raises(NonFiniteLossError, match="step 6: the loss is nan"):
        run.save()


def test_parameters_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The last update is followed by no loss that would show it."""
    message = "step 1: model.* is not finite after the update; .* is step 0 in .*; a new run with lower learning rates"
    with pytest.raises(NonFiniteLossError, match=message):
        train(out=tmp_path / "a", stages=SHORT, steps=1, learning_rates=LearningRates(1e39))
    latest = checkpoints.load_latest(tmp_path / "a" / "checkpoint")
    assert latest is not None and latest.step == 0


def test_a_constant_may_be_infinite(tmp_path: Path) -> None:
    model, guide = programs()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    fit(model, guide, HookedData(), stages=SHORT, steps=1, out=tmp_path / "a", progress=False)


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    model, guide = programs()
    model.decoder.latent_layer.weight.register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(NonFiniteLossError, match="step 1: the gradient's norm is .*; nothing was saved"):
        fit(model, guide, HookedData(), stages=SHORT, progress=False)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"stages": []}, "stages"),
        ({"seed": -1}, "seed"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"log_every": 0}, "log_every"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"resume": True}, "resume"),
        ({"learning_rates": LearningRates(by_prefix={"transitoin": 1.0})}, "transitoin"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(**settings)


def test_a_missing_device_is_named() -> None:
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(DeviceError, match=f"device: .*{name}"):
            resolve_device(name)


def test_resume_needs_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is nothing"):
        train(out=tmp_path / "missing", resume=True)
    assert not (tmp_path / "missing").exists()


def test_what_torch_refuses_is_one_line_that_names_the_stage(tmp_path: Path) -> None:
    model, guide = programs()
    model.initial_scale.fill_(-1)
    with pytest.raises(ConfigError, match=r"^stage 1: Expected parameter scale [^\n]*[^:\n]$"):
        fit(model, guide, HookedData(), stages=SHORT, progress=False)


def test_a_memory_read_that_cannot_be_answered_fails_before_the_first_step() -> None:
    data = HookedData()
    stages = [SHORT[0], replace(STAGES[1], reading=Reading("predicted", 13))]
    with pytest.raises(ValueError, match="num_neighbors"):
        train(data, stages=stages)
    assert data.calls == 2
