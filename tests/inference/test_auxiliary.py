"""True displacements as an objective besides the bound."""

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from fitting_cases import SHORT, HookedData, programs
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.inference import DisplacementRegression
from gtm_pyro.inference.randomness import module_parameters
from gtm_pyro.initialisation.regression import regress
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.stages import LearningRates
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition

BATCH, TAU, TOTAL, ACTIONS, WEIGHT = 3, 10, 16, 4, 2.5


def make(transition: Transition | None = None) -> tuple[GTMSM, DeadReckoning]:
    torch.manual_seed(0)
    encoder, decoder = FrameEncoder(4, channels=(6, 6)), FrameDecoder(4, channels=(6, 6))
    transition = transition or RotatingTranslation(ACTIONS, scale=0.05)
    model = GTMSM(transition, encoder=encoder, decoder=decoder, keys=HeadingKeys(0.5))
    return model, DeadReckoning(model)


def episodes_of(pose_dim: int | None = 3) -> Episodes:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(BATCH, TOTAL, 3, 8, 8, generator=generator)
    actions = torch.eye(ACTIONS)[torch.randint(ACTIONS, (BATCH, TOTAL), generator=generator)]
    poses = None if pose_dim is None else torch.randn(BATCH, TOTAL, pose_dim, generator=generator).cumsum(1)
    names = None if pose_dim is None else ("x", "y", "heading")[:pose_dim]
    return Episodes(frames, actions, TAU, poses, pose_names=names)


def wrong_by(model: GTMSM, episodes: Episodes) -> Tensor:
    """Squared errors of all displacements, an episode and a step at a time."""
    poses, total = episodes.poses, torch.zeros(())
    assert poses is not None
    for b in range(BATCH):
        for t in range(1, TOTAL):
            before, move = poses[b, t - 1], poses[b, t] - poses[b, t - 1]
            cos, sin = before[2].cos(), before[2].sin()
            true = torch.stack([cos * move[0] + sin * move[1], -sin * move[0] + cos * move[1], move[2]])
            total = total + (model.transition.displacement @ episodes.actions[b, t] - true).square().sum()
    return total


def step(auxiliary: DisplacementRegression | None, loss: Any) -> tuple[float, dict[str, Tensor | None]]:
    """The loss in nats a frame and the gradients of one step under the same noise."""
    model, guide = make()
    with module_parameters(model, guide):
        learner = Learner(model, guide, loss, LearningRates(), None, auxiliary=auxiliary)
        torch.manual_seed(2)
        value, _ = learner.gradients(episodes_of(), Reading())
    return float(value), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "loss",
    [Trace_ELBO(), Trace_ELBO(num_particles=3), TraceGraph_ELBO(), RenyiELBO(num_particles=2)],
    ids=["one", "particles", "graph", "renyi"],
)
def test_a_step_has_the_errors_of_displacements_once_and_their_gradients(loss: Any) -> None:
    (plain, before), (weighted, after) = step(None, loss), step(DisplacementRegression(WEIGHT), loss)
    model, frames = make()[0], BATCH * (TOTAL - TAU)
    by_hand = WEIGHT * wrong_by(model, episodes_of()) / frames
    assert weighted - plain == pytest.approx(float(by_hand.detach()), rel=1e-3)
    by_hand.backward()
    for name, gradient in after.items():
        own, theirs = model.get_parameter(name).grad, before[name]
        assert (own is not None) == (name == "transition.displacement")
        expected = theirs if own is None or theirs is None else theirs + own
        assert (gradient is None) == (expected is None)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pose_dim, got", [(None, "none"), (2, r"\(3, 16, 2\)")])
def test_displacements_need_true_poses_with_a_heading(pose_dim: int | None, got: str) -> None:
    with pytest.raises(EpisodesError, match=rf"poses: expected \(batch, time, 3\).*got {got}"):
        DisplacementRegression(1.0)(*make(), episodes_of(pose_dim))


def test_what_has_no_displacements_is_refused_before_a_step() -> None:
    with pytest.raises(ConfigError, match="DisplacementRegression expected a transition with a heading, got Walled"):
        fit(*programs(), HookedData(), stages=SHORT, auxiliary=DisplacementRegression(1.0), progress=False)
    with pytest.raises(ConfigError, match="with a heading, got Linear, which has none"):
        DisplacementRegression(1.0)(nn.Linear(1, 1), None, episodes_of())
    for weight, unit, name in ((0.0, 1.0, "weight"), (math.nan, 1.0, "weight"), (1.0, -1.0, "pose_unit")):
        with pytest.raises(ConfigError, match=name):
            DisplacementRegression(weight, unit)


class Walk(HookedData):
    """Episodes of an agent whose displacements are known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.true = RotatingTranslation(5)

    def sample(self, *args: Any, **kwargs: Any) -> Episodes:
        seen = super().sample(*args, **kwargs)
        with torch.no_grad():
            start, still = torch.zeros(len(seen), 3), torch.zeros(*seen.actions.shape[:2], 3)
            poses = self.true.rollout(start, seen.actions, still)
        return replace(seen, poses=poses, pose_names=("x", "y", "heading"))


def test_a_training_starts_where_true_displacements_are_explained_and_says_what_it_adds() -> None:
    data, (model, guide) = Walk(), make(RotatingTranslation(5))
    stages = [replace(SHORT[0], steps=2)]
    run = fit(model, guide, data, stages=stages, auxiliary=DisplacementRegression(WEIGHT), log_every=1, progress=False)
    torch.testing.assert_close(model.transition.displacement, data.true.displacement, rtol=0, atol=0.01)
    assert all(0 <= line["auxiliary"] < 0.1 for line in run.metrics)
    told = run.metrics[0]
    bound = told["log_likelihood"] - told["kl_z"] - told["kl_s"]
    assert math.isfinite(bound) and told["loss"] == pytest.approx(told["auxiliary"] - bound, rel=0.5)
    other, guide = make(RotatingTranslation(5))
    found: list[object] = []
    fit(
        other,
        guide,
        data,
        stages=stages,
        auxiliary=DisplacementRegression(WEIGHT),
        initialisation=lambda model, episodes: found.append(model),
        progress=False,
    )
    assert found == [other], "a strategy that was named is the one that is used"


def test_starting_values_are_the_models_own_the_transitions_own_or_by_regression(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    class Own(RotatingTranslation):
        def regress(self, actions: Tensor, displacements: Tensor) -> None:
            called.append(f"regress {tuple(displacements.shape)}")

    objective = DisplacementRegression(1.0)
    with caplog.at_level(logging.WARNING):
        objective.initialise(make(Own(ACTIONS))[0], episodes_of())
    model = make()[0]
    model.initialise = lambda episodes: called.append("model")  # type: ignore[method-assign]
    objective.initialise(model, episodes_of())
    assert called == ["regress (3, 15, 3)", "model"] and caplog.text == ""


@pytest.mark.parametrize("kind", [RotatingTranslation, MomentumTranslation])
def test_least_squares_explains_what_another_agent_did(kind: type[RotatingTranslation]) -> None:
    torch.manual_seed(0)
    true, fitted, actions = kind(ACTIONS), kind(ACTIONS), episodes_of().actions
    displacements = true.controls(actions)[:, 1:].detach()
    regress(fitted, actions, displacements)
    torch.testing.assert_close(fitted.controls(actions)[:, 1:], displacements, rtol=0.01, atol=1e-3)
