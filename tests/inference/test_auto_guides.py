"""Pyro's autoguides on a fixed batch: they fit it, and refuse every other."""

from typing import Any, get_args

import pyro
import pytest
import torch
from fitting_cases import DATA
from pyro.infer import Trace_ELBO

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.guides.auto import AutoGuide, Kind
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading
from gtm_pyro.tasks import EpisodeData, FixedEpisodes
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.stages import LearningRates, Stage
from gtm_pyro.transitions import Translation

STAGE = Stage(60, batch_size=2, num_observed=4, num_predicted=3, reading=Reading("predicted", 3))
# Drawn scales of the path are compared within 6 standard errors of 4,000 draws: a false alarm in 1e-7 of seeds.
DRAWS = 4000


class StillGTMSM(GTMSM):
    """Keeps its first displacements, as a model without a way to start does."""

    def initialise(self, episodes: Episodes) -> None:
        pass


def model() -> GTMSM:
    torch.manual_seed(0)
    return StillGTMSM(
        Translation(5),
        encoder=FrameEncoder(2, channels=(4, 4)),
        decoder=FrameDecoder(2, channels=(4, 4)),
        reading=STAGE.reading,
    )


def draw(data: EpisodeData = DATA, seed: int = 0, batch_size: int = 2) -> Episodes:
    return data.sample(batch_size, num_observed=4, num_predicted=3, seed=seed)


@pytest.fixture(autouse=True)
def _no_shared_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_fixed_batch_is_fitted(kind: Kind) -> None:
    program, data = model(), FixedEpisodes(DATA)
    guide = AutoGuide(program, kind)
    rates = LearningRates(default=3e-2)
    run = fit(program, guide, data, stages=[STAGE], learning_rates=rates, log_every=10, progress=False)
    losses = [line["loss"] for line in run.metrics]
    assert losses[-1] < losses[0] - 10  # nats a frame
    assert any(name.startswith("auto.") for name, _ in guide.named_parameters())
    path = guide.path(draw(data))
    assert path.batch_shape == (2, 1) and path.event_shape == (7, 2)
    assert path.log_prob(path.rsample((5,))).shape == (5, 2, 1)
    weights = log_weights(program, guide, draw(data), num_particles=2, reading=STAGE.reading).total
    assert weights.shape == (2, 2) and weights.isfinite().all()


@pytest.mark.parametrize("kind", sorted(set(get_args(Kind)) - {"AutoDelta"}))
def test_the_path_is_the_margin_of_what_is_drawn(kind: Kind) -> None:
    torch.manual_seed(0)
    guide, episodes = AutoGuide(model(), kind, init_scale=0.1), draw()
    guide(episodes)
    with torch.no_grad():
        for name, parameter in guide.named_parameters():  # correlated, and other scales for every entry
            parameter.add_((0.3 if "loc" not in name else 1.0) * torch.randn_like(parameter))
        with pyro.plate("draws", DRAWS, dim=-3):
            drawn = guide(episodes)["s"]
        path = guide.path(episodes)
        margin = path.sample((DRAWS,))
    assert drawn.shape == margin.shape == (DRAWS, 2, 1, 7, 2)
    error = (drawn.var(0) + margin.var(0)).div(DRAWS).sqrt()
    assert ((drawn.mean(0) - margin.mean(0)).abs() < 6 * error).all()
    moments = [x.sub(x.mean(0)).flatten(3) for x in (drawn, margin)]
    products = [(x.unsqueeze(-1) * x.unsqueeze(-2)) for x in moments]
    error = (products[0].var(0) + products[1].var(0)).div(DRAWS).sqrt()
    assert ((products[0].mean(0) - products[1].mean(0)).abs() < 7 * error).all()


def test_new_episodes_in_each_step_are_refused() -> None:
    program = model()
    with pytest.raises(
        ConfigError, match="of the 2 episodes of 7 steps that it first saw, and these are others.*Fixed"
    ):
        fit(program, AutoGuide(program), DATA, stages=[STAGE], progress=False)
    program = model()
    stages = [STAGE, Stage(5, batch_size=3, num_observed=4, num_predicted=3, reading=STAGE.reading)]
    with pytest.raises(ConfigError, match="these are others"):
        fit(program, AutoGuide(program), FixedEpisodes(DATA), stages=stages, progress=False)
    stages[1] = Stage(5, batch_size=2, num_observed=4, num_predicted=3, reading=Reading("others"))
    program = model()
    with pytest.raises(ConfigError, match="made for .*predicted.*, got .*others.*; give it one stage"):
        fit(program, AutoGuide(program), FixedEpisodes(DATA), stages=stages, progress=False)


def test_it_has_no_posterior_of_held_out_episodes() -> None:
    program = model()
    guide = AutoGuide(program)
    with pytest.raises(ConfigError, match="no posterior before it was fitted"):
        evaluate(program, guide, draw())
    guide(draw())
    with pytest.raises(ConfigError, match="these are others"):  # the first steps of the same, without the last
        evaluate(program, guide, draw())


def test_it_begins_again_where_the_model_is() -> None:
    program = model()
    guide, episodes = AutoGuide(program), draw()
    guide.initialise(episodes)
    parameters = dict(guide.named_parameters())
    with torch.no_grad():
        program.transition.displacement.copy_(torch.eye(2, 5))
    far = Trace_ELBO().loss(program, guide, episodes)
    guide.initialise(episodes)
    assert Trace_ELBO().loss(program, guide, episodes) < far / 10
    assert all(parameters[name] is parameter for name, parameter in guide.named_parameters())
    with pytest.raises(ConfigError, match="these are others"):
        guide.initialise(draw(seed=1))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="guide.kind: expected one of AutoDelta, .*, got 'AutoIAFNormal'"):
        AutoGuide(model(), "AutoIAFNormal")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="init_scale: expected a number over 0, got 0"):
        AutoGuide(model(), init_scale=0.0)
    with pytest.raises(ConfigError, match="seed: expected a whole number"):
        FixedEpisodes(DATA, seed=-1)


def test_fixed_episodes_are_the_same_whatever_the_seed() -> None:
    data = FixedEpisodes(DATA, seed=3)
    assert isinstance(data, EpisodeData)
    assert (data.action_names, data.action_dim, data.frame_shape) == (DATA.action_names, 5, (3, 8, 8))
    first, second, theirs = draw(data, 0), draw(data, 1), draw(DATA, 3)
    assert torch.equal(first.frames, second.frames) and torch.equal(first.frames, theirs.frames)
    held_out = data.sample(2, num_observed=4, num_predicted=3, seed=0, split="test")
    assert not torch.equal(first.frames, held_out.frames)
