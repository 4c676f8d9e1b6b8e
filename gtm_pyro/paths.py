"""Distributions over whole trajectories: a path is one sample site."""

import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from gtm_pyro.transitions import Transition


class _Draw(NamedTuple):
    """How a value was drawn: its standard normal noise, and the steps that made it.

    The tensors of the steps are kept, so that no other tensor can take their identity or address.
    """

    unit_noise: Tensor
    origin: tuple[object, ...]
    kept: list[Tensor]


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
    :raises ValueError: shapes that do not fit.
    """

    arg_constraints = {"actions": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self, initial: TorchDistribution, transition: Transition, actions: Tensor, validate_args: bool | None = None
    ) -> None:
        dim = transition.state_dim
        if initial.event_shape != (dim,):
            raise ValueError(f"initial: expected event shape ({dim},), got {tuple(initial.event_shape)}")
        if actions.dim() < 2 or actions.shape[-1] != transition.action_dim:
            raise ValueError(f"actions: expected (..., time, {transition.action_dim}), got {tuple(actions.shape)}")
        batch_shape = torch.broadcast_shapes(initial.batch_shape, actions.shape[:-2])
        self.initial = initial.expand(batch_shape)
        self.transition, self.actions = transition, actions
        super().__init__(batch_shape, torch.Size((actions.shape[-2], dim)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TransitionPath":
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(TransitionPath, _instance)
        new.transition, new.actions = self.transition, self.actions
        new.initial = self.initial.expand(batch_shape)
        super(TransitionPath, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        shape = self._extended_shape(sample_shape)
        start = self.initial.rsample(sample_shape)
        unit = torch.randn(shape, dtype=start.dtype, device=start.device)
        actions = self.actions.expand(*shape[:-2], *self.actions.shape[-2:])
        path = self.transition.rollout(start, actions, self.transition.scale * unit)
        if path.grad_fn is not None:  # otherwise the gradient of log_prob cannot come through the draw
            kept = [self.actions, *self._state()]
            path._gtm_draw = _Draw(unit, self._origin(path), kept)  # type: ignore[attr-defined]
        return path

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        first = self.initial.log_prob(value[..., 0, :])
        scale = self.transition.scale
        draw: _Draw | None = getattr(value, "_gtm_draw", None)
        if draw is not None and draw.origin == self._origin(value):
            residual = draw.unit_noise[..., 1:, :]
        else:
            residual = (value[..., 1:, :] - self.transition.loc(value[..., :-1, :], self.actions[..., 1:, :])) / scale
        steps = -0.5 * residual.square() - scale.log() - 0.5 * math.log(2 * math.pi)
        return first + steps.sum((-2, -1))

    def _state(self) -> list[Tensor]:
        return [*self.transition.parameters(), *self.transition.buffers()]

    def _origin(self, value: Tensor) -> tuple[object, ...]:
        """Equal for two paths and a value only if the same steps made it and nothing has changed since."""
        actions, state = self.actions, [(id(t), t.data_ptr(), t._version, t.requires_grad) for t in self._state()]
        where = (actions.data_ptr(), actions.shape, actions.stride(), actions._version, actions.requires_grad)
        return id(self.transition), value._version, *where, *state
