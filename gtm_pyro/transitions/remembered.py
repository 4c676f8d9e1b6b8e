"""Walls that are read from the memory: what was seen of a place says whether it can be entered."""

import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.networks.walls import WallNetwork
from gtm_pyro.poses.planar import turned
from gtm_pyro.transitions.rotation import RotatingTranslation

# log odds beyond which no frame is believed: a path that contradicts one stays possible
_SUREST = 8.0


class SeenWalls(NamedTuple):
    """What memorised frames say of the places around them.

    :ivar states: where they were seen, ``(*batch, N, 3)``.
    :ivar maps: logits of :class:`~gtm_pyro.networks.walls.WallNetwork`, ``(*batch, N, side, side)``.
    """

    states: Tensor
    maps: Tensor


class RememberedWalls(RotatingTranslation):
    """p(s_t | s_{t-1}, a_t, m) = (1 - beta_t) N(u_t, r² I) + beta_t N(v_t, r² I): walls that are other in each world.

    u_t = s_{t-1} + R(s_{t-1}^(3)) M a_t is where the action leads in the open, as in eq. (5), Fraccaro et al. 2018; v_t
    has its heading and the position of s_{t-1}: a wall stops a move, not a turn. Whether it does is read from the
    memory: a network says of each memorised frame which places around it are walls, and beta_t is what the surest frame
    says that shows the position of u_t; where none does, beta_t = sigmoid(-8). No anchor has this part.

    Without a memory, a step is that of :class:`RotatingTranslation`. :class:`~gtm_pyro.paths.remembered.RememberedPath`
    scores and draws paths with one, :meth:`reading` imagines with one, :meth:`told` does what is known to have been.

    :param frame_shape: ``(C, H, W)``.
    :param side: places of a map along each axis, odd. Neighbours are one move apart, that of the action that moves the
        farthest, and its direction is the map's first axis.
    :param hidden: units of the network's hidden layer.
    """

    reads_memory = True

    def __init__(
        self,
        action_dim: int,
        frame_shape: tuple[int, int, int],
        scale: float = 1e-3,
        learn_scale: bool = False,
        side: int = 13,
        hidden: int = 128,
    ) -> None:
        super().__init__(action_dim, scale, learn_scale)
        self.walls = WallNetwork(frame_shape, side, hidden)
        self._seen: SeenWalls | None = None
        self._told = False

    def shown(self, s: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """What a memory holds of frames for :meth:`reading`: their maps, without gradients."""
        with torch.no_grad():
            maps = self.walls(frames)
        return {"walls": maps.expand(*s.shape[:-1], *maps.shape[-2:])}

    def reading(self, memory: Any) -> Self:
        """This transition with a memory whose values hold "state" and what :meth:`shown` gives.

        Its ``rollout`` stops where a wall is more likely than not.
        """
        values = memory.values.gather(None)
        new = copy.copy(self)
        new._seen = SeenWalls(values["state"].squeeze(-3), values["walls"].squeeze(-4))
        return new

    def told(self) -> Self:
        """This transition where it is known which moves a wall stopped.

        A further, last number of its actions is over 0 where one was; its ``controls`` leave these moves out.
        """
        new = copy.copy(self)
        new._told, new.action_dim = True, self.action_dim + 1
        return new

    def standard(self, actions: Tensor) -> Tensor:
        return super().standard(actions[..., :-1] if self._told else actions)

    def controls(self, actions: Tensor, past: Tensor | None = None) -> Tensor:
        moves = super().controls(actions, past)
        if not self._told:
            return moves
        return torch.cat([moves[..., :2] * (actions[..., -1:] <= 0), moves[..., 2:]], -1)

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        if self._seen is None:
            return super().rollout(start, actions, noise, past)
        moves, path = self.controls(actions, past), [start]
        for t in range(1, moves.shape[-2]):
            free = self.loc(path[-1], moves[..., t, :])
            logit = self.wall_logit(self._seen, free.unsqueeze(-2)).squeeze(-1)
            path.append(torch.where((logit > 0).unsqueeze(-1), self.stopped(path[-1], free), free) + noise[..., t, :])
        return torch.stack(path, -2)

    @staticmethod
    def stopped(s: Tensor, free: Tensor) -> Tensor:
        """v_t, of s_{t-1} and u_t, ``(..., 3)`` each: the turn alone."""
        return torch.cat([s[..., :2].expand_as(free[..., :2]), free[..., 2:]], -1)

    def own_wall_logit(self, maps: Tensor, actions: Tensor) -> Tensor:
        """What the frame that an agent sees says of where its next action leads, ``(*batch)``.

        :param maps: of those frames, ``(*batch, side, side)``.
        :param actions: ``(*batch, action_dim)``.
        """
        moves = super().controls(actions)[..., None, :2]
        here = SeenWalls(moves.new_zeros(*moves.shape[:-1], 3), maps.unsqueeze(-3))
        return self.wall_logit(here, moves).squeeze(-1)

    def wall_logit(self, seen: SeenWalls, places: Tensor, allowed: Tensor | None = None) -> Tensor:
        """logit of beta at ``places`` ``(*batch, Q, 2 or more)``, ``(*batch, Q)``, by the surest entry that shows each.

        :param allowed: entries that a place may be read from, ``(Q, N)``. None: all.
        """
        logits, known = self.each_wall_logit(seen, places)
        if allowed is not None:
            known = known & allowed
        surest = logits.detach().abs().masked_fill(~known, -1.0).argmax(-1, keepdim=True)
        logit = logits.gather(-1, surest).squeeze(-1)
        return torch.where(known.any(-1), logit, -_SUREST)

    def each_wall_logit(self, seen: SeenWalls, places: Tensor) -> tuple[Tensor, Tensor]:
        """What each entry says of ``places`` ``(*batch, Q, 2 or more)``, ``(*batch, Q, N)``, and whether it shows them.

        Gradients are those of the maps alone.
        """
        ahead = self.displacement.detach()[:2]
        ahead = ahead[:, ahead.norm(dim=0).argmax()]
        states, places = seen.states.detach().unsqueeze(-3), places.detach()[..., :2].unsqueeze(-2)
        # of the map's axes: the move ahead is the first
        direction = torch.atan2(ahead[1], ahead[0])
        away = turned(places - states[..., :2], -(states[..., 2] + direction))
        index = (away / ahead.norm().clamp_min(1e-12)).round() + seen.maps.shape[-1] // 2
        side = seen.maps.shape[-1]
        known = ((index >= 0) & (index < side)).all(-1)
        flat = (index.clamp(0, side - 1) * index.new_tensor([side, 1])).sum(-1).long()
        # one read of all: (*batch, N, Q)
        maps = seen.maps.flatten(-2)
        batch = torch.broadcast_shapes(flat.shape[:-2], maps.shape[:-2])
        maps = maps.expand(*batch, *maps.shape[-2:])
        read = maps.gather(-1, flat.mT.expand(*batch, *flat.mT.shape[-2:]))
        return _SUREST * torch.tanh(read.mT / _SUREST), known

    def wall_loss(self, maps: Tensor, states: Tensor, controls: Tensor, blocked: Tensor) -> Tensor:
        """Cross-entropy of what each frame says of each place that a path tells of, in nats a path: ``(*batch)``.

        Of every step that moved, the place that was moved to is free; of one that was blocked, the place where it would
        have led is a wall. Each place counts once, however many frames show it.

        :param maps: of the frames of the path, ``(*batch, N, side, side)``.
        :param states: ``(*batch, T, 3)``, whose first N are those of the frames.
        :param controls: what the actions do in the open, ``(*batch, T, 3)``.
        :param blocked: ``(*batch, T)``.
        """
        tried = self.loc(states[..., :-1, :], controls[..., 1:, :])
        logits, known = self.each_wall_logit(SeenWalls(states[..., : maps.shape[-3], :], maps), tried)
        moves = controls[..., 1:, :2].norm(dim=-1)
        known = known & (moves > 0.1 * moves.amax(-1, keepdim=True)).unsqueeze(-1)
        target = blocked[..., 1:, None].to(logits).expand_as(logits)
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
        return (each.sum(-1) / known.sum(-1).clamp_min(1)).sum(-1)
