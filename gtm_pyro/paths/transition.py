"""Distributions over whole trajectories: a path is one sample site."""

from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from gtm_pyro.transitions import Transition
from gtm_pyro.transitions.base import log_normal


class _Draw(NamedTuple):
    """How a value was drawn: its noise in units of the state space, and the steps that made it.

    ``unit_noise`` is that noise in units of r, where no step could slip. The tensors of the steps are kept, so that no
    other tensor can take their identity or address.
    """

    noise: Tensor
    unit_noise: Tensor | None
    origin: tuple[object, ...]
    kept: list[Tensor]


def continued(transition: Transition, start: Tensor, actions: Tensor, past: Tensor | None = None) -> Tensor:
    """A draw of the states that follow s_tau under actions alone, ``(*batch, time, state_dim)``; nothing slips.

    :param start: s_tau, ``(*batch, state_dim)``.
    :param actions: those after step tau, ``(*batch, time, action_dim)``.
    :param past: those up to step tau, from which momentum follows, ``(*batch, any, action_dim)``; None: at rest.
    """
    shape = (*actions.shape[:-1], transition.state_dim)
    noise = transition.scale * torch.randn(shape, dtype=start.dtype, device=start.device)
    # a rollout leaves the first action and the first noise alone: they led to where it starts
    actions, noise = (torch.cat([x[..., :1, :], x], -2) for x in (actions, noise))
    return transition.rollout(start, actions, noise, past)[..., 1:, :]


class TransitionPath(TorchDistribution):
    """The path of a state-space model driven by actions, as one random variable.

    Generative process::

        s_1 ~ initial
        for t in 2..T:
            s_t ~ transition(s_{t-1}, a_t)

    which is prod_t p(s_t | s_{t-1}, a_t) of eq. (1) and eq. (2), Fraccaro et al. 2018. ``rsample`` rolls the
    recurrence; ``log_prob`` scores all steps in one call. Like torch's transforms, a reparameterised draw remembers the
    noise that made it: under the same transition and actions it is scored without a further pass. The value and the
    total gradient, through the draw and through the parameters, are those of the plain formula. Like autograd, this
    does not see changes made through ``.data``.

    Batch shape ``(*batch)``, event shape ``(T, state_dim)``.

    :param initial: p(s_1), event shape ``(state_dim,)``, broadcastable to ``batch``.
    :param transition: p(s_t | s_{t-1}, a_t).
    :param actions: ``(*batch, T, action_dim)``; the first, which led to s_1, is not used.
    :param slips: False for a transition that never slips, e = 0, whatever ``transition.slip`` is.
    :raises ValueError: shapes that do not fit.
    """

    arg_constraints = {"actions": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        initial: TorchDistribution,
        transition: Transition,
        actions: Tensor,
        validate_args: bool | None = None,
        slips: bool = True,
    ) -> None:
        dim = transition.state_dim
        if initial.event_shape != (dim,):
            raise ValueError(f"initial: expected event shape ({dim},), got {tuple(initial.event_shape)}")
        if actions.dim() < 2 or actions.shape[-1] != transition.action_dim:
            raise ValueError(f"actions: expected (..., time, {transition.action_dim}), got {tuple(actions.shape)}")
        batch_shape = torch.broadcast_shapes(initial.batch_shape, actions.shape[:-2])
        self.initial = initial.expand(batch_shape)
        self.transition, self.actions, self.slips = transition, actions, slips
        super().__init__(batch_shape, torch.Size((actions.shape[-2], dim)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TransitionPath":
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(TransitionPath, _instance)
        new.transition, new.actions, new.slips = self.transition, self.actions, self.slips
        new.initial = self.initial.expand(batch_shape)
        super(TransitionPath, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def without_slips(self) -> "TransitionPath":
        """The same path with e = 0: what an agent trusts that has nothing but its actions."""
        return TransitionPath(self.initial, self.transition, self.actions, self._validate_args, slips=False)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        shape = self._extended_shape(sample_shape)
        start = self.initial.rsample(sample_shape)
        unit = torch.randn(shape, dtype=start.dtype, device=start.device)
        noise = self.transition.scale_noise(unit, self.slips)
        actions = self.actions.expand(*shape[:-2], *self.actions.shape[-2:])
        path = self.transition.rollout(start, actions, noise)
        if path.grad_fn is not None:  # otherwise the gradient of log_prob cannot come through the draw
            kept = [self.actions, *self._state()]
            units = None if self._may_slip else unit
            path._gtm_draw = _Draw(noise, units, self._origin(path), kept)  # type: ignore[attr-defined]
        return path

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        first = self.initial.log_prob(value[..., 0, :])
        draw: _Draw | None = getattr(value, "_gtm_draw", None)
        if draw is not None and draw.origin != self._origin(value):
            draw = None
        if self._may_slip:
            residual = self._residual(value) if draw is None else draw.noise[..., 1:, :]
            return first + self.transition.noise_log_prob(residual).sum(-1)
        scale = self.transition.scale
        if draw is None:
            units = self._residual(value) / scale
        elif draw.unit_noise is None:
            units = draw.noise[..., 1:, :] / scale
        else:
            units = draw.unit_noise[..., 1:, :]
        return first + log_normal(units, scale).sum((-2, -1))

    @property
    def _may_slip(self) -> bool:
        return self.slips and self.transition.slips

    def _residual(self, value: Tensor) -> Tensor:
        """s_t - f(s_{t-1}, a_t) of steps 2 to T."""
        controls = self.transition.controls(self.actions)[..., 1:, :]
        return value[..., 1:, :] - self.transition.loc(value[..., :-1, :], controls)

    def _state(self) -> list[Tensor]:
        return [*self.transition.parameters(), *self.transition.buffers()]

    def _origin(self, value: Tensor) -> tuple[object, ...]:
        """Equal for two paths and a value only if the same steps made it and nothing has changed since."""
        actions, state = self.actions, [(id(t), t.data_ptr(), t._version, t.requires_grad) for t in self._state()]
        where = (actions.data_ptr(), actions.shape, actions.stride(), actions._version, actions.requires_grad)
        return id(self.transition), value._version, *where, *state
