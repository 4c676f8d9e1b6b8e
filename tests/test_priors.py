"""The mixture against torch's and against known gradients, and the prior that the memory makes of it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.mixtures import NormalMixture, _LogSumExp
from gtm_pyro.priors import BackgroundPrior, MixturePrior

# A Gaussian statistic beyond 5.5 standard errors: false alarm 4e-8 for each number compared.
SIGMAS = 5.5


def parameters(*batch, components=5, dim=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    return (
        draw(*batch, components),
        draw(*batch, components, dim),
        (0.5 * draw(*batch, components, dim)).exp(),
    )


def reference(logits, loc, scale):
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, scale), 1))


@pytest.mark.parametrize("dim", [1, 2, 16])
@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_log_prob_and_moments_equal_torch(batch, dim):
    ours, theirs = (make(*parameters(*batch, dim=dim)) for make in (NormalMixture, reference))
    value = torch.randn(6, *batch, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)


@pytest.mark.parametrize("shared", [False, True])
def test_log_prob_far_away_and_with_excluded_components(shared):
    """Up to 200 standard deviations away, in float32, the value and its gradients stay finite and right."""
    logits, loc, scale = parameters(2, 4, dim=16)
    if shared:
        loc, scale = loc[:, :1], scale[:, :1]
    logits[..., 1] = -torch.inf
    value = torch.linspace(-200, 200, 9, dtype=torch.float64)[:, None, None, None] * scale.amax() + loc[..., 0, :]
    far = reference(logits, loc.expand(2, 4, 5, 16), scale.expand(2, 4, 5, 16)).log_prob(value.expand(9, 2, 4, 16))
    leaves = [p.float().requires_grad_() for p in (logits, loc, scale, value.expand(9, 2, 4, 16))]
    ours = NormalMixture(*leaves[:3]).log_prob(leaves[3])
    torch.testing.assert_close(ours.double(), far, rtol=1e-5, atol=1e-4)
    ours.sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    assert (leaves[0].grad[..., 1] == 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("leading", [(), (3,)])
def test_shared_components_give_what_separate_ones_give(dtype, tolerance, leading):
    """Values and gradients by matrix product against explicit differences; scales 0.01 to 0.3, off centre.

    The tolerance is relative to the largest entry; explicit differences lose as much in float32.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*leading, 2, 7, 20, generator=generator, dtype=dtype)
    loc = 3 + torch.randn(2, 1, 20, 16, generator=generator, dtype=dtype)
    scale = 0.01 + 0.3 * torch.rand(2, 1, 20, 16, generator=generator, dtype=dtype)
    near = loc[:, :, :7].transpose(1, 2).squeeze(2)
    value = near + 0.1 * torch.randn(*leading, 2, 7, 16, generator=generator, dtype=dtype)
    value = value.detach()
    results = []
    for queries in (1, 7):
        leaves = [p.clone().requires_grad_() for p in (logits, loc, scale, value)]
        mixture = NormalMixture(leaves[0], *(p.expand(2, queries, 20, 16) for p in leaves[1:3]))
        assert mixture._shared == (queries == 1)
        density = mixture.log_prob(leaves[3])
        density.sin().sum().backward()
        results.append([density.detach(), mixture.mean.detach(), mixture.variance.detach()])
        results[-1] += [leaf.grad for leaf in leaves]
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_log_sum_exp_equals_torch_to_the_second_derivative():
    terms = 30 * torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms[0, :7], terms[1, 0], terms[2] = -torch.inf, -1e4, 0.5
    torch.testing.assert_close(_LogSumExp.apply(terms), terms.logsumexp(-1))
    terms = terms[1:].requires_grad_()
    assert torch.autograd.gradcheck(_LogSumExp.apply, (terms,))
    assert torch.autograd.gradgradcheck(_LogSumExp.apply, (terms,))


