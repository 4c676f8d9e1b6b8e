"""A loss is any object with differentiable_loss or loss_and_grads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fitting_cases import HookedData, stopping_at
from pyro.infer import Trace_ELBO
from torch import nn
from toy_pairs import STAGE, PlainNormal, Toy, ToyGuide, draw, toys

from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.losses import loss_value
from gtm_pyro.inference.randomness import module_parameters
from gtm_pyro.reading import Reading
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.stages import LearningRates


class Annealed:
    """The negative ELBO times the share of steps that were taken."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def at_step(self, step: int, total: int) -> None:
        self.told.append((step, total))

    def differentiable_loss(self, *arguments: Any) -> torch.Tensor:
        share = self.told[-1][0] / self.told[-1][1] if self.told else 1.0
        loss: torch.Tensor = share * Trace_ELBO().differentiable_loss(*arguments)
        return loss


class Gradients:
    def loss_and_grads(self, *arguments: Any) -> float:
        loss = Trace_ELBO().differentiable_loss(*arguments)
        loss.backward()
        return float(loss.detach())


def train(loss: Any, **options: Any) -> list[float]:
    torch.manual_seed(0)
    run = fit(*toys(), HookedData(), stages=[STAGE], steps=3, loss=loss, log_every=1, progress=False, **options)
    return [line["loss"] for line in run.metrics]


def test_losses_of_a_users_own_train() -> None:
    plain, by_grads, loss = train(Trace_ELBO()), train(Gradients()), Annealed()
    annealed = train(loss)
    assert by_grads == pytest.approx(plain, rel=1e-6)
    assert annealed[0] == 0 and annealed[1] > 0
    assert loss.told == [(0, 3), (1, 3), (2, 3)]


def test_a_loss_hears_of_the_steps_before_a_resume(tmp_path: Path) -> None:
    whole = train(Annealed())
    options: dict[str, Any] = {"stages": [STAGE], "steps": 3, "log_every": 1, "progress": False, "checkpoint_every": 1}
    torch.manual_seed(0)
    model, guide = toys()
    with pytest.raises(Interrupted):
        fit(model, guide, stopping_at(2), loss=Annealed(), out=tmp_path / "run", **options)
    loss = Annealed()
    torch.manual_seed(0)
    run = fit(*toys(), HookedData(), loss=loss, out=tmp_path / "run", resume=True, **options)
    assert [line["loss"] for line in run.metrics] == whole
    assert loss.told[0][0] > 0


def test_an_object_that_is_no_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss: expected differentiable_loss or loss_and_grads, Linear has neither"):
        loss_value(nn.Linear(1, 1), *toys(), draw(), Reading())


def test_draws_without_a_gradient_have_pyros_own_gradient_from_one_run_a_step() -> None:
    """Found in one run of the guide before the first step; the steps are Pyro's."""
    episodes, gradients = draw(), []
    for by_pyro in (False, True):
        model, guide = Toy(), ToyGuide(PlainNormal)
        calls: list[int] = []
        guide.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        learner = Learner(model, guide, Trace_ELBO(num_particles=2), LearningRates(), None)
        found = []
        with module_parameters(model, guide):
            for step in range(2):
                torch.manual_seed(step)
                if by_pyro:
                    learner.optimizer.zero_grad()
                    (Trace_ELBO(num_particles=2).differentiable_loss(model, guide, episodes, Reading()) / 8).backward()
                else:
                    learner.gradients(episodes, Reading())
                found.append([p.grad.clone() for p in learner.parameters.values() if p.grad is not None])
        gradients.append(found)
        assert len(calls) == (4 if by_pyro else 5)
    assert all(torch.equal(g, h) for a, b in zip(*gradients, strict=True) for g, h in zip(a, b, strict=True))
