"""Fitting: gradients, seeds, stages, restarts, signals, losses that are not finite."""

import logging
import os
import random
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from fitting_cases import STAGES, TOTAL, HookedData, assert_same, at_step, parameters, programs, train
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn

from gtm_pyro import checkpoints, training
from gtm_pyro.errors import ConfigError, DeviceError, NonFiniteLossError, RunFolderError
from gtm_pyro.fitting import fit, resolve_device
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.interrupts import Interrupted, StopSignals
from gtm_pyro.learner import Learner
from gtm_pyro.progress import elbo_terms
from gtm_pyro.randomness import Purpose, callers_random_state, derived_seed, module_parameters
from gtm_pyro.reading import Reading
from gtm_pyro.restarts import redraw_weights
from gtm_pyro.stages import LearningRates, Schedule, Stage

SHORT = STAGES[:1]


def episodes(seed: int = 0) -> Any:
    return HookedData().sample(2, num_observed=8, num_predicted=8, seed=seed)


# --- gradients ---------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_elbo_in_nats_a_frame() -> None:
    model, guide = programs()
    batch, reading = episodes(), Reading("predicted", 3)
    with module_parameters(model, guide):
        learner = Learner(model, guide, Trace_ELBO(), LearningRates(), clip_norm=None)
        torch.manual_seed(3)
        loss, norm = learner.gradients(batch, reading)
        found = [p.grad.clone() for p in learner.parameters.values() if p.grad is not None]
        torch.manual_seed(3)
        learner.optimizer.zero_grad()
        expected = Trace_ELBO()(model, guide)(batch, reading) / (2 * 8)
        expected.backward()
    assert torch.allclose(loss, expected.detach())
    gradients = [p.grad for p in learner.parameters.values() if p.grad is not None]
    assert len(gradients) > 10
    for mine, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.allclose(norm, torch.cat([g.flatten() for g in gradients]).norm())


def test_clipping_bounds_the_gradient_and_reports_it_unclipped() -> None:
    model, guide = programs()
    with module_parameters(model, guide):
        norms = []
        for clip_norm in (None, 0.5):
            learner = Learner(model, guide, Trace_ELBO(), LearningRates(), clip_norm)
            torch.manual_seed(0)
            norms.append(learner.gradients(episodes(), Reading("predicted", 3))[1])
    assert norms[0] > 0.5 and torch.equal(*norms)
    clipped = torch.cat([p.grad.flatten() for p in learner.parameters.values() if p.grad is not None]).norm()
    assert float(clipped) == pytest.approx(0.5, rel=1e-3)


def test_logged_terms_add_up_to_the_loss() -> None:
    model, guide = programs()
    batch, reading = episodes(), Reading("predicted", 3)
    torch.manual_seed(3)
    loss = Trace_ELBO().loss(model, guide, batch, reading) / (2 * 8)
    pyro.clear_param_store()
    torch.manual_seed(3)
    terms = elbo_terms(model, guide, batch, reading)
    assert terms.keys() == {"log_likelihood", "kl_s", "kl_z"}
    assert terms["kl_z"] + terms["kl_s"] - terms["log_likelihood"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=2),
        TraceMeanField_ELBO(),
        TraceGraph_ELBO(),
        RenyiELBO(alpha=0.0, num_particles=2),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # some of these losses warn about a prior without a known KL
def test_other_losses_train_every_parameter(loss: ELBO) -> None:
    before = dict(programs()[0].named_parameters())
    run = train(loss=loss, stages=SHORT, steps=3)
    same = [name for name, p in run.model.named_parameters() if torch.equal(p, before[name])]
    assert not same
    assert all(np.isfinite(line["loss"]) for line in run.metrics)


