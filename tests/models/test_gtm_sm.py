"""The GTM-SM and dead reckoning as Pyro programs: sites, densities, bounds, gradients."""

import math
import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.util import site_is_subsample

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, MemoryReadError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.inference.regret import regret
from gtm_pyro.initialisation import Automatic
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.priors import BackgroundPrior, MixturePrior
from gtm_pyro.reading import Reading
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import WalledTranslation

READINGS = [Reading(), Reading("others", "all"), Reading("others", 3), Reading("earlier", "all"), Reading("earlier", 3)]
DATA = ImageNavigation(cuts_per_image=4)


@pytest.fixture(autouse=True)
def pyro_defaults():
    pyro.clear_param_store()
    with warnings.catch_warnings(), pyro.validation_enabled(True):
        warnings.simplefilter("error", UserWarning)
        yield
    pyro.clear_param_store()


def make(num_neighbors: int = 5, **kwargs) -> tuple[GTMSM, DeadReckoning]:
    torch.manual_seed(0)
    model = GTMSM(
        WalledTranslation(5, scale=0.05),
        memory=SpatialMemory(num_neighbors=num_neighbors),
        encoder=FrameEncoder(4, channels=(6, 6)),
        decoder=FrameDecoder(4, channels=(6, 6), **kwargs),
    )
    torch.nn.init.normal_(model.transition.displacement)
    return model, DeadReckoning(model)


def walk(batch: int = 3, observed: int = 12, predicted: int = 6) -> Episodes:
    return DATA.sample(batch, num_observed=observed, num_predicted=predicted, seed=0)


def traces(model, guide, episodes, reading):
    torch.manual_seed(1)
    drawn = poutine.trace(guide).get_trace(episodes, reading)
    scored = poutine.trace(poutine.replay(model, drawn)).get_trace(episodes, reading)
    drawn.compute_log_prob()
    scored.compute_log_prob()
    return drawn, scored


@pytest.mark.parametrize("reading", READINGS)
def test_three_sites_with_the_shapes_of_the_docstring(reading: Reading) -> None:
    model, guide = make()
    episodes = walk()
    drawn, scored = traces(model, guide, episodes, reading)
    steps = 6 if reading.scored == "predicted" else 18
    latent = {name for name in scored.stochastic_nodes if not site_is_subsample(scored.nodes[name])}
    assert latent | set(scored.observation_nodes) == {"s", "z", "x"}
    assert scored.nodes["s"]["value"].shape == (3, 1, 18, 2)
    assert scored.nodes["z"]["value"].shape == (3, steps, 4)
    assert scored.nodes["z"]["fn"].batch_shape == drawn.nodes["z"]["fn"].batch_shape == (3, steps)
    assert scored.nodes["x"]["fn"].event_shape == (3, 8, 8)
    assert torch.isfinite(scored.log_prob_sum())


def reference_loss(model, episodes, reading, z, s) -> torch.Tensor:
    """The negative ELBO of one draw, written as sums over episodes, steps and entries."""
    s = s.detach().squeeze(1)
    scored = list(range(episodes.num_steps))[reading.scored_steps(episodes)]
    total = torch.zeros(())
    for b in range(episodes.batch_size):
        for row, t in enumerate(scored):
            if reading.scored == "predicted":
                entries = list(range(episodes.num_observed))
            elif reading.scored == "others":
                entries = [i for i in range(episodes.num_steps) if i != t]
            else:
                entries = list(range(t))
            distance = torch.stack([(s[b, t] - s[b, i]).square().sum() for i in entries]) if entries else torch.zeros(0)
            k = model.memory.num_neighbors if reading.num_neighbors is None else reading.num_neighbors
            near = range(len(entries)) if k == "all" else distance.argsort()[:k].tolist()
            weights = torch.tensor([1 / (float(distance[i]) + model.prior.delta) for i in near])
            terms = []
            for weight, i in zip(weights / weights.sum(), near, strict=True):
                q = model.encoder(episodes.frames[b, entries[i]])
                terms.append(weight.log() + q.log_prob(z[b, row]))
            log_prior = (
                torch.logsumexp(torch.stack(terms), 0) if terms else dist.Normal(0.0, 1.0).log_prob(z[b, row]).sum()
            )
            log_q = model.encoder(episodes.frames[b, t]).log_prob(z[b, row])
            total = total - model.decoder(z[b, row]).log_prob(episodes.frames[b, t]) - log_prior + log_q
    return total


@pytest.mark.parametrize("reading", READINGS)
def test_the_loss_is_eq_1_minus_eq_2_written_out(reading: Reading) -> None:
    model, guide = make()
    episodes = walk(batch=2)
    drawn, _ = traces(model, guide, episodes, reading)
    torch.manual_seed(1)
    loss = Trace_ELBO().loss(model, guide, episodes, reading)
    expected = reference_loss(model, episodes, reading, drawn.nodes["z"]["value"], drawn.nodes["s"]["value"])
    assert loss == pytest.approx(float(expected.detach()), rel=2e-4)


