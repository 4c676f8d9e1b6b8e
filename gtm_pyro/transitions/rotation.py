"""Agents that turn: displacements are in the agent's frame, and its heading is part of the state."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError
from gtm_pyro.poses.planar import turned
from gtm_pyro.transitions.base import Transition
from gtm_pyro.transitions.recurrence import unroll

Momentum = Literal["agent", "world"]


class RotatingTranslation(Transition):
    """s_t = s_{t-1} + R(s_{t-1}^(3)) M a_t + epsilon_t: eq. (5), Fraccaro et al. 2018.

    A state is a position and a heading in radians, ``state_dim`` 3; R turns the first two coordinates of M a_t, the
    displacement in the agent's frame, by the heading. Paths are cumulative sums: of turns, then of turned moves.
    Parameter ``displacement``: M of actions in their ``action_unit``, ``(3, action_dim)``.

    :param action_dim: length of an action vector.
    :param scale: r, the standard deviation of a step, in units of the state space and in radians.
    :param learn_scale: make r a parameter.
    """

    heading = True

    def __init__(self, action_dim: int, scale: float = 1e-3, learn_scale: bool = False) -> None:
        super().__init__(action_dim, 3, scale, learn_scale)
        self.displacement = nn.Parameter(0.1 * torch.randn(3, action_dim))

    def controls(self, actions: Tensor, past: Tensor | None = None) -> Tensor:
        """d_t = M a_t, displacements in the agent's frame, ``(*batch, T, 3)``; actions ``(*batch, T, action_dim)``."""
        return F.linear(self.standard(actions), self.displacement)

    def loc(self, s: Tensor, control: Tensor) -> Tensor:
        return s + turned(control, s[..., 2])

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        if type(self).loc is not RotatingTranslation.loc:
            return super().rollout(start, actions, noise, past)  # a subclass has another step
        moves, noise = self.controls(actions, past)[..., 1:, :], noise[..., 1:, :]
        heading = torch.cat([start[..., 2:], moves[..., 2] + noise[..., 2]], -1).cumsum(-1)
        steps = turned(moves, heading[..., :-1])[..., :2] + noise[..., :2]
        position = torch.cat([start[..., None, :2], steps], -2).cumsum(-2)
        return torch.cat([position, heading.unsqueeze(-1)], -1)


class MomentumTranslation(RotatingTranslation):
    """An agent with momentum, friction and a top speed: section 4.2.2, Fraccaro et al. 2018.

    s_t = s_{t-1} + R(s_{t-1}^(3)) d_t + epsilon_t, d_t = c_s tanh(sigma(c_f) d_{t-1} + M a_t), element by element. The
    agent is at rest in the first state, d_1 = 0. Displacements follow from the actions alone, so they are no part of
    the state. Parameters ``friction``: c_f, and ``saturation``: c_s, each ``(3,)``.

    :param momentum: "agent": d_{t-1} is carried over as it is, as in the paper, and turns with the agent; "world": its
        direction in the world is kept, R(-d_{t-1}^(3)) d_{t-1} is carried over.

    The rest as of :class:`RotatingTranslation`.
    """

    def __init__(
        self,
        action_dim: int,
        scale: float = 1e-3,
        learn_scale: bool = False,
        momentum: Momentum = "agent",
    ) -> None:
        super().__init__(action_dim, scale, learn_scale)
        if momentum not in ("agent", "world"):
            raise ConfigError(f"momentum: expected 'agent' or 'world', got {momentum!r}")
        self.momentum = momentum
        self.friction, self.saturation = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))

    def extra_repr(self) -> str:
        return f"momentum={self.momentum!r}"

    def controls(self, actions: Tensor, past: Tensor | None = None) -> Tensor:
        """d_t, ``(*batch, T, 3)``: see :meth:`Transition.controls`."""
        if past is not None:
            whole = torch.cat([past, actions[..., 1:, :]], -2)
            return self.controls(whole)[..., past.shape[-2] - 1 :, :]
        pushes = F.linear(self.standard(actions), self.displacement)
        rest = torch.zeros_like(pushes[..., 0, :])
        return unroll(self._next, rest, pushes, torch.zeros_like(pushes))

    def _next(self, d: Tensor, push: Tensor) -> Tensor:
        if self.momentum == "world":
            d = turned(d, -d[..., 2])
        return self.saturation * torch.tanh(self.friction.sigmoid() * d + push)
