"""Paths among walls that are read from the memory of what was seen along the path itself."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.transitions.base import log_normal
from gtm_pyro.transitions.remembered import RememberedWalls, SeenWalls


class RememberedPath(TorchDistribution):
    """The path of an agent that is stopped where its memory shows a wall, as one random variable.

    Generative process, with entries m_j of the first N steps, j < t::

        s_1 ~ initial
        for t in 2..T:
            s_t ~ (1 - beta_t) N(u_t, r² I) + beta_t N(v_t, r² I)

    :class:`~gtm_pyro.transitions.remembered.RememberedWalls` says what u_t, v_t and beta_t are. An entry's place is the
    path's own state, so the memory moves with the path. Differentiable in the transition's parameters, in the maps and
    in the value but for the places of entries; what a draw chooses has no gradient.

    Batch shape ``(*batch)``, event shape ``(T, 3)``.

    :param initial: p(s_1), event shape ``(3,)``, broadcastable to ``batch``.
    :param transition: p(s_t | s_{t-1}, a_t, m).
    :param actions: ``(*batch, T, action_dim)``; the first is not used.
    :param maps: logits of walls around the agent at the first N steps, ``(*batch, N, side, side)``.
    :raises ValueError: shapes that do not fit.
    """

    arg_constraints = {"actions": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        initial: TorchDistribution,
        transition: RememberedWalls,
        actions: Tensor,
        maps: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        if initial.event_shape != (3,):
            raise ValueError(f"initial: expected event shape (3,), got {tuple(initial.event_shape)}")
        if actions.dim() < 2 or actions.shape[-1] != transition.action_dim:
            raise ValueError(f"actions: expected (..., time, {transition.action_dim}), got {tuple(actions.shape)}")
        if maps.dim() < 3 or not 1 <= maps.shape[-3] <= actions.shape[-2]:
            raise ValueError(
                f"maps: expected (..., 1 to {actions.shape[-2]} steps, side, side), got {tuple(maps.shape)}"
            )
        batch = torch.broadcast_shapes(initial.batch_shape, actions.shape[:-2], maps.shape[:-3])
        self.initial, self.transition = initial.expand(batch), transition
        self.actions, self.maps = actions, maps
        super().__init__(batch, torch.Size((actions.shape[-2], 3)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "RememberedPath":
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(RememberedPath, _instance)
        new.initial, new.transition = self.initial.expand(batch_shape), self.transition
        new.actions, new.maps = self.actions, self.maps
        super(RememberedPath, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        path = [self.initial.rsample(sample_shape)]
        while len(path) < self.event_shape[0]:
            path.append(self._next(path))
        return torch.stack(path, -2)

    def following(self, before: Tensor) -> Tensor:
        """A draw of s_t given s_{1:t-1}, ``(..., t - 1, 3)`` to ``(..., 3)``."""
        return self._next(list(before.unbind(-2)))

    def _next(self, path: list[Tensor]) -> Tensor:
        t = len(path)
        free = self.transition.loc(path[-1], self.transition.controls(self.actions)[..., t, :])
        known = min(t, self.maps.shape[-3])
        seen = SeenWalls(torch.stack(path[:known], -2), self.maps[..., :known, :, :])
        beta = self.transition.wall_logit(seen, free.detach().unsqueeze(-2)).squeeze(-1).sigmoid()
        wall = torch.rand_like(beta.expand(free.shape[:-1])) < beta
        loc = torch.where(wall.unsqueeze(-1), self.transition.stopped(path[-1], free), free)
        return loc + self.transition.scale * torch.randn_like(free)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        first = self.initial.log_prob(value[..., 0, :])
        before, after = value[..., :-1, :], value[..., 1:, :]
        free = self.transition.loc(before, self.transition.controls(self.actions)[..., 1:, :])
        scale, entries = self.transition.scale, self.maps.shape[-3]
        time = torch.arange(value.shape[-2] - 1, device=value.device)
        # the move to step t + 1 is made with what was seen up to step t
        allowed = torch.arange(entries, device=value.device) <= time.unsqueeze(-1)
        logit = self.transition.wall_logit(SeenWalls(value[..., :entries, :], self.maps), free, allowed)
        parts = [
            F.logsigmoid(sign * logit) + log_normal((after - loc) / scale, scale).sum(-1)
            for sign, loc in ((-1, free), (1, self.transition.stopped(before, free)))
        ]
        return first + torch.logaddexp(*parts).sum(-1)
