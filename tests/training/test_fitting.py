"""Fitting: gradients, losses, starting values, seeds, what is logged."""

import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from fitting_cases import SHORT, STAGES, TOTAL, HookedData, assert_same, parameters, programs, train
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn

from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.guides.landmark import LandmarkCorrected
from gtm_pyro.inference.randomness import Purpose, callers_random_state, derived_seed, module_parameters
from gtm_pyro.reading import Reading
from gtm_pyro.storage import checkpoints
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.progress import elbo_terms
from gtm_pyro.training.stages import LearningRates


def episodes(seed: int = 0) -> Any:
    return HookedData().sample(2, num_observed=8, num_predicted=8, seed=seed)


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


def test_metrics_lines(tmp_path: Path) -> None:
    run = train(out=tmp_path / "a")
    assert [line["step"] for line in run.metrics] == list(range(2, TOTAL + 1, 2))
    assert [line["stage"] for line in run.metrics] == [1] * 4 + [2] * 6
    expected = "step stage seconds loss log_likelihood kl_z kl_s learning_rate grad_norm restarts regret"
    assert set(run.metrics[0]) == set(expected.split())
    assert run.metrics == checkpoints.RunFolder(tmp_path / "a").read_metrics()
    rates = [line["learning_rate"] for line in run.metrics]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 2e-5


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


def test_a_guide_that_trains_as_another_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model, _ = programs()
    fit(model, LandmarkCorrected(model), HookedData(), stages=STAGES[:1], steps=1, progress=False)
    assert "guide: LandmarkCorrected is trained along the path of Smoothing" in caplog.text
    caplog.clear()
    train(stages=STAGES[:1], steps=1)
    assert "guide:" not in caplog.text