class ScaledGuide(DeadReckoning):
    """A guide with a parameter whose name the model has as well, and one that it makes on its first call."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.transition = nn.Linear(1, 1)
        self.late: nn.Parameter | None = None

    def forward(self, batch: Any, reading: Any = None) -> None:
        if self.late is None:
            self.late = nn.Parameter(torch.zeros(()))
        super().forward(batch, reading)
        value = self.transition(torch.ones(1)).sum() + self.late
        pyro.factor("penalty", -value.square(), has_rsample=False)


def test_a_guide_with_parameters_of_its_own() -> None:
    model, _ = programs()
    guide = ScaledGuide(model)
    rates = LearningRates(by_prefix={"guide.transition": 1e-2, "transition": 1e-3})
    run = fit(model, guide, HookedData(), stages=SHORT, learning_rates=rates, progress=False)
    assert run.steps == 8 and guide.late is not None and float(guide.late.detach()) != 0


def test_an_attempt_begins_with_the_models_own_starting_values() -> None:
    model, guide = programs()
    model.initialise = lambda batch: seen.append(batch)  # type: ignore[method-assign]
    seen: list[Any] = []
    fit(model, guide, HookedData(), stages=STAGES, steps=3, progress=False)
    assert [(batch.batch_size, batch.num_steps) for batch in seen] == [(64, 16)]


def test_training_lowers_the_loss() -> None:
    """Seeded, so it has no false alarms; the loss falls to about a third."""
    stage = replace(SHORT[0], steps=150, batch_size=4)
    run = train(stages=[stage], learning_rates=LearningRates(3e-3), log_every=15)
    assert run.metrics[-1]["loss"] < 0.6 * run.metrics[0]["loss"]


def test_a_run_gives_its_posterior() -> None:
    pytest.importorskip("arviz_base")
    run = train(stages=SHORT, steps=1)
    tree = run.posterior(episodes(), num_samples=3)
    assert tree["posterior"]["s"].shape[-2:] == (16, 2)


# --- seeds -------------------------------------------------------------------------------------------------------


def test_the_seed_decides_everything() -> None:
    first, second, other = (train(stages=SHORT, seed=seed) for seed in (0, 0, 1))
    assert_same(parameters(first), parameters(second))
    assert any(not torch.equal(value, parameters(other)[name]) for name, value in parameters(first).items())


def test_derived_seeds_differ() -> None:
    seeds = {derived_seed(seed, step, purpose) for seed in range(5) for step in range(50) for purpose in Purpose}
    assert len(seeds) == 5 * 50 * len(Purpose)


def test_the_callers_state_is_left_alone() -> None:
    model, guide = programs()
    pyro.clear_param_store()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(2))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    handler = signal.getsignal(signal.SIGTERM)
    fit(model, guide, HookedData(), stages=SHORT, steps=2, progress=False)
    assert (random.random(), np.random.rand()) == expected[:2] and torch.equal(torch.rand(2), expected[2])
    assert not list(pyro.get_param_store().keys())
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not pyro.settings.get("module_local_params")


def test_random_state_is_put_back_after_an_error() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with pytest.raises(KeyError), callers_random_state(torch.device("cpu")):
        torch.rand(5)
        raise KeyError
    assert torch.equal(torch.rand(1), expected)


# --- stages and rates --------------------------------------------------------------------------------------------


def test_schedule_scales_stages_to_the_total() -> None:
    stages = [Stage(1500), Stage(1000)]
    assert Schedule(stages).ends == (1500, 2500)
    for total in (1, 2, 7, 999, 10_000):
        schedule = Schedule(stages, total)
        numbers = [schedule.index(position) for position in range(total)]
        assert schedule.ends[-1] == len(numbers) == total
        assert numbers.count(0) == pytest.approx(0.6 * total, abs=0.5)


def test_schedule_names_the_stage_that_ended_unless_it_was_cut_short() -> None:
    stages = [Stage(10), Stage(20)]
    schedule = Schedule(stages)
    assert schedule.ended(10) is stages[0] and schedule.ended(30) is stages[1]
    assert schedule.ended(0) is schedule.ended(9) is schedule.ended(11) is None
    assert Schedule(stages, 12).ended(4) is None
    assert Schedule(stages, 15).ended(5) is stages[0]


def test_decay_is_a_cosine_from_one_to_zero() -> None:
    schedule = Schedule([Stage(10), Stage(30)])
    assert schedule.decay(0) == 1
    assert schedule.decay(20) == pytest.approx(0.5)
    assert schedule.decay(40) == pytest.approx(0)


def test_the_longest_prefix_sets_the_rate() -> None:
    names = ["model.transition.displacement", "model.transition.gate.weight", "model.encoder.weight", "guide.scale"]
    tensors = {name: torch.zeros(1) for name in names}
    rates = LearningRates(1.0, {"transition": 2.0, "transition.gate": 3.0, "guide": 4.0})
    found = {name: g["lr"] for g in rates.groups(tensors) for name in names if g["params"][0] is tensors[name]}
    assert found == dict(zip(names, (2.0, 3.0, 1.0, 4.0), strict=True))
    with pytest.raises(ConfigError, match="transition.displacement.*got 'displacement'"):
        LearningRates(1.0, {"displacement": 1.0}).groups(tensors)


def test_rates_reach_the_optimiser() -> None:
    run = train(stages=SHORT, steps=1, learning_rates=LearningRates(1e-9, {"transition.displacement": 0.5}))
    model, _ = programs()
    fresh = train(stages=SHORT, steps=1, learning_rates=LearningRates(1e-9))
    moved = (run.model.transition.displacement - fresh.model.transition.displacement).detach().abs().max()
    assert float(moved) == pytest.approx(0.5, rel=1e-3)  # Adam's first step is the rate
    assert torch.allclose(run.model.encoder.first.linear.weight, model.encoder.first.linear.weight, atol=1e-6)


def test_metrics_lines(tmp_path: Path) -> None:
    run = train(out=tmp_path / "a")
    assert [line["step"] for line in run.metrics] == list(range(2, TOTAL + 1, 2))
    assert [line["stage"] for line in run.metrics] == [1] * 4 + [2] * 6
    expected = "step stage seconds loss log_likelihood kl_z kl_s learning_rate grad_norm restarts regret"
    assert set(run.metrics[0]) == set(expected.split())
    assert run.metrics == checkpoints.RunFolder(tmp_path / "a").read_metrics()
    rates = [line["learning_rate"] for line in run.metrics]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 2e-5


# --- stuck runs --------------------------------------------------------------------------------------------------

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
    with pytest.raises(ConfigError, match="method regret"):
        fit(nn.Linear(1, 1), nn.Linear(1, 1), HookedData(), stages=WATCHED)


# --- signals -----------------------------------------------------------------------------------------------------


def stopping_at(step: int, signum: int = signal.SIGTERM) -> HookedData:
    """Sends a signal to this process while a step is taken."""
    return at_step(step, lambda _: os.kill(os.getpid(), signum))


@pytest.mark.parametrize("step", [1, 5, TOTAL])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tmp_path: Path, signum: signal.Signals, step: int) -> None:
    with pytest.raises(Interrupted, match=f"stopped at step {step}; to continue, resume {tmp_path}") as caught:
        train(stopping_at(step, signum), out=tmp_path / "a")
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value.exit_status == 128 + signum
    latest = checkpoints.load_latest(tmp_path / "a" / "checkpoint")
    assert latest is not None and latest.step == step


def test_a_second_signal_stops_at_once() -> None:
    with pytest.raises(Interrupted, match="second signal"), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_fit_works_outside_the_main_thread() -> None:
    runs: list[Any] = []
    thread = threading.Thread(target=lambda: runs.append(train(stages=SHORT, steps=1)))
    thread.start()
    thread.join()
    assert runs[0].steps == 1


# --- bad numbers and bad input -----------------------------------------------------------------------------------


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


def test_stage_and_rates_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        Stage(1, batch_size=0)
    with pytest.raises(ConfigError, match="max_regret"):
        Stage(1, max_regret=-1.0)
    with pytest.raises(ConfigError, match="transition"):
        LearningRates(by_prefix={"transition": 0.0})


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