def test_svi_works_bare() -> None:
    model, guide = make()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 3e-3}), Trace_ELBO())
    episodes = walk(batch=8, observed=40, predicted=10)
    losses = [svi.step(episodes) for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    names = {name.replace("$$$", ".") for name in pyro.get_param_store()}
    assert names == {name for name, _ in model.named_parameters()}
    assert all((p != start[name]).any() for name, p in model.named_parameters())


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=2),
        RenyiELBO(alpha=0.0, num_particles=3, vectorize_particles=True, max_plate_nesting=2),
    ],
)
@pytest.mark.parametrize("reading", READINGS)
def test_particles_are_vectorised(loss, reading: Reading) -> None:
    model, guide = make()
    assert math.isfinite(loss.loss(model, guide, walk(), reading))


def test_particles_do_not_leak_into_each_other() -> None:
    model, guide = make()
    episodes = walk()
    torch.manual_seed(3)
    with pyro.plate("particles", 4, dim=-3):
        drawn = poutine.trace(guide).get_trace(episodes)
        scored = poutine.trace(poutine.replay(model, drawn)).get_trace(episodes)
    scored.compute_log_prob()
    for particle in range(4):
        one = poutine.trace(guide).get_trace(episodes)
        for site in "sz":
            one.nodes[site]["value"] = drawn.nodes[site]["value"][particle].detach()
        single = poutine.trace(poutine.replay(model, one)).get_trace(episodes)
        single.compute_log_prob()
        for site in "zx":
            torch.testing.assert_close(
                single.nodes[site]["log_prob"], scored.nodes[site]["log_prob"][particle], rtol=1e-4, atol=1e-3
            )


@pytest.mark.parametrize("num_neighbors", ["all", 3])
def test_a_growing_memory_never_reads_the_future(num_neighbors) -> None:
    """So prod_t p(z_t | s, earlier frames) is a density, and the ELBO a bound on log p(x_{1:T} | a_{1:T})."""
    model, guide = make()
    episodes, reading = walk(batch=2, observed=12, predicted=8), Reading("earlier", num_neighbors)
    drawn, scored = traces(model, guide, episodes, reading)
    frames = episodes.frames.clone()
    frames[:, 9:] = frames[:, 9:].flip(1)
    changed = replace(episodes, frames=frames)
    again = poutine.trace(poutine.replay(model, drawn)).get_trace(changed, reading)
    again.compute_log_prob()
    before, after = scored.nodes["z"]["log_prob"], again.nodes["z"]["log_prob"]
    torch.testing.assert_close(before[:, :10], after[:, :10], rtol=0, atol=1e-4)
    assert (before[:, 10:] - after[:, 10:]).abs().max() > 0.01


