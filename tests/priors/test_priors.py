"""The prior that the memory makes of its entries, and the background that it may have."""

import math

import pyro.distributions as dist
import pytest
import torch
from mixture_cases import SIGMAS, parameters, reference
from torch.distributions import Normal

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.priors import BackgroundPrior, MixturePrior


def walk(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 12, 2, generator=generator, dtype=dtype)
    _, loc, scale = parameters(2, components=12)
    return keys, torch.randn(2, 6, 2, generator=generator, dtype=dtype), {"loc": loc, "scale": scale}


def test_weights_are_proportional_to_inverse_squared_distance():
    keys, queries, stats = walk()
    read = SpatialMemory(4).write(keys, stats).read(queries)
    prior = MixturePrior(delta=0.01)(read)
    weights = 1 / (read.squared_distance + 0.01)
    theirs = dist.MixtureOfDiagNormals(read.values["loc"], read.values["scale"], weights.log())
    value = torch.randn(2, 6, 3, dtype=torch.float64)
    assert prior.batch_shape == (2, 6) and prior.event_shape == (3,)
    torch.testing.assert_close(prior.weights, weights / weights.sum(-1, keepdim=True))
    torch.testing.assert_close(prior.log_prob(value), theirs.log_prob(value))
    assert torch.equal(prior.heaviest.loc, read.values["loc"][..., 0, :])


def test_reading_every_entry_or_the_whole_memory_as_neighbours_is_one_prior():
    keys, queries, stats = walk()
    memory, value = SpatialMemory().write(keys, stats), torch.randn(2, 6, 3, dtype=torch.float64)
    narrow, wide = (MixturePrior()(memory.read(queries, width)) for width in (12, "all"))
    assert wide._shared and not narrow._shared
    torch.testing.assert_close(narrow.log_prob(value), wide.log_prob(value))


@pytest.mark.parametrize("width", [5, "all"])
def test_a_query_that_may_read_nothing_gets_the_standard_normal(width):
    keys, _, stats = walk()
    stats = {name: stat.requires_grad_() for name, stat in stats.items()}
    keys.requires_grad_()
    earlier = torch.ones(12, 12, dtype=torch.bool).tril(-1)
    memory = SpatialMemory().write(keys, stats)
    prior = MixturePrior()(memory.read(keys, width, allowed=earlier))
    value = torch.randn(2, 12, 3, dtype=torch.float64)
    density = prior.log_prob(value)
    torch.testing.assert_close(density[:, 0], Normal(0.0, 1.0).log_prob(value[:, 0]).sum(-1))
    torch.testing.assert_close(prior.heaviest.scale[:, 0], torch.ones(2, 3, dtype=torch.float64))
    # The second step can read the first entry only.
    only = Normal(stats["loc"][:, 0], stats["scale"][:, 0]).log_prob(value[:, 1]).sum(-1)
    torch.testing.assert_close(density[:, 1], only)
    (density.sum() + prior.rsample().square().sum()).backward()
    assert all(leaf.grad.isfinite().all() for leaf in (keys, *stats.values()))


@pytest.mark.parametrize("width", [3, "all"])
def test_the_prior_is_differentiable_in_the_path(width):
    keys, queries, stats = walk()
    value = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leave = torch.arange(12) != torch.arange(6)[:, None]

    def density(keys, queries, loc):
        memory = SpatialMemory().write(keys, {"loc": loc, "scale": stats["scale"]})
        return MixturePrior(0.1)(memory.read(queries, width, allowed=leave)).log_prob(value)

    assert torch.autograd.gradcheck(density, tuple(p.requires_grad_() for p in (keys, queries, stats["loc"])))


def background_prior(distance=0.5, delta=1e-4):
    prior = BackgroundPrior(3, distance, delta).double()
    with torch.no_grad():
        prior.background_loc.copy_(torch.tensor([1.0, -2.0, 0.5]))
        prior.background_log_scale.copy_(torch.tensor([0.3, -0.4, 0.0]))
    return prior


