"""The mixture against torch's and against known gradients."""

import math

import pyro
import pytest
import torch
from mixture_cases import SIGMAS, parameters, reference

from gtm_pyro.priors.mixtures import NormalMixture, _LogSumExp


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
    loc = 20 * loc  # none agrees with another
    index, heavy, width = NormalMixture(logits, loc, scale).heaviest
    assert index.shape == (2, 7)
    assert torch.equal(heavy, loc.gather(-2, logits.argmax(-1)[..., None, None].expand(2, 7, 1, 3)).squeeze(-2))
    shared = NormalMixture(logits, loc[:, :1], scale[:, :1]).heaviest
    assert torch.equal(shared.scale[1, 4], scale[1, 0, logits[1, 4].argmax()])


def test_components_that_agree_outvote_a_heavier_one():
    loc = torch.tensor([[5.0, 5.0], [0.0, 0.0], [0.1, 0.0], [-4.0, 3.0]])
    weights = torch.tensor([[0.4, 0.25, 0.3, 0.05], [0.6, 0.15, 0.2, 0.05], [0.0, 0.0, 0.0, 1.0]])
    heaviest = NormalMixture(weights.log(), loc.expand(3, 4, 2), torch.full((3, 4, 2), 0.5)).heaviest
    assert heaviest.component.tolist() == [2, 0, 3]
    alone = NormalMixture(weights.log(), loc.expand(3, 4, 2), torch.full((3, 4, 2), 0.5), background=True).heaviest
    assert alone.component.tolist() == [2, 0, 3]


def test_excluded_components_have_no_say_in_which_is_the_heaviest():
    """Four that do not agree, about an excluded one that each is near to: the heaviest is a fifth, far away."""
    loc = torch.tensor([[9.0, 9.0], [1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]])
    logits = torch.tensor([0.28, 0.18, 0.18, 0.18, 0.18, 0.0]).log()
    assert NormalMixture(logits, loc, torch.full((6, 2), 0.7)).heaviest.component.item() == 0
    nowhere = torch.cat([loc[:5], torch.full((1, 2), torch.nan)])
    mixture = NormalMixture(logits, nowhere, torch.full((6, 2), 0.7), validate_args=False)
    assert mixture.heaviest.component.item() == 0


def test_a_single_component_is_the_heaviest():
    for background in (False, True):
        mixture = NormalMixture(torch.zeros(3, 1), torch.ones(3, 1, 2), torch.ones(3, 1, 2), background=background)
        assert mixture.heaviest.component.tolist() == [0, 0, 0]


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
