"""Which steps are scored: all of them, or some that stand for all."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import Translation

BATCH, STEPS, TAU = 3, 12, 7


def case() -> tuple[GTMSM, DeadReckoning, Episodes]:
    torch.manual_seed(0)
    encoder, decoder = FrameEncoder(3, (1, 4, 4), (4, 4)), FrameDecoder(3, (1, 4, 4), (4, 4))
    model = GTMSM(Translation(2), SpatialMemory(3), encoder=encoder, decoder=decoder)
    episodes = Episodes(torch.rand(BATCH, STEPS, 1, 4, 4), torch.randn(BATCH, STEPS, 2), TAU)
    return model, DeadReckoning(model), episodes


@pytest.mark.parametrize("scored", ["predicted", "others", "earlier"])
def test_model_and_guide_score_the_same_steps(scored: str) -> None:
    model, guide, episodes = case()
    reading = Reading(scored, num_scored=4)  # type: ignore[arg-type]
    guide_trace = poutine.trace(guide).get_trace(episodes, reading)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(episodes, reading)
    now = reading.chosen(episodes, guide_trace.nodes["steps"]["value"])
    assert isinstance(now, torch.Tensor) and len(now.unique()) == 4
    assert int(now.min()) >= (TAU if scored == "predicted" else 0)
    torch.testing.assert_close(model_trace.nodes["x"]["value"], episodes.frames[:, now])
    allowed = reading.allowed(episodes, now)
    if allowed is not None:
        whole = Reading(scored).allowed(episodes)  # type: ignore[arg-type]
        assert whole is not None and allowed.equal(whole[now])
        assert not allowed[torch.arange(4), now].any()
    size = STEPS - TAU if scored == "predicted" else STEPS
    for node in (model_trace.nodes["x"], model_trace.nodes["z"], guide_trace.nodes["z"]):
        assert node["scale"] == size / 4 and node["fn"].batch_shape == (BATCH, 4)
    assert guide_trace.nodes["s"]["scale"] == 1


def test_a_part_of_the_steps_stands_for_all() -> None:
    """4.5 standard errors: one false alarm in 150,000."""
    model, guide, episodes = case()
    loss = Trace_ELBO()

    def values(reading: Reading, draws: int) -> torch.Tensor:
        pyro.set_rng_seed(1)
        with torch.no_grad():
            return torch.tensor([loss.loss(model, guide, episodes, reading) for _ in range(draws)])

    whole, part = values(Reading(), 40), values(Reading(num_scored=2), 100)
    error = (whole.var() / len(whole) + part.var() / len(part)).sqrt()
    assert abs(float(whole.mean() - part.mean())) < 4.5 * float(error)
    assert float(part.std()) > 2 * float(whole.std())


def test_as_many_as_there_are_is_all_and_none_is_refused() -> None:
    model, guide, episodes = case()
    reading = Reading(num_scored=100)
    trace = poutine.trace(guide).get_trace(episodes, reading)
    assert sorted(trace.nodes["steps"]["value"].tolist()) == list(range(STEPS - TAU))
    with pytest.raises(ConfigError, match="num_scored: expected at least 1, got 0"):
        Reading(num_scored=0)


def test_steps_that_are_near_in_time_can_be_left_out() -> None:
    model, guide, episodes = case()
    reading = Reading("others", num_scored=5, apart=3)
    steps = torch.arange(STEPS)
    allowed = reading.allowed(episodes, steps)
    assert allowed is not None and allowed.equal((steps[:, None] - steps).abs() > 3)
    assert Reading("others", apart=0).allowed(episodes, steps).equal(steps[:, None] != steps)  # type: ignore[union-attr]

    # what a step may not read does not matter to its prior
    trace = poutine.trace(guide).get_trace(episodes, reading)
    (now,) = trace.nodes["steps"]["value"][:1].tolist()
    near = (steps - now).abs() <= 3
    changed = episodes.frames.clone()
    changed[:, near] = torch.rand(BATCH, int(near.sum()), 1, 4, 4)
    s = trace.nodes["s"]["value"].squeeze(-3)
    first = torch.tensor([now])
    before, after = (
        model.latents(s, Episodes(x, episodes.actions, TAU), reading, first) for x in (episodes.frames, changed)
    )
    z = torch.randn(BATCH, 1, 3)
    torch.testing.assert_close(before.log_prob(z), after.log_prob(z), rtol=0, atol=0)


@pytest.mark.parametrize(("scored", "apart"), [("predicted", 1), ("others", -1), ("earlier", 2)])
def test_apart_is_for_others_alone(scored: str, apart: int) -> None:
    with pytest.raises(ConfigError, match=f"apart: expected 0, or a whole number over it .*others, got {apart}"):
        Reading(scored, apart=apart)  # type: ignore[arg-type]


def test_apart_leaves_something_to_read() -> None:
    model, guide, episodes = case()
    guide(episodes, Reading("others", apart=STEPS - 2))
    with pytest.raises(EpisodesError, match=f"apart: expected at most {STEPS - 2}, .* {STEPS} steps, got {STEPS - 1}"):
        guide(episodes, Reading("others", apart=STEPS - 1))


def test_alone_is_a_variational_autoencoder() -> None:
    model, guide, episodes = case()
    reading = Reading("alone")
    guide_trace = poutine.trace(guide).get_trace(episodes, reading)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(episodes, reading)
    z = model_trace.nodes["z"]
    assert z["value"].shape == (BATCH, STEPS, 3)
    prior = z["fn"]
    assert prior.mean.eq(0).all() and prior.stddev.eq(1).all()
    torch.testing.assert_close(model_trace.nodes["x"]["value"], episodes.frames)
    Trace_ELBO().loss_and_grads(model, guide, episodes, reading)
    # the path has the same density in model and guide, and nothing else depends on it
    assert all(p.grad is not None for p in (*model.encoder.parameters(), *model.decoder.parameters()))
    gradient = model.transition.displacement.grad
    assert gradient is None or float(gradient.abs().max()) == 0


def test_episodes_with_nothing_to_predict_are_told_of() -> None:
    model, guide, episodes = case()
    nothing = episodes.steps(0, STEPS, STEPS)
    for program in (model, guide):
        with pytest.raises(EpisodesError, match=f"num_observed: expected fewer than the {STEPS} steps .* got {STEPS};"):
            program(nothing)
        program(nothing, Reading("earlier"))
