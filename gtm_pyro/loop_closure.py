"""Starting values for translations, found from frames and actions alone by closing loops."""

from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError

SAME_FRAME = 1e-6


class LoopClosure(NamedTuple):
    """What :func:`close_loops` found.

    :param displacement: M, ``(state_dim, action_dim)``.
    :param eigenvalues: of C in ascending order, one for each action that was seen to move.
    :param num_loops: pairs of steps that C was made from.
    """

    displacement: Tensor
    eigenvalues: Tensor
    num_loops: int


def frame_changed(frames: Tensor, tolerance: float = SAME_FRAME) -> Tensor:
    """Whether each step's frame differs from the one before, ``(batch, time)``; the first never does.

    :param frames: ``(batch, time, C, H, W)``.
    :param tolerance: mean squared difference of a pixel up to which two frames look the same.
    """
    change = (frames[:, 1:] - frames[:, :-1]).square().mean((-3, -2, -1)) > tolerance
    return torch.cat([torch.zeros_like(change[:, :1]), change], 1)


def most_textured(frames: Tensor, share: float = 0.5) -> Tensor:
    """The ``share`` of episodes whose plainest frame has the most texture: their numbers, ``(n,)``.

    A frame without texture looks the same in several places, and closes loops that are none.
    """
    plainest = frames.std((-2, -1)).mean(-1).amin(1)
    return plainest.argsort(descending=True)[: max(1, round(share * len(plainest)))]


def close_loops(frames: Tensor, actions: Tensor, state_dim: int, tolerance: float = SAME_FRAME) -> LoopClosure:
    """A displacement matrix M under which loops close.

    For two steps whose frames look the same, the counts n of the actions between them satisfy n M^T = 0. Let
    C = mean(n n^T / |n|²) over such pairs: the eigenvectors of its smallest eigenvalues, among actions seen to move,
    span the rows of M, which is thereby known up to an invertible map of the state space. An action after which the
    frame did not change is not counted: a blocked move moves nothing.

    :param frames: ``(batch, time, C, H, W)``.
    :param actions: ``(batch, time, action_dim)``.
    :raises EpisodesError: fewer actions that move than ``state_dim``, or no loop.
    """
    changed = frame_changed(frames, tolerance).to(actions.dtype).unsqueeze(-1)
    counts = (actions * changed).cumsum(1)
    moving = (actions.abs() * changed).sum((0, 1)) > 0
    if int(moving.sum()) < state_dim:
        raise EpisodesError(
            f"actions: expected at least {state_dim} that change the frame, one a state dimension, "
            f"got {int(moving.sum())}"
        )
    flat = frames.flatten(2)
    alike = torch.cdist(flat, flat).square() / flat.shape[-1] <= tolerance
    episode, later, earlier = alike.tril(-1).nonzero().unbind(-1)
    n = (counts[episode, later] - counts[episode, earlier])[:, moving]
    n = n[n.any(-1)]
    if not len(n):
        raise EpisodesError(
            "frames: expected an agent that comes back to where it was, got no two frames that look the same"
        )
    n = n / n.norm(dim=-1, keepdim=True)
    eigenvalues, vectors = torch.linalg.eigh((n.t() @ n / len(n)).double())
    displacement = torch.zeros(state_dim, actions.shape[-1], dtype=actions.dtype, device=actions.device)
    displacement[:, moving] = vectors[:, :state_dim].t().to(actions.dtype)
    return LoopClosure(displacement, eigenvalues, len(n))


class Outcomes(NamedTuple):
    """What became of the moves that were tried.

    :param target: places that were tried, ``(n, state_dim)``.
    :param reached: the share of tries that got there, ``(n,)``.
    :param weight: weights that sum to one.
    """

    target: Tensor
    reached: Tensor
    weight: Tensor


def moves_with_outcome(
    frames: Tensor, actions: Tensor, displacement: Tensor, tolerance: float = SAME_FRAME
) -> Outcomes:
    """Where actions would have led, and whether the agent got there: each place once.

    The path is counted as in :func:`close_loops`; actions that displace nothing are left out. A place weighs with the
    square root of how often it was tried, so that walls, which are met less often, are heard.

    :param displacement: M, ``(state_dim, action_dim)``.
    """
    changed = frame_changed(frames, tolerance)
    moves = actions @ displacement.t()
    s = (moves * changed.unsqueeze(-1)).cumsum(1)
    target, outcome = s[:, :-1] + moves[:, 1:], changed[:, 1:]
    length = moves[:, 1:].norm(dim=-1)
    tried = length > 0.1 * length.max()
    grain = 1e-3 * float(length.max())
    places, place = torch.unique((target[tried] / grain).round(), dim=0, return_inverse=True)
    count = torch.bincount(place, minlength=len(places)).to(frames.dtype)
    reached = torch.bincount(place, outcome[tried].to(frames.dtype), minlength=len(places)) / count
    return Outcomes(places * grain, reached.to(frames.dtype), count.sqrt() / count.sqrt().sum())
