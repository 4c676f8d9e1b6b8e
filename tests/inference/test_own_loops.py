"""A loop of a user's own, around Pyro's SVI, says what goes wrong silently in it."""

import copy
import math
import warnings
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from gtm_pyro import ImageNavigation, Stage, WalledTranslation, evaluate, fit
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, NonFiniteLossError
from gtm_pyro.guides import DeadReckoning, Smoothing
from gtm_pyro.inference.own_loops import StoredParametersWarning
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.testing import check_pair

DATA = ImageNavigation(cuts_per_image=4)
EPISODES = DATA.sample(2, num_observed=8, num_predicted=3, seed=0)


def new() -> GTMSM:
    torch.manual_seed(0)
    return GTMSM(WalledTranslation(5, scale=0.05), encoder=FrameEncoder(4), decoder=FrameDecoder(4))


def train(model: GTMSM, guide: Any = DeadReckoning, episodes: Episodes = EPISODES) -> int:
    """Two steps; returns how many parameters moved."""
    before = [p.detach().clone() for p in model.parameters()]
    svi = SVI(model, guide(model), pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    for _ in range(2):
        svi.step(episodes)
    return sum(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_a_second_model_that_would_learn_nothing_is_warned_of() -> None:
    first = new()
    everything = len(list(first.parameters()))
    assert train(first) == everything
    second = new()
    with pytest.warns(
        StoredParametersWarning, match="GTMSM: .* transition.displacement and 18 more; .*clear_param_store"
    ):
        assert train(second) == 0
    with pytest.warns(StoredParametersWarning):
        check_pair(second, DeadReckoning(second), EPISODES, leave_out=_ALL)
    with pytest.warns(StoredParametersWarning):
        train(copy.deepcopy(first))
    pyro.clear_param_store()
    assert train(new()) == everything


def test_only_a_loop_that_trains_by_the_store_is_warned() -> None:
    train(new())
    other = new()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stages = [Stage(2, batch_size=2, num_observed=8, num_predicted=3)]
        fit(other, DeadReckoning(other), DATA, stages=stages, progress=False)
        evaluate(other, DeadReckoning(other), EPISODES)
        # another kind of loop trains the modules' own parameters
        Trace_ELBO().differentiable_loss(other, DeadReckoning(other), EPISODES).backward()
    assert other.transition.displacement.grad is not None


def spoilt(name: str, *index: int) -> Episodes:
    tensors: dict[str, Tensor] = {"frames": EPISODES.frames.clone(), "actions": EPISODES.actions.clone()}
    tensors[name][index] = math.nan
    return Episodes(**tensors, num_observed=8, validate=False)


@pytest.mark.parametrize("guide", [DeadReckoning, Smoothing])
@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        (spoilt("frames", 1, 9, 0, 2, 3), r"^frames\[1, 9, 0, 2, 3\]: expected a finite value, got nan"),
        (spoilt("actions", 1, 5, 2), r"^actions\[1, 5, 2\]: expected a finite value, got nan"),
    ],
)
def test_a_value_that_is_not_finite_is_named(guide: Any, episodes: Episodes, message: str) -> None:
    model = new()
    with pytest.raises(EpisodesError, match=message):
        train(model, guide, episodes)
    with pytest.raises(EpisodesError, match=message):
        check_pair(model, guide(model), episodes)
    with pytest.raises(EpisodesError, match=message):
        evaluate(model, guide(model), episodes)


def test_a_training_that_meets_one_later_names_it() -> None:
    class Spoilt(ImageNavigation):
        calls = 0

        def sample(self, *args: Any, **options: Any) -> Episodes:
            episodes = super().sample(*args, **options)
            episodes.frames[1, 9] = math.nan
            self.calls += 1
            return episodes if self.calls > 4 else super().sample(*args, **options)

    model = new()
    stages = [Stage(9, batch_size=2, num_observed=8, num_predicted=3)]
    with pytest.raises(
        NonFiniteLossError, match=r"^step \d: .*; frames\[1, 9, 0, 0, 0\]: expected a finite value, got nan"
    ):
        fit(model, DeadReckoning(model), Spoilt(cuts_per_image=4), stages=stages, progress=False)


_ALL = [f"check_{name}" for name in (
    "warnings log_probs densities repeatable particles vectorized_particles float64 devices bound evaluation "
    "finite_gradients gradients saving").split()]  # fmt: skip
