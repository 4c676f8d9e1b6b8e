"""Paths that follow actions and are drawn to landmarks: distributions for guides that look at frames."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from gtm_pyro.localisation.explanations import Steps
from gtm_pyro.transitions import Transition
from gtm_pyro.transitions.recurrence import unroll


class FusedPath(TorchDistribution):
    """A path whose every step fuses the transition's prediction with a position that frames suggest.

    Generative process::

        s_1 ~ N((1 - gain_1) start + gain_1 target_1, scale_1² I)
        for t in 2..T:
            s_t ~ N((1 - gain_t) f(s_{t-1}, a_t) + gain_t target_t, scale_t² I)

    The product of N(s_t; f, v) and a Gaussian message about s_t of precision J and mean w has gain v J / (1 + v J),
    target w and variance v / (1 + v J). With gain 0 and scale r it is p(s_t | s_{t-1}, a_t) without slips.

    Batch shape ``(*batch)``, event shape ``(T, state_dim)``. Differentiable in the transition's parameters.

    :param transition: f.
    :param actions: ``(*batch, T, action_dim)``, those carried out; the first is not used.
    :param start: ``(*batch, state_dim)``.
    :param target: ``(*batch, T, state_dim)``.
    :param gain: ``(*batch, T)``, in [0, 1].
    :param scale: ``(*batch, T)``, in state units.
    :raises ValueError: shapes that do not fit.
    """

    arg_constraints = {
        "actions": constraints.independent(constraints.real, 2),
        "target": constraints.independent(constraints.real, 2),
        "gain": constraints.independent(constraints.unit_interval, 1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        transition: Transition,
        actions: Tensor,
        start: Tensor,
        target: Tensor,
        gain: Tensor,
        scale: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        *batch, steps, dim = target.shape
        if gain.shape != (*batch, steps) or scale.shape != gain.shape or actions.shape[:-1] != gain.shape:
            raise ValueError(
                f"FusedPath: expected actions, gain and scale with leading dimensions {(*batch, steps)}, got "
                f"{tuple(actions.shape)}, {tuple(gain.shape)} and {tuple(scale.shape)}"
            )
        self.transition, self.start = transition, start
        self.actions, self.target, self.gain, self.scale = actions, target, gain, scale
        super().__init__(torch.Size(batch), torch.Size((steps, dim)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "FusedPath":
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(FusedPath, _instance)
        new.transition, new.start = self.transition, self.start.expand(*batch_shape, -1)
        for name in ("actions", "target"):
            setattr(new, name, getattr(self, name).expand(*batch_shape, *getattr(self, name).shape[-2:]))
        for name in ("gain", "scale"):
            setattr(new, name, getattr(self, name).expand(*batch_shape, *getattr(self, name).shape[-1:]))
        super(FusedPath, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _fuse(self, predicted: Tensor, inputs: Tensor) -> Tensor:
        dim = predicted.shape[-1]
        gain, target = inputs[..., -dim - 1 : -dim], inputs[..., -dim:]
        return predicted + gain * (target - predicted)

    def _step(self, s: Tensor, inputs: Tensor) -> Tensor:
        return self._fuse(self.transition.loc(s, inputs[..., : -s.shape[-1] - 1]), inputs)

    @property
    def _inputs(self) -> Tensor:
        return torch.cat([self.transition.controls(self.actions), self.gain.unsqueeze(-1), self.target], -1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        shape = self._extended_shape(sample_shape)
        noise = self.scale.unsqueeze(-1) * torch.randn(shape, dtype=self.target.dtype, device=self.target.device)
        inputs = self._inputs.expand(*shape[:-1], -1)
        first = self._fuse(self.start, inputs[..., 0, :]) + noise[..., 0, :]
        return unroll(self._step, first, inputs, noise, sequential=self._sequential)

    def _sequential(self, start: Tensor, inputs: Tensor, noise: Tensor) -> Tensor:
        *batch, time, dim = noise.shape
        rows = inputs.reshape(-1, time, inputs.shape[-1])
        gain, target = rows[..., -dim - 1 : -dim], rows[..., -dim:]
        step = self.transition.stepping(rows[..., : -dim - 1])
        # s_t = (1 - gain) f + (gain target + noise), in one call after f
        trust = (1 - gain).transpose(0, 1).contiguous().unbind(0)
        rest = (gain * target + noise.reshape(-1, time, dim)).transpose(0, 1).contiguous().unbind(0)
        path = [start.reshape(-1, dim)]
        for t in range(1, time):
            path.append(torch.addcmul(rest[t], trust[t], step(path[-1], t)))
        return torch.stack(path, 1).reshape(*batch, time, dim)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inputs = self._inputs
        first = self._fuse(self.start, inputs[..., 0, :])
        rest = self._step(value[..., :-1, :], inputs[..., 1:, :])
        loc = torch.cat([first.unsqueeze(-2).expand(*rest.shape[:-2], 1, -1), rest], -2)
        dim = value.shape[-1]
        square = ((value - loc) / self.scale.unsqueeze(-1)).square().sum(-1)
        return (-0.5 * square - dim * (self.scale.log() + 0.5 * math.log(2 * math.pi))).sum(-1)


def filtering_path(
    transition: Transition,
    steps: Steps,
    start: Tensor,
    start_variance: Tensor,
    filtered: tuple[Tensor, Tensor] | None = None,
) -> FusedPath:
    """prod_t q(s_t | s_{t-1}, a_t, x_t): each prediction is fused with the landmark of its own frame.

    With ``filtered``, gains and variances P_t of the search, the variance of a step is P_t - (1 - gain_t)² P_{t-1}:
    then, for a linear transition, s_t has the mean and the variance that the frames up to t leave it. Where landmarks
    are rare, one that is met has to do at once what many do where they are frequent.

    :param steps: batch ``(*batch)``.
    :param start: mean of s_1, ``(*batch, state_dim)``.
    :param start_variance: of each of its coordinates, ``(*batch)``.
    :param filtered: gains, and variances of a coordinate of the filtered states, each ``(*batch, T)``.
    """
    if filtered is not None:
        gain, variance = filtered
        before = torch.cat([torch.zeros_like(variance[..., :1]), variance[..., :-1]], -1)
        step = variance - (1 - gain).square() * before
        # without a landmark it is the transition's, whatever rounding leaves of it
        step = torch.where(gain > 0, step, torch.cat([variance[..., :1], steps.variance[..., 1:]], -1))
        return FusedPath(transition, steps.actions, start, steps.target, gain, step.sqrt())
    precision = steps.evidence.reciprocal()
    return _fused(transition, steps, start, start_variance, precision, steps.target)


def smoothing_path(transition: Transition, steps: Steps, start: Tensor, start_variance: Tensor) -> FusedPath:
    """q(s_{1:T} | x_{1:T}, a_{1:T}): each prediction is fused with what its own and all later frames say about s_t.

    The later landmarks are passed back as Gaussian messages, from J_T = 1 / evidence_T,
    J_t = 1 / evidence_t + J_{t+1} / (1 + v_{t+1} J_{t+1}); for a linear transition this is the exact posterior,
    the Rauch-Tung-Striebel smoother as a forward chain. Where moves depend on the state, at walls or with a heading,
    messages are passed back by the moves from the hypothesis' own states, and have one variance for all coordinates: an
    approximation, though what is drawn follows the transition, and its density is exact. Arguments as of
    :func:`filtering_path`.
    """
    from gtm_pyro.localisation.selection import backward_precision  # numba takes a while to import

    rows = (x.detach().cpu().double().reshape(-1, x.shape[-1]).numpy() for x in (steps.evidence, steps.variance))
    precision, share = (
        torch.from_numpy(x).to(steps.target).reshape(steps.evidence.shape) for x in backward_precision(*rows)
    )
    # backwards in time, mean_t = share_t (mean_{t+1} - move_{t+1}) + (1 - share_t) target_t
    back = share.flip(-1).unsqueeze(-1)
    controls = transition.controls(steps.actions)[..., 1:, :]
    moves = transition.loc(steps.states[..., :-1, :], controls) - steps.states[..., :-1, :]
    still = torch.zeros_like(steps.target[..., :1, :])
    rest = (1 - back) * steps.target.flip(-2) - back * torch.cat([still, moves.flip(-2)], -2)
    mean = unroll(torch.mul, rest[..., 0, :], back, rest).flip(-2)
    return _fused(transition, steps, start, start_variance, precision, mean)


def _fused(
    transition: Transition, steps: Steps, start: Tensor, start_variance: Tensor, precision: Tensor, target: Tensor
) -> FusedPath:
    variance = torch.cat([start_variance.unsqueeze(-1), steps.variance[..., 1:]], -1)
    ratio = variance * precision
    return FusedPath(transition, steps.actions, start, target, ratio / (1 + ratio), (variance / (1 + ratio)).sqrt())


class PathMixture(TorchDistribution):
    """One of several paths: sum_n w_n q_n(s_{1:T}).

    A draw is a draw of one component. The weights are constants, so its gradient is that of the component's draw.
    Batch shape ``(*batch)``, event shape ``(T, state_dim)``.

    :param log_weight: ``(*batch, N)``, normalised or not.
    :param paths: q_n, batch shape ``(*batch, N)``.
    """

    arg_constraints = {"log_weight": constraints.real_vector}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, log_weight: Tensor, paths: FusedPath, validate_args: bool | None = None) -> None:
        if log_weight.shape != paths.batch_shape:
            raise ValueError(f"PathMixture: expected {tuple(paths.batch_shape)} weights, got {tuple(log_weight.shape)}")
        self.log_weight, self.paths = log_weight.log_softmax(-1), paths
        super().__init__(log_weight.shape[:-1], paths.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PathMixture":
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(PathMixture, _instance)
        size = self.log_weight.shape[-1]
        new.log_weight, new.paths = self.log_weight.expand(*batch_shape, size), self.paths.expand((*batch_shape, size))
        super(PathMixture, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        which = torch.distributions.Categorical(logits=self.log_weight).sample(torch.Size(sample_shape))
        paths = self.paths.expand((*sample_shape, *self.paths.batch_shape))

        def pick(values: Tensor) -> Tensor:
            rest = values.shape[which.dim() + 1 :]
            index = which.reshape(*which.shape, 1, *(1,) * len(rest)).expand(*which.shape, 1, *rest)
            return values.gather(which.dim(), index).squeeze(which.dim())

        actions, start, target, gain, scale = (
            pick(values) for values in (paths.actions, paths.start, paths.target, paths.gain, paths.scale)
        )
        return FusedPath(paths.transition, actions, start, target, gain, scale, validate_args=False).rsample()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (self.log_weight + self.paths.log_prob(value.unsqueeze(-3))).logsumexp(-1)
