"""Agents that slide along straight walls: half-spaces cut a move short, each along its own normal."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.transitions.recurrence import unroll
from gtm_pyro.transitions.translation import Translation

# of walls that nobody found yet: farther than any agent walks
FAR = 1e4


class SlidingTranslation(Translation):
    """s_t = u - sum_i relu(n_i u - b_i) n_i + epsilon_t, u = s_{t-1} + M a_t: walls cut a move short and let it slide.

    Wall i is the line n_i s = b_i, with n_i a unit vector that points out of the room. What of a move would lead
    through it is left out, and what leads along it is carried out, which no scalar gate of eq. (4), Fraccaro et al.
    2018, can say: there a move is made or not made as a whole. There are two walls a dimension, as of a rectangle:
    while they stand at right angles, an agent never gets beyond one.

    Parameters ``normals``: ``(2 state_dim, state_dim)``, divided by their lengths to give n_i, and ``offsets``: b_i,
    ``(2 state_dim,)``, in units of the state space. Walls start far away, from where no gradient moves them: starting
    values put them where the agent met them (:class:`~gtm_pyro.initialisation.LoopClosure`).

    The rest as of :class:`Translation`.
    """

    walled = True

    def __init__(
        self,
        action_dim: int,
        state_dim: int = 2,
        scale: float = 1e-3,
        learn_scale: bool = False,
        slip: float = 0.0,
        slip_scale: float = 1.0,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale, slip, slip_scale)
        axes = torch.eye(state_dim)
        normals = torch.cat([axes, -axes])
        self.normals, self.offsets = nn.Parameter(normals), nn.Parameter(torch.empty(len(normals)))
        self.open_walls()

    @torch.no_grad()
    def open_walls(self) -> None:
        """Move all walls far away: a world without."""
        self.offsets.fill_(FAR)

    @property
    def unit_normals(self) -> Tensor:
        """n_i, ``(2 state_dim, state_dim)``."""
        return F.normalize(self.normals, dim=-1)

    def slide(self, u: Tensor) -> Tensor:
        """Where an agent gets that wants to be at ``u`` ``(..., state_dim)``."""
        normals = self.unit_normals
        return u - (u @ normals.mT - self.offsets).relu() @ normals

    def loc(self, s: Tensor, actions: Tensor) -> Tensor:
        return self.slide(s + self.moves(actions))

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        return unroll(self.loc, start, actions, noise)

    def stepping(self, controls: Tensor) -> Callable[[Tensor, int], Tensor]:
        if any(
            getattr(type(self), name) is not getattr(SlidingTranslation, name) for name in ("loc", "moves", "slide")
        ):
            return super().stepping(controls)  # a subclass that changes a step
        normals, beyond = self.unit_normals, -self.offsets
        across = normals.mT.contiguous()
        moves = self.moves(controls).movedim(-2, 0).contiguous().unbind(0)

        def step(s: Tensor, t: int) -> Tensor:
            u = s + moves[t]
            return torch.addmm(u, torch.addmm(beyond, u, across).relu_(), normals, alpha=-1)

        return step