@pytest.mark.parametrize("width", [4, "all"])
def test_the_background_weighs_as_an_entry_at_its_distance(width):
    keys, queries, stats = walk()
    read = SpatialMemory().write(keys, stats).read(queries, width)
    module = background_prior()
    prior = module(read)
    weights = torch.cat([1 / (read.squared_distance + 1e-4), torch.full((2, 6, 1), 1 / 0.5**2).double()], -1)
    rows = [read.values["loc"].expand(2, 6, -1, 3), read.values["scale"].expand(2, 6, -1, 3)]
    for i, own in enumerate((module.background_loc, module.background_log_scale.exp())):
        rows[i] = torch.cat([rows[i], own.expand(2, 6, 1, 3)], -2)
    theirs = reference(weights.log(), *rows)
    value = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert prior._shared == (width == "all")
    torch.testing.assert_close(prior.weights, weights / weights.sum(-1, keepdim=True))
    torch.testing.assert_close(prior.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(prior.expand((4, 2, 6)).heaviest.loc[3], prior.heaviest.loc)


def test_the_background_rules_far_away_and_nowhere_near_an_entry():
    keys, _, stats = walk()
    memory, module = SpatialMemory(5).write(keys, stats), background_prior(distance=0.3)
    weight = module(memory.read(keys)).weights[..., -1]
    assert (weight < 0.002).all()  # 1e-4 against 0.3^2
    far = module(memory.read(keys + 100.0))
    assert (far.weights[..., -1] > 0.999).all()
    assert torch.equal(far.heaviest.loc, MixturePrior()(memory.read(keys + 100.0)).heaviest.loc)
    nowhere = module.background_loc.expand(2, 12, 3)
    assert (far.log_prob(nowhere) > -5).all()
    torch.manual_seed(0)
    error = far.sample((4000,)).mean((0, 1, 2)) - module.background_loc
    assert (error.abs() < SIGMAS * 1.4 / math.sqrt(4000 * 24)).all()


def test_a_wrong_place_does_not_hide_behind_the_background():
    """Regret is at least 0, near 0 where the place is right, and large where states coincide."""
    keys, _, stats = walk()
    stats["scale"] = 0.1 * torch.ones_like(stats["scale"])
    module = background_prior(distance=0.3)
    near = module(SpatialMemory(5).write(keys, stats).read(keys)).regret(stats["loc"])
    coincide = SpatialMemory(5).write(1e-3 * keys, stats).read(torch.zeros_like(keys))
    away = 10 * torch.ones_like(stats["loc"])  # of no entry
    assert (near >= 0).all() and (near < 0.1).all()
    assert (module(coincide).regret(away) > 4).all()


@pytest.mark.parametrize("width", [5, "all"])
def test_a_query_that_may_read_nothing_gets_the_background(width):
    keys, _, stats = walk()
    earlier = torch.ones(12, 12, dtype=torch.bool).tril(-1)
    module = background_prior()
    prior = module(SpatialMemory().write(keys.requires_grad_(), stats).read(keys, width, allowed=earlier))
    value = torch.randn(2, 12, 3, dtype=torch.float64)
    own = Normal(module.background_loc, module.background_log_scale.exp())
    density = prior.log_prob(value)
    torch.testing.assert_close(density[:, 0], own.log_prob(value[:, 0]).sum(-1))
    torch.testing.assert_close(prior.heaviest.loc[:, 0], module.background_loc.expand(2, 3))
    assert torch.equal(prior.heaviest.component[:, 1] == prior.num_components - 1, torch.zeros(2, dtype=torch.bool))
    (density.sum() + prior.rsample().square().sum()).backward()
    assert keys.grad.isfinite().all() and all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("width", [3, "all"])
def test_the_background_is_learnt(width):
    keys, queries, stats = walk()
    value = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    module, read = background_prior(), SpatialMemory().write(keys, stats).read(queries, width)

    def density(loc, log_scale):
        own = {"background_loc": loc, "background_log_scale": log_scale}
        return torch.func.functional_call(module, own, (read,)).log_prob(value)

    assert torch.autograd.gradcheck(density, tuple(module.parameters()))


def test_bad_backgrounds_are_refused():
    for bad in ({"distance": 0.0}, {"latent_dim": 0}, {"delta": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            BackgroundPrior(**bad)
    keys, queries, stats = walk()
    with pytest.raises(ConfigError, match="prior.latent_dim: expected 3, .* got 64"):
        BackgroundPrior()(SpatialMemory().write(keys, stats).read(queries))
    assert repr(BackgroundPrior(3)) == "BackgroundPrior(latent_dim=3, distance=0.3, delta=0.0001)"


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan])
def test_delta_must_be_positive(delta):
    with pytest.raises(ConfigError, match="delta: expected a positive number"):
        MixturePrior(delta)
