"""Distributions over whole trajectories: a path is one sample site."""

import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from gtm_pyro.transitions import Transition


class _Draw(NamedTuple):
    """How a value was drawn: its standard normal noise, and what made it (the path is kept: addresses stay taken)."""

    unit_noise: Tensor
    path: "TransitionPath"
    origin: tuple[object, ...]


class TransitionPath(TorchDistribution):
    """The path of a state-space model driven by actions, as one random variable.

    Generative process::

        s_1 ~ initial
        for t in 2..T:
            s_t ~ transition(s_{t-1}, a_t)

    which is prod_t p(s_t | s_{t-1}, a_t) of eq. (1) and eq. (2), Fraccaro et al. 2018. ``rsample`` rolls the
    recurrence; ``log_prob`` scores all steps in one call. Like torch's transforms, a draw remembers the noise that made
    it, so that scoring it under the same transition and actions costs no further pass (value and total gradient are
    those of the plain formula).

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
        path._gtm_draw = _Draw(unit, self, self._origin(path))  # type: ignore[attr-defined]
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

    def _origin(self, value: Tensor) -> tuple[object, ...]:
        """Equal for two paths and values only if the same steps made them and nothing has changed since."""
        actions, versions = self.actions, [p._version for p in self.transition.parameters()]
        return (
            id(self.transition),
            actions.data_ptr(),
            actions.shape,
            actions.stride(),
            actions._version,
            value._version,
            *versions,
        )