@pytest.mark.parametrize("shared", [False, True])
def test_samples_follow_the_mixture(shared):
    """Kolmogorov-Smirnov on each coordinate's CDF: sqrt(n) D > 3.2 has probability 3e-9 for each of 12."""
    torch.manual_seed(0)
    logits, loc, scale = parameters(4)
    logits[:, 2] = -torch.inf
    if shared:
        loc, scale = loc[:1], scale[:1]
    mixture, n = NormalMixture(logits, loc, scale), 40_000
    sample = mixture.sample((n,))
    standard = (sample.unsqueeze(-2) - loc) / scale
    cdf = (mixture.weights.unsqueeze(-1) * torch.special.ndtr(standard)).sum(-2).sort(0).values
    gap = (cdf - (torch.arange(n, dtype=torch.float64)[:, None, None] + 0.5) / n).abs().amax(0)
    assert (math.sqrt(n) * gap < 3.2).all()
    # Dependence between coordinates, which the margins do not show.
    centred = sample - mixture.mean
    product = centred[..., 0] * centred[..., 1]
    away = loc - mixture.mean.unsqueeze(-2)
    true = (mixture.weights * away[..., 0] * away[..., 1]).sum(-1)
    assert ((product.mean(0) - true).abs() < SIGMAS * product.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_pathwise_gradients_are_unbiased(dim):
    """The gradient of E[f(z)] for f = |z|^2 + z_1 z_D, known in closed form, within 5.5 standard errors.

    Each of n draws has its own parameters, so each draw's gradient is known, and so the standard error. At
    most 35 numbers are compared: a false alarm in 1.4 in a million seeds.
    """
    torch.manual_seed(dim)
    n, shape = 30_000, parameters(dim=dim, seed=3)
    shape[0][1] = -torch.inf
    logits, loc, scale = leaves = [p.clone().requires_grad_() for p in shape]
    second = loc.square() + scale.square()
    cross = loc[:, 0] * loc[:, -1] + (scale[:, 0].square() if dim == 1 else 0)
    (logits.softmax(-1) * (second.sum(-1) + cross)).sum().backward()

    copies = [p.detach().expand(n, *p.shape).clone().requires_grad_() for p in leaves]
    z = NormalMixture(*copies).rsample()
    (z.square().sum(-1) + z[:, 0] * z[:, -1]).sum().backward()
    for leaf, copy in zip(leaves, copies, strict=True):
        error = copy.grad.std(0) / math.sqrt(n)
        assert ((copy.grad.mean(0) - leaf.grad).abs() <= SIGMAS * error + 1e-12).all()
        assert leaf.grad.abs().max() > 10 * error.max()  # precise enough to fail


def test_pathwise_gradients_with_shared_components_and_sample_shapes():
    logits, loc, scale = parameters(2, 7)
    results = []
    for queries in (1, 7):
        leaves = [p.clone().requires_grad_() for p in (logits, loc[:, :1], scale[:, :1])]
        mixture = NormalMixture(leaves[0], *(p.expand(2, queries, 5, 3) for p in leaves[1:]))
        torch.manual_seed(0)
        z = mixture.rsample((4,))
        assert z.shape == (4, 2, 7, 3)
        z.pow(3).sum().backward()
        results.append([z.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not NormalMixture(logits, loc, scale).rsample().requires_grad


def test_expand_keeps_the_density_and_shares_the_components():
    logits, loc, scale = parameters(7)
    mixture = NormalMixture(logits, loc[:1], scale[:1])
    wide = mixture.expand((3, 2, 7))
    assert wide.batch_shape == (3, 2, 7) and wide.event_shape == (3,) and wide.loc.shape == (1, 5, 3)
    value = torch.randn(4, 3, 2, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(wide.log_prob(value), mixture.log_prob(value))
    assert wide.log_prob(value[0, 0, 0]).shape == (3, 2, 7)
    assert wide.sample((4,)).shape == value.shape
    assert wide.mean.shape == wide.variance.shape == wide.heaviest.loc.shape == (3, 2, 7, 3)
    assert wide.to_event(1).log_prob(value).shape == (4, 3, 2)
    with pytest.raises(ValueError, match="expand"):
        wide.expand((2, 7))
    single = NormalMixture(*parameters())
    torch.testing.assert_close(single.expand((6,)).log_prob(value[0, 0, 0, :6]), single.log_prob(value[0, 0, 0, :6]))


def test_it_is_a_pyro_site():
    logits, loc, scale = parameters(2, 7)

    def model(observed=None):
        with pyro.plate("batch", 2, dim=-2), pyro.plate("time", 7, dim=-1):
            return pyro.sample("z", NormalMixture(logits, loc[:, :1], scale[:, :1]), obs=observed)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z"]["value"].shape == (2, 7, 3) and trace.nodes["z"]["log_prob"].shape == (2, 7)
    particles = pyro.plate("particles", 5, dim=-3)(model)
    assert particles().shape == (5, 2, 7, 3)


def test_heaviest_component():
    logits, loc, scale = parameters(2, 7)
    index, heavy, width = NormalMixture(logits, loc, scale).heaviest
    assert index.shape == (2, 7)
    assert torch.equal(heavy, loc.gather(-2, logits.argmax(-1)[..., None, None].expand(2, 7, 1, 3)).squeeze(-2))
    shared = NormalMixture(logits, loc[:, :1], scale[:, :1]).heaviest
    assert torch.equal(shared.scale[1, 4], scale[1, 0, logits[1, 4].argmax()])


@pytest.mark.parametrize(
    ("which", "value"), [(0, torch.nan), (0, torch.inf), (0, -torch.inf), (1, torch.nan), (2, 0.0), (2, -1.0)]
)
def test_parameters_out_of_range_are_refused(which, value):
    broken = list(parameters(2))
    broken[which] = torch.full_like(broken[which], value)
    with pytest.raises(ValueError):
        NormalMixture(*broken, validate_args=True)
    with pytest.raises(ValueError, match="NormalMixture: expected"):
        NormalMixture(broken[0][..., :4], *broken[1:])


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
