"""Mixtures of diagonal normals, with cheap densities where many mixtures share their components."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Categorical, constraints

_LOG_TWO_PI = math.log(2 * math.pi)
_VOTERS = 8


class _MixtureLogits(constraints.Constraint):
    """Vectors of log weights: -inf excludes a component, but not every one of them."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return value.amax(-1).isfinite()


class _LogSumExp(torch.autograd.Function):
    """log sum exp over the last dimension by softmax: torch's own is five times slower on underflow."""

    @staticmethod
    def forward(ctx: Any, terms: Tensor) -> Tensor:
        share = terms.softmax(-1)
        ctx.save_for_backward(terms, share)
        return terms.amax(-1) - share.amax(-1).log()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        terms, share = ctx.saved_tensors
        # Under create_graph the share has to carry its own gradient.
        return grad.unsqueeze(-1) * (terms.softmax(-1) if torch.is_grad_enabled() else share)


def _wide(value: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return value if value.device.type == "mps" else value.double()


class Heaviest(NamedTuple):
    """One component: ``component`` (*batch) int64, ``loc`` and ``scale`` (*batch, D)."""

    component: Tensor
    loc: Tensor
    scale: Tensor


class NormalMixture(TorchDistribution):
    """A mixture of diagonal normals, sum_k w_k N(loc_k, diag(scale_k^2)), w = softmax(logits).

    :param logits: (*batch, K), unnormalised log weights; -inf excludes a component.
    :param loc: (*batch, K, D), or any shape that broadcasts to it.
    :param scale: like ``loc``, positive.
    :param background: the last component stands for "none of the others", and is the ``heaviest`` only where all
        others are excluded.

    Batch shape ``*batch``, event shape (D,). Where the components are shared along the last batch dimension, of
    size Q, give ``loc`` and ``scale`` as (*batch[:-1], 1, K, D): log_prob is then a matrix product, and nothing
    of size Q x K x D is made. Samples have pathwise derivatives, by implicit reparameterisation (Figurnov
    et al. 2018).
    """

    arg_constraints = {
        "logits": _MixtureLogits(),
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        validate_args: bool | None = None,
        *,
        background: bool = False,
    ) -> None:
        if logits.dim() < 1 or loc.dim() < 2 or loc.shape != scale.shape or logits.shape[-1] != loc.shape[-2]:
            raise ValueError(
                f"NormalMixture: expected logits (*batch, K), loc and scale (*batch, K, D), got "
                f"{tuple(logits.shape)}, {tuple(loc.shape)}, {tuple(scale.shape)}"
            )
        self.logits = logits
        self.loc = loc
        self.scale = scale
        self.background = background
        batch = torch.broadcast_shapes(logits.shape[:-1], loc.shape[:-2])
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> NormalMixture:
        new: NormalMixture = self._get_checked_instance(NormalMixture, _instance)
        batch_shape = torch.Size(batch_shape)
        if torch.broadcast_shapes(batch_shape, self.batch_shape) != batch_shape:
            raise ValueError(f"expand: {tuple(self.batch_shape)} does not expand to {tuple(batch_shape)}")
        # The parameters broadcast as they are, so shared components stay shared.
        new.logits, new.loc, new.scale, new.background = self.logits, self.loc, self.scale, self.background
        super(NormalMixture, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def num_components(self) -> int:
        """K."""
        return self.logits.shape[-1]

    @property
    def weights(self) -> Tensor:
        """(*batch, K), summing to one."""
        return self.logits.softmax(-1).expand(*self.batch_shape, -1)

    @property
    def heaviest(self) -> Heaviest:
        """The component of the largest weight where most weight agrees; a background only where it is alone.

        Components overlap by o_kj = exp(-1/2 sum_d (loc_kd - loc_jd)^2 / (scale_kd^2 + scale_jd^2)). Of the 8 largest
        weights, k = argmax_k sum_j w_j o_kj is where most agree, and argmax_j w_j o_kj is returned, the first of
        several: memory entries of one place outvote one that was written there by mistake.
        """
        logits = self.logits[..., :-1] if self.background and self.num_components > 1 else self.logits
        order = logits.expand(*self.batch_shape, -1).sort(dim=-1, descending=True, stable=True)
        voter, weight = (x[..., :_VOTERS].movedim(-1, 0) for x in (order.indices, order.values.softmax(-1)))
        loc, scale = self._components(voter)
        apart = (loc.unsqueeze(1) - loc).square() / (scale.square().unsqueeze(1) + scale.square())
        counts = weight > 0  # an excluded component neither votes nor is voted for
        share = torch.where(counts & counts.unsqueeze(1), weight * (-0.5 * apart.sum(-1)).exp(), 0.0)
        most = share.sum(1).argmax(0)
        chosen = share.gather(0, most.expand_as(share[:1])).argmax(1)
        index = voter.gather(0, chosen).squeeze(0)
        if self.background:
            index = torch.where(logits.amax(-1) > -torch.inf, index, self.num_components - 1)
        return Heaviest(index, *self._components(index))

    @property
    def mean(self) -> Tensor:
        """(*batch, D)."""
        return self._average(self.loc)

    @property
    def variance(self) -> Tensor:
        """(*batch, D), marginal."""
        centred = _wide(self.loc) - _wide(self._centre)
        first = self._average(centred)
        second = self._average(_wide(self.scale).square() + centred.square())
        return (second - first.square()).to(self.loc.dtype)

    @property
    def _shared(self) -> bool:
        """Whether the components are the same along the last batch dimension."""
        if not self.batch_shape or self.loc.dim() == 2:
            return bool(self.batch_shape)
        return self.loc.shape[-3] == 1 and self.batch_shape[-1] > 1

    @property
    def _centre(self) -> Tensor:
        """A point amid the locations, constant, so that squares are taken of small numbers."""
        return self.loc.detach().mean(-2, keepdim=True)

    def _average(self, stat: Tensor) -> Tensor:
        """The weighted average (*batch, D) of a component statistic shaped like loc."""
        weights = self.weights.to(stat.dtype)
        if self._shared:
            return weights @ (stat if stat.dim() == 2 else stat.squeeze(-3))
        return (weights.unsqueeze(-2) @ stat).squeeze(-2)

    def _components(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """loc and scale (*sample, *batch, D) of components ``which`` (*sample, *batch)."""
        shape = (*which.shape, *self.loc.shape[-2:])
        index = which[..., None, None].expand(*which.shape, 1, shape[-1])
        loc, scale = (p.expand(shape).gather(-2, index).squeeze(-2) for p in (self.loc, self.scale))
        return loc, scale

    def component_log_prob(self, value: Tensor) -> Tensor:
        """log N(value; loc_k, diag(scale_k^2)) of every component, (*sample, *batch, K), in nats."""
        return self._shared_component_log_prob(value) if self._shared else self._component_log_prob(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """log density (*sample, *batch), in nats, of ``value`` (*sample, *batch, D)."""
        if self._validate_args:
            self._validate_sample(value)
        joint = self.logits + self.component_log_prob(value)
        density = _LogSumExp.apply(joint) - _LogSumExp.apply(self.logits)
        return density.expand(torch.broadcast_shapes(density.shape, self.batch_shape))

    def regret(self, value: Tensor) -> Tensor:
        """What the weights cost against the single best component, in nats, at least 0.

        max_k log N_k(value) - log_prob(value). Shapes as of ``log_prob``. Components of weight 0 do not count; a
        background does: without it a mixture that is wrong everywhere would hide behind its background.
        """
        best = self.component_log_prob(value).masked_fill(self.logits == -torch.inf, -torch.inf).amax(-1)
        return best - self.log_prob(value)

    def _component_log_prob(self, value: Tensor) -> Tensor:
        """log N(value; loc_k, diag(scale_k^2)) of every component, (*sample, *batch, K)."""
        square = ((value.unsqueeze(-2) - self.loc) / self.scale).square().sum(-1)
        return -0.5 * square - self.scale.log().sum(-1) - 0.5 * self.loc.shape[-1] * _LOG_TWO_PI

    def _shared_component_log_prob(self, value: Tensor) -> Tensor:
        """The same for shared components: z^2 p - 2 z m p + m^2 p, p = 1 / scale^2, by a matrix product."""
        # In float64 the expansion loses nothing that float32 could hold, and the product is still the cheap
        # part.
        centre = _wide(self._centre)
        loc, scale = _wide(self.loc) - centre, _wide(self.scale)
        if loc.dim() > 2:
            loc, scale, centre = loc.squeeze(-3), scale.squeeze(-3), centre.squeeze(-3)
        point = _wide(value) - centre
        precision = scale.reciprocal().square()
        weighted = loc * precision
        constant = (0.5 * loc * weighted + scale.log()).sum(-1, keepdim=True) + 0.5 * loc.shape[-1] * _LOG_TWO_PI
        of_point = torch.cat([point.square(), point, torch.ones_like(point[..., :1])], -1)
        of_component = torch.cat([-0.5 * precision, weighted, -constant], -1)
        return (of_point @ of_component.mT).to(value.dtype)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Samples (*sample, *batch, D), differentiable in logits, loc and scale."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            logits = self.logits.expand(*self.batch_shape, -1)
            which = Categorical(logits=logits, validate_args=False).sample(torch.Size(sample_shape))
            loc, scale = self._components(which)
            sample = loc + scale * torch.randn(*shape, self.loc.shape[-1], dtype=loc.dtype, device=loc.device)
        if torch.is_grad_enabled() and any(p.requires_grad for p in (self.logits, self.loc, self.scale)):
            return self._with_pathwise_gradient(sample)
        return sample

    def _with_pathwise_gradient(self, sample: Tensor) -> Tensor:
        """``sample`` with the derivative that keeps each conditional CDF F(z_d | z_<d) where it is.

        dz_d = -dF(z_d | z_<d) / p(z_d | z_<d), where dF includes the change through z_<d.
        """
        weight = self.logits  # log weights of the components given z_<d, unnormalised
        moved: list[Tensor] = []
        for d in range(self.loc.shape[-1]):
            loc, scale = self.loc[..., d], self.scale[..., d]
            fixed = sample[..., d, None]
            standard = (fixed - loc) / scale
            given = weight.softmax(-1)
            cdf = (given * torch.special.ndtr(standard)).sum(-1)
            with torch.no_grad():
                density = (given * torch.exp(-0.5 * standard.square()) / scale).sum(-1) / math.sqrt(2 * math.pi)
            moved.append(sample[..., d] - (cdf - cdf.detach()) / density)
            weight = weight - 0.5 * ((moved[-1].unsqueeze(-1) - loc) / scale).square() - scale.log()
        return torch.stack(moved, -1)
