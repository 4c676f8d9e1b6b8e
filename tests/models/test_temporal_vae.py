"""GTMM with each memory, and the VRNN: conforming pairs, of one size, causal, with shared work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.guides import DeadReckoning, Filtering
from gtm_pyro.inference.capabilities import Capability, capabilities, predict
from gtm_pyro.memory import (
    DifferentiableNeuralComputer,
    Introspection,
    LeastRecentlyUsed,
    NeuralTuringMachine,
    StoredLatents,
)
from gtm_pyro.memory.controller import Controller
from gtm_pyro.models import GTMM, GTMSM, VRNN
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading
from gtm_pyro.testing import PairConformance
from gtm_pyro.transitions import Translation

MEMORIES = [Introspection, StoredLatents, NeuralTuringMachine, LeastRecentlyUsed, DifferentiableNeuralComputer]
SHAPE = (1, 4, 4)


def parts(latent_dim: int, frame_shape: tuple[int, int, int] = SHAPE, **options: Any) -> dict[str, Any]:
    return {
        "encoder": FrameEncoder(latent_dim, frame_shape, **options),
        "decoder": FrameDecoder(latent_dim, frame_shape, **options),
    }


def gtmm(kind: Any) -> GTMM:
    memory = kind(2, 4, num_slots=4, num_heads=2)
    return moved(GTMM(3, memory, map_dim=4, **parts(2, channels=(4, 4))))


def vrnn() -> VRNN:
    return moved(VRNN(3, 2, 4, map_dim=4, **parts(2, channels=(4, 4))))


def moved(model: Any) -> Any:
    """A prior that depends on all that it is given, as a trained one does."""
    torch.nn.init.normal_(model.prior_map.output.weight, std=0.2)
    return model


MODELS: dict[str, Callable[[], Any]] = {kind.__name__: lambda kind=kind: gtmm(kind) for kind in MEMORIES}
MODELS["VRNN"] = vrnn
PAIRS = [(name, Reading("earlier")) for name in MODELS]
PAIRS += [(name, Reading("predicted")) for name in ("Introspection", "DifferentiableNeuralComputer")]


def some_episodes(batch: int = 3, steps: int = 6, observed: int = 4) -> Episodes:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(batch, steps, *SHAPE, generator=generator)
    actions = torch.randint(3, (batch, steps), generator=generator)
    return Episodes(frames, torch.eye(3)[actions], observed)


def pair(name: str) -> tuple[Any, Filtering, Episodes]:
    torch.manual_seed(0)
    model = MODELS[name]()
    return model, Filtering(model), some_episodes()


@pytest.mark.parametrize(("name", "pair_reading"), PAIRS, ids=lambda x: x.scored if isinstance(x, Reading) else x)
class TestPairs(PairConformance):
    @pytest.fixture(autouse=True)
    def choose(self, name: str, pair_reading: Reading) -> None:
        self.name, self.reading = name, pair_reading

    def make(self) -> tuple[Any, Any, Episodes]:
        return pair(self.name)


def test_all_models_are_of_one_size() -> None:
    """Within 5% of each other at their default widths, as in Table 1."""
    kwargs = parts(32, (1, 8, 8))
    models = {kind.__name__: GTMM(1, kind(), **kwargs) for kind in MEMORIES} | {"VRNN": VRNN(1, **kwargs)}
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert max(sizes.values()) < 1.05 * min(sizes.values()), sizes


@pytest.mark.parametrize("name", MODELS)
def test_sites_plates_and_shapes(name: str) -> None:
    model, _, episodes = pair(name)
    for reading, steps in ((None, 6), (Reading("predicted"), 2)):
        trace = poutine.trace(model).get_trace(episodes, reading)
        shapes = {site: (*trace.nodes[site]["fn"].batch_shape, trace.nodes[site]["fn"].event_shape) for site in "zx"}
        assert shapes == {"z": (3, 1, (steps, 2)), "x": (3, steps, SHAPE)}
        assert trace.nodes["x"]["is_observed"]
        assert {f.name: f.dim for f in trace.nodes["x"]["cond_indep_stack"]} == {"episodes": -2, "steps": -1}


def test_some_steps_may_be_shown() -> None:
    """The sequence is whole, and the terms of the frames that were drawn are those of a full run."""
    model, guide, episodes = pair("Introspection")
    for scored in ("earlier", "predicted"):
        drawn = poutine.trace(guide).get_trace(episodes, Reading(scored))
        runs = [
            poutine.trace(poutine.replay(model, drawn)).get_trace(episodes, Reading(scored, num_scored=number))
            for number in (None, 2)
        ]
        for run in runs:
            run.compute_log_prob()
        whole, few = (run.nodes["x"]["fn"].log_prob(run.nodes["x"]["value"]) for run in runs)
        assert torch.equal(few, whole[:, runs[1].nodes["steps"]["value"]])


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_model_and_guide_roll_the_memory_once(loss: type, monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, episodes = pair("Introspection")
    reads, read = [], type(model.controller).read
    monkeypatch.setattr(type(model.controller), "read", lambda self, state, c: reads.append(1) or read(self, state, c))
    loss().differentiable_loss(model, guide, episodes).backward()
    assert len(reads) == episodes.num_steps


def test_the_closed_form_has_the_same_mean_and_less_variance() -> None:
    """Of the two losses; 5 standard errors."""
    model, guide, episodes = pair("Introspection")
    torch.manual_seed(0)
    found = {}
    with torch.no_grad():
        for loss in (Trace_ELBO, TraceMeanField_ELBO):
            found[loss] = torch.tensor([loss().loss(model, guide, episodes) for _ in range(100)])
    plain, closed = found[Trace_ELBO], found[TraceMeanField_ELBO]
    error = ((plain.var() + closed.var()) / 100).sqrt()
    assert abs(plain.mean() - closed.mean()) < 5 * error
    assert closed.var() < plain.var()


@pytest.mark.parametrize("name", MODELS)
def test_the_future_changes_nothing(name: str) -> None:
    """The prior of a step and the posterior of a step know what came up to it."""
    model, _, episodes = pair(name)
    reading, z = Reading("earlier"), torch.randn(3, 1, 6, 2, generator=torch.Generator().manual_seed(1))
    frames, actions, other = episodes.frames.clone(), episodes.actions.clone(), z.clone()
    frames[:, 3] = 1 - frames[:, 3]
    actions[:, 3] = actions[:, 3].roll(1, -1)
    other[:, :, 3] += 1
    changed = Episodes(frames, actions, 4)
    prior, posterior = (
        [f(episodes, reading).conditionals(z)[0], f(changed, reading).conditionals(other)[0]]
        for f in (model.prior, model.posterior)
    )
    for one, two in (prior, posterior):
        assert torch.equal(one[:, :, :3], two[:, :, :3])
        assert not torch.equal(one[:, :, 3], two[:, :, 3])  # its action; its frame
        assert not torch.equal(one[:, :, 4], two[:, :, 4])  # the latent before it


@torch.no_grad()
def test_the_posterior_is_bayes_rule() -> None:
    """log q(z_t) - log p(z_t) - log N(z_t; mu(x_t), sigma(x_t)²) is the same for all z_t, in float64."""
    model, _, episodes = pair("StoredLatents")
    model, episodes, reading = model.double(), episodes.to(torch.float64), Reading("earlier")
    along = torch.randn(3, 1, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = model.encoder.statistics(episodes.frames)
    parts = [
        torch.distributions.Normal(*path.conditionals(along))
        for path in (model.posterior(episodes, reading), model.prior(episodes, reading))
    ]
    parts.append(torch.distributions.Normal(seen["loc"].unsqueeze(1), seen["scale"].unsqueeze(1)))
    q, p, frame = (part.log_prob(torch.linspace(-3, 3, 7).double().reshape(-1, 1, 1, 1, 1)) for part in parts)
    gap = q - p - frame
    torch.testing.assert_close(gap, gap[:1].expand_as(gap))


def test_the_first_action_is_not_used() -> None:
    model, guide, episodes = pair("Introspection")
    actions = episodes.actions.clone()
    actions[:, 0] = actions[:, 0].roll(1, -1)
    losses = []
    for given in (episodes.actions, actions):
        torch.manual_seed(0)
        losses.append(Trace_ELBO().loss(model, guide, Episodes(episodes.frames, given, 4)))
    assert losses[0] == losses[1]


def test_a_frame_is_shown_as_the_posterior_sees_it() -> None:
    model, guide, episodes = pair("Introspection")
    shown = evaluate(model, guide, episodes, iwae_particles=0).reconstructed_frames
    z = model.posterior(episodes, Reading("predicted")).expected().z
    torch.testing.assert_close(shown, model.decoder.frames(z).squeeze(1).detach())


@pytest.mark.parametrize("name", MODELS)
def test_prediction_goes_on_from_what_was_memorised(name: str) -> None:
    model, guide, episodes = pair(name)
    assert {Capability.IMAGINES, Capability.RECONSTRUCTS, Capability.KL_STEPS} <= capabilities(model, guide)
    torch.manual_seed(0)
    expected = [predict(model, guide, episodes.observed, episodes.predicted_actions).frames for _ in range(2)]
    sampled = [
        predict(model, guide, episodes.observed, episodes.predicted_actions, sample=True).frames for _ in range(2)
    ]
    assert expected[0].shape == (3, 2, *SHAPE) and torch.equal(*expected)
    assert not torch.equal(*sampled)
    path = model.prior(episodes, Reading("predicted")).expected()
    torch.testing.assert_close(expected[0], model.decoder.frames(path.z.squeeze(1)))
    other = Episodes(episodes.frames.flip(0), episodes.actions, 4)
    assert not torch.equal(predict(model, guide, other.observed, other.predicted_actions).frames, expected[0])


def test_the_divergence_of_each_step() -> None:
    model, guide, episodes = pair("StoredLatents")
    torch.manual_seed(0)
    steps = guide.kl_steps(episodes)
    assert steps.shape == (3, 6) and bool((steps > 0).all())
    torch.manual_seed(0)
    trace = poutine.trace(guide).get_trace(episodes)
    scored = poutine.trace(poutine.replay(model, trace)).get_trace(episodes)
    found = torch.distributions.kl_divergence(trace.nodes["z"]["fn"], scored.nodes["z"]["fn"])
    torch.testing.assert_close(found.detach().squeeze(1), steps.sum(1))


@pytest.mark.parametrize("reading", [Reading("others"), Reading("alone"), Reading("earlier", 3)], ids=str)
def test_readings_that_a_memory_of_steps_does_not_have_are_refused(reading: Reading) -> None:
    model, guide, episodes = pair("Introspection")
    for run in (model, guide):
        with pytest.raises(ConfigError, match="reading: expected scored 'earlier' or 'predicted' .* for GTMM, got"):
            run(episodes, reading)


def test_parts_of_other_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="encoder.latent_dim: expected 32 as the controller has it, got 5"):
        GTMM(1, Introspection(), encoder=FrameEncoder(5, SHAPE))
    with pytest.raises(ConfigError, match="memory: expected latent_dim 5 and hidden_dim 7, got 5 and 8"):
        Controller(5, 1, 7, Introspection(5, 8))


def test_actions_of_another_length_are_refused() -> None:
    model, _, episodes = pair("VRNN")
    with pytest.raises(ConfigError, match=r"actions: expected \(batch, time, 3\), got \(3, 6, 2\)"):
        model(Episodes(episodes.frames, torch.eye(2)[torch.zeros(3, 6, dtype=torch.long)], 4))


def test_a_loop_of_ones_own_trains_it() -> None:
    """Pyro's SVI with nothing around it."""
    torch.manual_seed(0)
    model = GTMM(1, Introspection(2, 16, num_slots=6, num_heads=2), **parts(2))
    guide = Filtering(model)
    svi = SVI(model, guide, Adam({"lr": 1e-2}), TraceMeanField_ELBO())
    greys = torch.rand(64, 3, 1, 1, 1).expand(-1, -1, *SHAPE)[:, [0, 1, 2, 0, 1, 2]]
    episodes = Episodes(greys, torch.zeros(64, 6, dtype=torch.long), 3, num_actions=1)
    losses = [svi.step(episodes) for _ in range(40)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_guide_of_another_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="guide: DeadReckoning is for models with path and encode, VRNN has no path"):
        DeadReckoning(vrnn())
    with pytest.raises(ConfigError, match="guide: Filtering is for models with prior and posterior, GTMSM has no post"):
        Filtering(GTMSM(Translation(2), **parts(3)))  # type: ignore[arg-type]