def test_elbo_gradients_equal_those_of_the_written_out_loss() -> None:
    model, guide = make()
    model.double()
    episodes = walk(batch=2).to(torch.float64)
    torch.manual_seed(1)
    loss = Trace_ELBO().differentiable_loss(model, guide, episodes)
    parameters = dict(model.named_parameters())
    got = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    torch.manual_seed(1)
    path = model.path(episodes.actions)
    s = path.rsample()
    q = model.encoder(episodes.frames[:, 12:])
    z = q.rsample()
    keys, queries = s[:, 0, :12], s[:, 0, 12:]
    distance = (queries.unsqueeze(-2) - keys.unsqueeze(-3)).square().sum(-1)
    near = distance.topk(5, largest=False)
    stats = model.encoder.statistics(episodes.frames[:, :12])
    batch = torch.arange(2)[:, None, None]
    component = (
        dist.Normal(stats["loc"][batch, near.indices], stats["scale"][batch, near.indices])
        .log_prob(z.unsqueeze(-2))
        .sum(-1)
    )
    weights = (-(near.values + 1e-4).log()).log_softmax(-1)
    expected = (
        q.log_prob(z) - (weights + component).logsumexp(-1) - model.decoder(z).log_prob(episodes.frames[:, 12:])
    ).sum()
    want = torch.autograd.grad(expected, list(parameters.values()), allow_unused=True)
    torch.testing.assert_close(loss, expected)
    for name, a, b in zip(parameters, got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_trace_mean_field_agrees_on_average() -> None:
    """Equal in expectation: means of 200 draws within 5 standard errors, false-alarm rate under 1e-5."""
    model, guide = make()
    episodes = walk()
    torch.manual_seed(0)
    a = torch.tensor([Trace_ELBO().loss(model, guide, episodes) for _ in range(200)])
    b = torch.tensor([TraceMeanField_ELBO().loss(model, guide, episodes) for _ in range(200)])
    assert abs(a.mean() - b.mean()) < 5 * (a.var() / 200 + b.var() / 200).sqrt()


def test_parameters_belong_to_one_program() -> None:
    model, guide = make()
    assert not list(guide.parameters()) and guide.model is model
    with pyro.settings.context(module_local_params=True):
        other, other_guide = make()
        Trace_ELBO()(other, other_guide)(walk()).backward()
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("learn_scale", [False, True])
def test_likelihoods(likelihood: str, learn_scale: bool) -> None:
    model, guide = make(likelihood=likelihood, learn_scale=learn_scale)
    loss = Trace_ELBO().differentiable_loss(model, guide, walk())
    loss.backward()
    assert torch.isfinite(loss)
    if likelihood == "gaussian" and learn_scale:
        assert model.decoder.log_scale.grad is not None
    frames = model.decoder.frames(torch.randn(7, 4))
    assert frames.shape == (7, 3, 8, 8) and frames.min() >= 0 and frames.max() <= 1


def test_the_gaussian_likelihood_is_torchs() -> None:
    decoder = FrameDecoder(4, channels=(6, 6), learn_scale=True).double()
    z, frames = torch.randn(5, 2, 4).double(), torch.rand(5, 2, 3, 8, 8).double()
    likelihood = decoder(z)
    torch_normal = dist.Normal(likelihood.mean, likelihood.stddev).to_event(3)
    torch.testing.assert_close(likelihood.log_prob(frames), torch_normal.log_prob(frames))
    wide = likelihood.expand((7, 5, 2))
    torch.testing.assert_close(wide.log_prob(frames), torch_normal.log_prob(frames).expand(7, 5, 2))
    got, want = (
        torch.autograd.grad(
            d.log_prob(frames).sum(), [decoder.log_scale, decoder.second.linear.weight], retain_graph=True
        )
        for d in (likelihood, torch_normal)
    )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_imagine_continues_the_path_and_names_the_entries() -> None:
    model, guide = make()
    model.transition.log_scale.fill_(-20.0)
    model.initial_scale.fill_(1e-9)
    episodes = walk(observed=30, predicted=20)
    s = guide.path(episodes).sample().squeeze(-3)
    memory = model.remember(s[:, :30], episodes.observed_frames)
    imagined = model.imagine(s[:, 29], memory, episodes.predicted_actions)
    torch.testing.assert_close(imagined.states, s[:, 30:], atol=1e-5, rtol=1e-5)
    nearest = torch.cdist(s[:, 30:], s[:, :30]).argmin(-1)
    assert (imagined.entries == nearest).float().mean() > 0.95
    loc = model.encoder.statistics(episodes.observed_frames)["loc"]
    expected = model.decoder.frames(loc.gather(1, imagined.entries.unsqueeze(-1).expand(-1, -1, 4)))
    torch.testing.assert_close(imagined.frames, expected)
    assert model.imagine(s[:, 29], memory, episodes.predicted_actions, sample=True).frames.shape == (3, 20, 3, 8, 8)


def test_regret_is_small_where_places_are_told_apart_and_large_where_not() -> None:
    model, guide = make()
    episodes, reading = walk(batch=8, observed=40, predicted=24), Reading("others", "all")
    Automatic()(model, DATA.sample(32, num_observed=1, num_predicted=127, seed=5))
    model.transition.log_scale.fill_(math.log(1e-3))
    model.initial_scale.fill_(1e-3)
    for parameter in model.encoder.parameters():
        parameter.data.mul_(3)
    good = regret(model, episodes, guide.path(episodes), reading)
    model.transition.displacement.data.zero_()
    bad = regret(model, episodes, guide.path(episodes), reading)
    assert good.shape == (8, 64) and good.min() > -1e-3
    assert good.median() < 0.1 < 0.3 < bad.median()


def test_readings_are_checked() -> None:
    with pytest.raises(ConfigError, match="scored: expected one of predicted, others, earlier, alone, got 'past'"):
        Reading("past")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_neighbors: expected at least 1, got 0"):
        Reading("others", 0)
    model, guide = make(num_neighbors=13)
    with pytest.raises(MemoryReadError, match="13"):
        Trace_ELBO().loss(model, guide, walk())


def test_parts_are_checked() -> None:
    for parts in ({"decoder": FrameDecoder(32)}, {"prior": BackgroundPrior(32)}, {"initial_scale": 0.0}):
        with pytest.raises(ConfigError, match="(decoder|prior).latent_dim: expected 64.*got 32|initial_scale.*over 0"):
            GTMSM(WalledTranslation(5), **parts)
    with pytest.raises(ConfigError, match="scale: expected a number over 0, got -1"):
        FrameDecoder(scale=-1)
    with pytest.raises(ConfigError, match="state_dim"):
        WalledTranslation(5, state_dim=0)
    with pytest.raises(ConfigError, match=r"frame_shape.*\(3, 9, 8\)"):
        FrameEncoder(frame_shape=(3, 9, 8), strides=(2, 2))
    with pytest.raises(ConfigError, match="likelihood: expected gaussian or bernoulli, got 'poisson'"):
        FrameDecoder(likelihood="poisson")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="delta"):
        MixturePrior(delta=0.0)
