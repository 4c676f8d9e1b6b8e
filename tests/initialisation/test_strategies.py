"""Starting values as a strategy that a training is given."""

from typing import Any

import pytest
import torch
from fitting_cases import SHORT, HookedData, QuickGTMSM, programs
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.initialisation import Automatic, LoopClosure, MemorySearch
from gtm_pyro.models import GTMSM
from gtm_pyro.training.fitting import fit
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition, Translation, WalledTranslation

KINDS = [
    (Translation, LoopClosure),
    (WalledTranslation, LoopClosure),
    (RotatingTranslation, MemorySearch),
    (MomentumTranslation, MemorySearch),
]


def episodes() -> Episodes:
    return HookedData().sample(8, num_observed=12, num_predicted=4, seed=0)


class Holder(nn.Module):
    """All that a strategy looks at of a model."""

    def __init__(self, transition: nn.Module | None) -> None:
        super().__init__()
        self.transition = transition


@pytest.mark.parametrize(("kind", "strategy"), KINDS)
def test_the_automatic_one_is_that_of_the_transitions_kind(
    kind: type[Transition], strategy: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    for each in (LoopClosure, MemorySearch):  # what they find takes seconds
        monkeypatch.setattr(each, "start", lambda self, transition, *given: called.append((self, transition, *given)))
    model, seen = Holder(kind(5)), episodes()
    Automatic()(model, seen)
    ((found, transition, frames, actions, num_observed, *_),) = called
    assert found == strategy() and transition is model.transition and num_observed == 12
    assert torch.equal(frames, seen.frames) and torch.equal(actions, seen.actions)


def test_what_a_model_or_a_transition_has_of_its_own_comes_first() -> None:
    called: list[Any] = []

    class Own(Translation):
        def initialise(self, frames: Tensor, actions: Tensor, num_observed: int | None = None) -> None:
            called.append((tuple(frames.shape), tuple(actions.shape), num_observed))

    class OwnModel(Holder):
        def initialise(self, episodes: Episodes) -> None:
            called.append("model")

    Automatic()(Holder(Own(5)), episodes())
    Automatic()(OwnModel(Own(5)), episodes())
    assert called == [((8, 16, 3, 8, 8), (8, 16, 5), 12), "model"]
    for model in (Holder(None), nn.Linear(1, 1), Holder(Transition(5))):
        Automatic()(model, episodes())


def test_a_strategy_for_another_kind_is_refused() -> None:
    message = "^initialisation: LoopClosure expected a model whose transition is a Translation, got Rotating"
    with pytest.raises(ConfigError, match=message):
        LoopClosure()(Holder(RotatingTranslation(5)), episodes())
    with pytest.raises(ConfigError, match="is a RotatingTranslation, got Linear, which has none"):
        MemorySearch()(nn.Linear(1, 1), episodes())
    for make in (lambda: MemorySearch(0.0), lambda: LoopClosure(gate_steps=0), lambda: LoopClosure(gate_rate=-1.0)):
        with pytest.raises(ConfigError):
            make()


def test_a_training_starts_where_the_strategy_says_or_where_its_caller_did() -> None:
    model, _ = programs()
    model.__class__ = GTMSM  # with no starting values of its own
    given = model.transition.displacement.detach().clone()
    rates = {"stages": [SHORT[0]], "steps": 1, "progress": False}
    fit(model, DeadReckoning(model), HookedData(), initialisation=None, **rates)
    assert (model.transition.displacement - given).abs().max() < 0.01, "moved by one step alone"
    assert torch.equal(model.transition.action_unit, torch.ones(5))
    seen: list[Episodes] = []

    def start(model: Any, episodes: Episodes) -> None:
        seen.append(episodes)
        model.transition.displacement.data.fill_(7.0)

    fit(model, DeadReckoning(model), HookedData(), initialisation=start, **rates)
    assert seen[0].batch_size == 64 and (model.transition.displacement > 6).all()
    assert issubclass(QuickGTMSM, GTMSM)
