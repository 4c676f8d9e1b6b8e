"""How far an action moves an agent: the unit in which distances from landmarks are told."""

import torch
from torch import Tensor

from gtm_pyro.transitions import Transition


def turning_radius(transition: Transition, actions: Tensor) -> Tensor:
    """How far a turn of one radian moves things, in state units, ``(batch,)``: the unit of headings in distances.

    It is how far, as a root mean square over the steps that move, the episode's path by actions alone is from its
    middle: so much is the position at one end changed by a wrong heading at the other. 1 for a path without extent.

    :param transition: one with a heading.
    :param actions: ``(batch, T, action_dim)``.
    """
    start = actions.new_zeros(len(actions), transition.state_dim)
    still = start.unsqueeze(1).expand(-1, actions.shape[1], -1)
    path = transition.rollout(start, actions, still).detach()
    if actions.shape[1] < 2:
        return actions.new_ones(len(actions))
    step = path.diff(dim=1).abs()
    length = step.sum(-1, keepdim=True)
    moved = length > 1e-3 * length.amax(1, keepdim=True)
    # steps without a move do not count towards the middle
    counted = torch.cat([torch.ones_like(moved[:, :1]), moved], 1).to(path)
    place = path[..., :2]
    middle = (counted * place).sum(1, keepdim=True) / counted.sum(1, keepdim=True)
    away = (counted * (place - middle).square().sum(-1, keepdim=True)).sum(1) / counted.sum(1)
    radius = away.squeeze(-1).sqrt()
    turn = (counted[:, 1:, 0] * step[..., 2]).sum(1) / counted[:, 1:, 0].sum(1).clamp_min(1)
    return torch.where(radius > turn, radius, 1.0)


def typical_move(transition: Transition, actions: Tensor, radius: Tensor | None = None) -> Tensor:
    """Root mean square length of the moves of each episode, in state units, ``(batch,)``; 1 where nothing moves.

    :param actions: ``(batch, T, action_dim)``.
    :param radius: the length of a turn of one radian, ``(batch,)``; None where no coordinate is a heading.
    """
    moves = free_moves(transition, actions, radius)[:, 1:]
    if not moves.shape[1]:
        return actions.new_ones(len(actions))
    length = moves.norm(dim=-1)
    moving = length > 0.1 * length.amax(-1, keepdim=True)
    square = (length.square() * moving).sum(-1) / moving.sum(-1).clamp_min(1)
    return torch.where(moving.any(-1), square.sqrt(), 1.0)


def free_moves(transition: Transition, actions: Tensor, radius: Tensor | None = None) -> Tensor:
    """Where actions lead from the origin if nothing is in the way, ``(batch, T, state_dim)``.

    :param actions: ``(batch, T, action_dim)``.
    :param radius: as of :func:`typical_move`: headings are in state units.
    """
    origin = actions.new_zeros(transition.state_dim)
    free = getattr(transition, "moves", lambda a: transition.loc(origin, transition.controls(a)) - origin)
    moves: Tensor = free(actions).detach()
    if radius is None:
        return moves
    return moves * torch.stack([torch.ones_like(radius), torch.ones_like(radius), radius], -1).unsqueeze(1)


def one_hot(actions: Tensor) -> Tensor:
    """Whether all actions of an episode but the first, which is not used, are one-hot: ``(batch,)``.

    :param actions: ``(batch, T, action_dim)``, in their units.
    """
    used = actions[:, 1:]
    return ((used == 0) | (used == 1)).all(-1).all(-1) & (used.sum(-1) == 1).all(-1)
