"""The tractable twin: its exact results by two routes, and every guide against them. All in float64."""

import math
from typing import Any, get_args

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.models import LinearGaussian
from gtm_pyro.reading import Reading, Scored
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.stages import Stage
from gtm_pyro.transitions import Translation, WalledTranslation

EARLIER, PREDICTED = Reading("earlier"), Reading("predicted")
GUIDES = [DeadReckoning, LandmarkCorrected, Smoothing, ParticleGuide]
# the family contains the posterior
EXACT_GUIDES = [Smoothing, ParticleGuide]
# the columns of C are orthogonal to the precision of float32, in which they are made
TOLERANCE = 2e-6


def twin(gain: float = 1.3, state_dim: int = 2, steps: int = 7, batch: int = 3) -> tuple[LinearGaussian, Episodes]:
    torch.manual_seed(0)
    model = LinearGaussian(Translation(5, state_dim, scale=0.3), gain=gain).double()
    torch.nn.init.normal_(model.transition.displacement)
    actions = torch.eye(5, dtype=torch.float64)[torch.randint(5, (batch, steps))]
    return model, model.simulate(actions, max(1, steps // 2))


class Joint:
    """The joint normal of all states and all frames of an episode, as one matrix, from the generative equations."""

    def __init__(self, model: LinearGaussian, episodes: Episodes) -> None:
        self.steps, self.dim = episodes.num_steps, model.transition.state_dim
        self.pixels = model.latent_dim
        # s = L (e, mu) with e the noises; s_t = s_{t-1} + M a_t + r e_t
        noise = torch.full((self.steps,), float(model.transition.scale), dtype=torch.float64)
        noise[0] = float(model.initial_scale)
        rolled = torch.ones(self.steps, self.steps, dtype=torch.float64).tril() * noise
        eye = torch.eye(self.dim, dtype=torch.float64)
        root = torch.kron(rolled, eye)
        field = torch.kron(torch.eye(self.steps, dtype=torch.float64), model.gain * model.columns)
        self.state_covariance = root @ root.T
        self.cross = self.state_covariance @ field.T
        variance = model.memory_scale**2 + model.frame_scale**2
        self.frame_covariance = field @ self.cross + variance * torch.eye(self.steps * self.pixels).double()
        moves = episodes.actions @ model.transition.displacement.T
        moves[:, 0] = 0
        self.state_mean = moves.cumsum(1).flatten(1)
        self.frame_mean = self.state_mean @ field.T + model.offset.repeat(self.steps)
        self.frames = episodes.frames.flatten(1)

    def log_evidence(self, first: int) -> Tensor:
        seen = slice(first * self.pixels, None)
        frames = dist.MultivariateNormal(self.frame_mean[:, seen], self.frame_covariance[seen, seen])
        return frames.log_prob(self.frames[:, seen])

    def condition(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Mean (batch, T, dim) and covariance (T dim, T dim) of all states given the frames of steps first..stop-1."""
        seen = slice(first * self.pixels, max(first, stop) * self.pixels)
        weights = torch.linalg.solve(self.frame_covariance[seen, seen], self.cross[:, seen].T).T
        mean = self.state_mean + (self.frames[:, seen] - self.frame_mean[:, seen]) @ weights.T
        covariance = self.state_covariance - weights @ self.cross[:, seen].T
        return mean.reshape(-1, self.steps, self.dim), covariance


def blocks(covariance: Tensor, dim: int) -> Tensor:
    steps = len(covariance) // dim
    return torch.stack([covariance[t * dim : (t + 1) * dim, t * dim : (t + 1) * dim] for t in range(steps)])


@pytest.mark.parametrize("state_dim", [1, 2, 3])
@pytest.mark.parametrize("reading", [EARLIER, PREDICTED], ids=["earlier", "predicted"])
@pytest.mark.parametrize("gain", [1.3, 0.0])
@torch.no_grad()
def test_exact_results_equal_those_of_the_dense_joint_normal(gain: float, reading: Reading, state_dim: int) -> None:
    """Evidence by GaussianHMM, the Kalman filter, and T x T smoothing, against one matrix of everything."""
    model, episodes = twin(gain, state_dim)
    joint, first = Joint(model, episodes), reading.scored_steps(episodes).start
    assert torch.allclose(model.log_evidence(episodes, reading), joint.log_evidence(first), atol=TOLERANCE)
    smoothed, posterior = model.smoothing(episodes, reading), model.posterior(episodes, reading)
    mean, covariance = joint.condition(first, episodes.num_steps)
    assert torch.allclose(smoothed.mean, mean, atol=TOLERANCE)
    assert torch.allclose(smoothed.covariance, blocks(covariance, state_dim), atol=TOLERANCE)
    one = covariance.reshape(episodes.num_steps, state_dim, episodes.num_steps, state_dim)
    for i in range(state_dim):
        assert torch.allclose(posterior.base_dist.covariance_matrix[0, i], one[:, i, :, i], atol=TOLERANCE)
    filtered = model.filtering(episodes, reading)
    for t in range(episodes.num_steps):
        mean, covariance = joint.condition(first, t + 1)
        assert torch.allclose(filtered.mean[:, t], mean[:, t], atol=TOLERANCE)
        assert torch.allclose(filtered.covariance[t], blocks(covariance, state_dim)[t], atol=TOLERANCE)


def test_the_default_reading_scores_every_step() -> None:
    model, episodes = twin()
    assert torch.equal(model.log_evidence(episodes), model.log_evidence(episodes, EARLIER))
    assert not torch.equal(model.log_evidence(episodes), model.log_evidence(episodes, PREDICTED))
    assert torch.equal(model.filtering(episodes).mean[:, -1], model.filtering(episodes, EARLIER).mean[:, -1])


def test_sites_plates_and_shapes_are_those_of_the_gtm_sm() -> None:
    model, episodes = twin()
    for reading, steps in ((EARLIER, 7), (PREDICTED, 4)):
        trace = poutine.trace(model).get_trace(episodes, reading)
        shapes = {name: (*trace.nodes[name]["fn"].batch_shape, trace.nodes[name]["fn"].event_shape) for name in "szx"}
        assert shapes == {"s": (3, 1, (7, 2)), "z": (3, steps, (4,)), "x": (3, steps, (1, 2, 2))}
        assert trace.nodes["x"]["is_observed"]
        assert {f.name: f.dim for f in trace.nodes["z"]["cond_indep_stack"]} == {"episodes": -2, "steps": -1}


@torch.no_grad()
def test_the_model_is_the_joint_density_of_the_dense_normal() -> None:
    """log p(x, z, s) - log p(z | x, s), by ``encode``, is log p(x, s) of the matrix."""
    model, episodes = twin(steps=3)
    trace = poutine.trace(model).get_trace(episodes)
    s, z = trace.nodes["s"]["value"].squeeze(1), trace.nodes["z"]["value"]
    trace.compute_log_prob()
    total = sum(trace.nodes[name]["log_prob"].sum(-1) for name in "szx")
    got = total - model.encode(episodes.frames, s).log_prob(z).sum(-1)
    joint = Joint(model, episodes)
    covariance = torch.cat(
        [torch.cat([joint.state_covariance, joint.cross], 1), torch.cat([joint.cross.T, joint.frame_covariance], 1)]
    )
    both = dist.MultivariateNormal(torch.cat([joint.state_mean, joint.frame_mean], 1), covariance)
    assert torch.allclose(got, both.log_prob(torch.cat([s.flatten(1), joint.frames], 1)), atol=TOLERANCE)


@torch.no_grad()
def test_landmarks_are_the_likelihood_of_the_place() -> None:
    model, episodes = twin()
    found = model.landmarks(episodes.frames)
    s = torch.randn(50, 3, 7, 2, dtype=torch.float64)
    log_likelihood = (found.log_weight - 0.5 * ((s.unsqueeze(-2) - found.position) / found.scale.unsqueeze(-1)).square()
                      .sum(-1)).logsumexp(-1)  # fmt: skip
    assert bool((found.log_background == -math.inf).all())
    noise = (model.memory_scale**2 + model.frame_scale**2).sqrt()
    mean = model.gain * s @ model.columns.T + model.offset
    exact = dist.Normal(mean, noise).log_prob(episodes.frames.flatten(-3)).sum(-1)
    gap = exact - log_likelihood
    assert torch.allclose(gap, gap[:1].expand_as(gap), atol=1e-5)


def test_frames_without_information_have_flat_landmarks() -> None:
    model, episodes = twin(gain=0.0)
    found = model.landmarks(episodes.frames)
    assert bool((found.log_weight == -math.inf).all()) and bool((found.log_background == 0).all())
    assert bool(found.position.isfinite().all()) and bool(found.scale.isfinite().all())


@torch.no_grad()
def test_simulated_episodes_have_the_moments_of_the_model() -> None:
    """Whitened frames of 20,000 episodes: 12 means, 78 second moments; a sound model fails once in 10,000 seeds."""
    model, _ = twin(steps=3)
    actions = torch.eye(5, dtype=torch.float64)[torch.randint(5, (20_000, 3))]
    episodes = model.simulate(actions, 2)
    assert episodes.num_observed == 2 and episodes.poses.shape == (20_000, 3, 2)
    joint = Joint(model, episodes)
    whole = torch.linalg.cholesky(joint.frame_covariance)
    unit = torch.linalg.solve_triangular(whole, (joint.frames - joint.frame_mean).T, upper=False)
    error = 1 / math.sqrt(20_000)
    assert float(unit.mean(1).abs().max()) < 5 * error
    assert float((unit @ unit.T / 20_000 - torch.eye(12).double()).abs().max()) < 5 * math.sqrt(2) * error
    explained = joint.frames.reshape(-1, 3, 4) - model.gain * episodes.poses @ model.columns.T - model.offset
    assert float(explained.var()) == pytest.approx(0.25, rel=0.02)  # 0.3² + 0.4²; the poses are the states


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transition": WalledTranslation(5)}, "transition: expected a Translation, which is linear, got WalledT"),
        ({"frame_shape": (1, 1, 1)}, "frame_shape: expected at least 2 pixels, .* got 1"),
        ({"gain": -1.0}, "gain: expected a number of at least 0, got -1.0"),
        ({"memory_scale": 0.0}, "memory_scale: expected a number over 0, got 0.0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearGaussian(**arguments)


def test_slips_leave_nothing_exact() -> None:
    model = LinearGaussian(Translation(5, slip=0.1))
    episodes = model.simulate(torch.eye(5)[None])
    for result in (model.log_evidence, model.filtering, model.smoothing, model.posterior):
        with pytest.raises(ConfigError, match=r"transition.slip: expected 0, for exact results, got 0.1"):
            result(episodes)


def draw_weights(model: LinearGaussian, guide: object, episodes: Episodes, draws: int) -> Tensor:
    """log p(x, z, s) - log q(z, s), ``(draws, batch)``, all draws as one batch of copies of the episodes."""
    torch.manual_seed(1)
    copies = episodes[torch.arange(len(episodes)).repeat(draws)]
    return log_weights(model, guide, copies, 1, EARLIER).total.reshape(draws, -1)


@pytest.mark.parametrize("gain", [1.3, 0.3, 0.0])
@pytest.mark.parametrize("guide_class", GUIDES)
@torch.no_grad()
def test_the_elbo_is_a_bound(guide_class: type, gain: float) -> None:
    """One-sided at 5 standard errors, for three episodes: a sound guide fails for one seed in a million."""
    model, episodes = twin(gain)
    total = draw_weights(model, guide_class(model).eval(), episodes, 400)
    error = total.std(0) / math.sqrt(len(total))
    assert bool((total.mean(0) <= model.log_evidence(episodes) + 5 * error + 1e-4).all())


@pytest.mark.parametrize("guide_class", GUIDES)
@torch.no_grad()
def test_every_guide_is_exact_where_frames_say_nothing(guide_class: type) -> None:
    """Then the posterior is the path that the actions give, and every draw has the same weight."""
    model, episodes = twin(gain=0.0)
    total = draw_weights(model, guide_class(model).eval(), episodes, 5)
    assert torch.allclose(total, model.log_evidence(episodes).expand_as(total), atol=1e-4)


@pytest.mark.parametrize("guide_class", EXACT_GUIDES)
@torch.no_grad()
def test_smoothing_attains_the_evidence_in_every_draw(guide_class: type) -> None:
    model, episodes = twin(steps=20)
    total = draw_weights(model, guide_class(model), episodes, 10)
    assert torch.allclose(total, model.log_evidence(episodes).expand_as(total), atol=1e-4)
    # not so for guides that cannot look ahead: the test above could pass by comparing nothing
    assert float((draw_weights(model, LandmarkCorrected(model).eval(), episodes, 10) - total).abs().max()) > 0.1


@torch.no_grad()
def test_landmark_correction_learns_in_hindsight() -> None:
    """In training mode it is the smoother, which attains the evidence."""
    model, episodes = twin(steps=20)
    total = draw_weights(model, LandmarkCorrected(model).train(), episodes, 10)
    assert torch.allclose(total, model.log_evidence(episodes).expand_as(total), atol=1e-4)


@pytest.mark.parametrize("guide_class", [DeadReckoning, LandmarkCorrected])
@torch.no_grad()
def test_importance_weights_find_the_evidence(guide_class: type) -> None:
    """The mean of 4,000 weights, two-sided at 5 of its standard errors: false once in 500,000 seeds."""
    model, episodes = twin(gain=0.5, steps=3)
    weights = (draw_weights(model, guide_class(model), episodes, 4000) - model.log_evidence(episodes)).exp()
    error = weights.std(0) / math.sqrt(len(weights))
    assert float(error.max()) < 0.1
    assert bool(((weights.mean(0) - 1).abs() < 5 * error).all())


@pytest.mark.parametrize("guide_class", EXACT_GUIDES)
@torch.no_grad()
def test_draws_have_the_moments_of_the_exact_smoother(guide_class: type) -> None:
    """Whitened by the exact posterior: 42 means and 168 second moments at 5.5 standard errors: false once in 10^5."""
    model, episodes = twin()
    torch.manual_seed(1)
    draws = guide_class(model).path(episodes).sample((10_000,)).squeeze(2).transpose(-1, -2)
    exact = model.posterior(episodes).base_dist
    unit = torch.linalg.solve_triangular(
        exact.scale_tril, (draws - exact.loc).permute(1, 2, 3, 0), upper=False
    )  # (batch, dim, T, draws)
    error = 5.5 / math.sqrt(len(draws))
    assert float(unit.mean(-1).abs().max()) < error
    moments = unit @ unit.transpose(-1, -2) / len(draws)
    assert float((moments - torch.eye(7).double()).abs().max()) < error * math.sqrt(2)
    smoothed = model.smoothing(episodes)
    variance = smoothed.covariance.diagonal(dim1=-2, dim2=-1)
    gap = (draws.mean(0).mT - smoothed.mean) / (variance / len(draws)).sqrt()
    assert float(gap.abs().max()) < 5.5


@torch.no_grad()
def test_particles_are_the_exact_filter() -> None:
    """Without slips one hypothesis is left, whose mean and variance are computed, not drawn."""
    model, episodes = twin()
    particles, exact = ParticleGuide(model).filter(episodes), model.filtering(episodes)
    weight = particles.log_weight.exp()
    assert torch.allclose(weight.sum(-1), torch.ones_like(weight[..., 0]))
    assert torch.allclose(particles.mean, exact.mean, atol=TOLERANCE)
    spread = (particles.loc - particles.mean.unsqueeze(-2)).square()
    variance = (weight.unsqueeze(-1) * (particles.scale.square().unsqueeze(-1) + spread)).sum(-2)
    assert torch.allclose(variance, exact.covariance.diagonal(dim1=-2, dim2=-1).expand_as(variance), atol=TOLERANCE)


@torch.no_grad()
def test_landmark_correction_is_exact_for_one_step() -> None:
    model, episodes = twin(steps=1)
    total = draw_weights(model, LandmarkCorrected(model).eval(), episodes, 10)
    assert torch.allclose(total, model.log_evidence(episodes).expand_as(total), atol=1e-4)


@torch.no_grad()
def test_landmark_correction_has_the_exact_conditionals() -> None:
    """q(s_t | s_{t-1}, a_t, x_t) is proportional to p(s_t | s_{t-1}, a_t) p(x_t | s_t)."""
    model, episodes = twin()
    path = LandmarkCorrected(model).eval().path(episodes)
    s = torch.randn(3, 7, 2, dtype=torch.float64)
    noise = float(model.memory_scale**2 + model.frame_scale**2)
    seen = (episodes.frames.flatten(-3) - model.offset) @ model.columns * model.gain / noise
    before = torch.cat([torch.zeros_like(s[:, :1]), model.transition.loc(s[:, :-1], episodes.actions[:, 1:])], 1)
    prior = torch.full((7, 1), float(model.transition.scale) ** -2, dtype=torch.float64)
    prior[0] = float(model.initial_scale) ** -2
    precision = prior + float(model.gain) ** 2 / noise
    exact = dist.Normal((prior * before + seen) / precision, precision.rsqrt()).log_prob(s).sum((-2, -1))
    assert torch.allclose(path.log_prob(s.unsqueeze(1)).squeeze(1), exact, atol=1e-4)


def test_the_gradient_of_an_exact_elbo_is_that_of_the_evidence() -> None:
    """Where every draw has the weight log p(x | a), so have its derivatives."""
    model, episodes = twin()
    guide, displacement = Smoothing(model), model.transition.displacement
    exact = torch.autograd.grad(model.log_evidence(episodes).sum(), displacement)[0]
    torch.manual_seed(1)
    drawn = poutine.trace(guide).get_trace(episodes)
    total = poutine.trace(poutine.replay(model, drawn)).get_trace(episodes).log_prob_sum() - drawn.log_prob_sum()
    assert torch.allclose(torch.autograd.grad(total, displacement)[0], exact, atol=1e-4)


@pytest.mark.parametrize("guide_class", [DeadReckoning, Smoothing])
@pytest.mark.parametrize("scored", get_args(Scored))
def test_it_trains_in_every_reading_also_on_a_part_of_the_steps(scored: Scored, guide_class: type) -> None:
    model, _ = twin()

    class Simulated:
        action_names, action_dim, frame_shape = tuple("abcde"), 5, model.frame_shape

        def sample(self, batch_size: int, *, seed: int, **asked: Any) -> Episodes:
            torch.manual_seed(seed)
            return twin(steps=asked["num_observed"] + asked["num_predicted"], batch=batch_size)[1]

    before = model.transition.displacement.detach().clone()
    stage = Stage(2, batch_size=2, num_observed=6, num_predicted=6, reading=Reading(scored, num_scored=4))
    run = fit(model, guide_class(model), Simulated(), stages=[stage], initialisation=None, progress=False)
    assert math.isfinite(run.metrics[-1]["loss"]) and not torch.equal(model.transition.displacement, before)
