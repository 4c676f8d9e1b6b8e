"""Starting values for translations, found from frames and actions alone by closing loops."""

from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.localisation.same_frames import SAME_FRAME, frame_changed, same_frames

_CLOSED = 0.02  # |M n| / |n| up to which a loop is closed


class ClosedLoops(NamedTuple):
    """What :func:`close_loops` found.

    :param displacement: M, ``(state_dim, action_dim)``.
    :param eigenvalues: of C in ascending order, one for each action that was seen to move.
    :param num_loops: pairs of steps that C was made from.
    """

    displacement: Tensor
    eigenvalues: Tensor
    num_loops: int


def most_textured(frames: Tensor, share: float = 0.5) -> Tensor:
    """The ``share`` of episodes whose plainest frame has the most texture: their numbers, ``(n,)``.

    A frame without texture looks the same in several places, and closes loops that are none.
    """
    plainest = frames.std((-2, -1)).mean(-1).amin(1)
    return plainest.argsort(descending=True)[: max(1, round(share * len(plainest)))]


def close_loops(frames: Tensor, actions: Tensor, state_dim: int, tolerance: float = SAME_FRAME) -> ClosedLoops:
    """A displacement matrix M under which loops close.

    For two steps whose frames look the same, the counts n of the actions between them satisfy n M^T = 0. Let
    C = mean(n n^T / |n|²) over such pairs: the eigenvectors of its smallest eigenvalues, among actions seen to move,
    span the rows of M, which is thereby known up to an invertible map of the state space. An action after which the
    frame did not change is not counted: a blocked move moves nothing.

    :param frames: ``(batch, time, C, H, W)``.
    :param actions: ``(batch, time, action_dim)``, each number in its own unit: see ``Transition.standard``.
    :raises EpisodesError: fewer actions that move than ``state_dim``, or no loop.
    """
    changed = frame_changed(frames, tolerance).to(actions.dtype).unsqueeze(-1)
    counts = (actions * changed).double().cumsum(1)
    moving = (actions.abs() * changed).sum((0, 1)) > 0
    _check_moving(moving, state_dim)
    episode, later, earlier = same_frames(frames, tolerance).tril(-1).nonzero().unbind(-1)
    n = _directions((counts[episode, later] - counts[episode, earlier]).to(actions.dtype), moving, actions)
    eigenvalues, vectors = torch.linalg.eigh((n.t() @ n / len(n)).double())
    return ClosedLoops(_embed(vectors, moving, state_dim, actions), eigenvalues, len(n))


def _check_moving(moving: Tensor, state_dim: int) -> None:
    if int(moving.sum()) < state_dim:
        raise EpisodesError(
            f"actions: expected at least {state_dim} that change the frame, one a state dimension, "
            f"got {int(moving.sum())}"
        )


def _directions(counts: Tensor, moving: Tensor, actions: Tensor) -> Tensor:
    """n / |n| of the actions that move, where n is not zero."""
    n = _not_zero(counts[:, moving], actions[..., moving])
    if not len(n):
        raise EpisodesError(
            "frames: expected an agent that comes back to where it was, got no two frames that look the same"
        )
    return n / n.norm(dim=-1, keepdim=True)


def _not_zero(n: Tensor, actions: Tensor) -> Tensor:
    """Sums of actions that are not zero; of real numbers, rounding leaves a little of sums that are."""
    return n[n.abs().amax(-1) > 1e-6 * actions.abs().max()]


def _embed(vectors: Tensor, moving: Tensor, state_dim: int, actions: Tensor) -> Tensor:
    displacement = torch.zeros(state_dim, actions.shape[-1], dtype=actions.dtype, device=actions.device)
    displacement[:, moving] = vectors[:, :state_dim].t().to(actions.dtype)
    return displacement


def close_short_loops(
    frames: Tensor,
    actions: Tensor,
    state_dim: int,
    tolerance: float = SAME_FRAME,
    max_gap: int = 8,
    rounds: int = 10,
) -> ClosedLoops:
    """A displacement matrix M under which short loops close, where some actions fail or some places look alike.

    As :func:`close_loops`, from pairs of at most ``max_gap`` steps apart, which few failures spoil. An action counts as
    one that moves if the frame changes after it at least half as often as after any other; a loop through a frame that
    changed after an action that does not move is left out. Then in each round a pair weighs w = (1 + |M n|² / d²)^-2,
    the weight of Geman and McClure (1987), with d halved every round; the last takes the pairs with |M n| < 0.02 alone.

    :raises EpisodesError: fewer actions that move than ``state_dim``, or no loop.
    """
    changed = frame_changed(frames, tolerance)
    moved = actions * changed.unsqueeze(-1)
    share = moved.abs().sum((0, 1)) / actions.abs().sum((0, 1)).clamp_min(1e-12)
    moving = (share > 0.5 * share.max()) & (share > 0)
    _check_moving(moving, state_dim)
    counts = moved.double().cumsum(1)
    odd = (changed & (actions[..., moving].abs().sum(-1) == 0)).long().cumsum(1)
    alike = same_frames(frames, tolerance).tril(-1).triu(-max_gap)
    alike &= odd.unsqueeze(2) == odd.unsqueeze(1)
    episode, later, earlier = alike.nonzero().unbind(-1)
    n = _directions((counts[episode, later] - counts[episode, earlier]).to(actions.dtype), moving, actions)
    weight = n.new_ones(len(n))
    for i in range(rounds):
        eigenvalues, vectors = torch.linalg.eigh(((n * weight.unsqueeze(-1)).t() @ n / weight.sum()).double())
        residual = (n @ vectors[:, :state_dim].to(n.dtype)).norm(dim=-1)
        close = residual < _CLOSED
        if i < rounds - 2:
            weight = (1 + (residual / max(0.5 ** (i + 1), _CLOSED)).square()).pow(-2)
        elif bool(close.any()):
            weight = close.to(n.dtype)
    return ClosedLoops(_embed(vectors, moving, state_dim, actions), eigenvalues, len(n))


def share_open(frames: Tensor, actions: Tensor, displacement: Tensor, tolerance: float = SAME_FRAME) -> float:
    """The share of pairs of equal frames, at any distance in time, between which M leads elsewhere."""
    counts = (actions * frame_changed(frames, tolerance).unsqueeze(-1)).double().cumsum(1)
    episode, later, earlier = same_frames(frames, tolerance).tril(-1).nonzero().unbind(-1)
    n = _not_zero((counts[episode, later] - counts[episode, earlier]).to(actions.dtype), actions)
    return float(((n @ displacement.t()).norm(dim=-1) > _CLOSED * n.norm(dim=-1)).float().mean()) if len(n) else 0.0


class Outcomes(NamedTuple):
    """What became of the moves that were tried, each place once.

    :param target: places that were tried, ``(n, state_dim)``.
    :param reached: the share of tries that got there, ``(n,)``.
    :param tries: how often each was tried, ``(n,)``.
    """

    target: Tensor
    reached: Tensor
    tries: Tensor

    @property
    def weight(self) -> Tensor:
        """Weights that sum to one, ``(n,)``.

        A place weighs with the square root of how often it was tried, so that walls, which are met less often, are
        heard.
        """
        return self.tries.sqrt() / self.tries.sqrt().sum()

    @property
    def clear(self) -> "Outcomes":
        """The places tried often whose outcome is clear, as 0 or 1: where actions fail, a lost move is no wall.

        Places with under a twentieth of the tries of the place most tried, often those of lost agents, and places that
        35 to 65% of tries reached are left out.
        """
        often = self.tries >= 0.05 * self.tries.max() if len(self.tries) else self.tries > 0
        clear = often & ((self.reached - 0.5).abs() > 0.15)
        return Outcomes(self.target[clear], self.reached[clear].round(), self.tries[clear])

    @property
    def consistency(self) -> float:
        """The share of the outcomes' variance that the place explains, from places that were tried more than once.

        1 if each is always or never reached, about 0 if a place tells nothing.
        """
        often = self.tries >= 2
        if not bool(often.any()):
            return 1.0
        n, r = self.tries[often], self.reached[often]
        mean = float((n * r).sum() / n.sum())
        within = float((n * r * (1 - r) * n / (n - 1)).sum() / n.sum())
        return 1 - within / (mean * (1 - mean)) if 0 < mean < 1 else 1.0


def tabulate(target: Tensor, reached: Tensor, tries: Tensor, grain: float) -> Outcomes:
    """Outcomes by place.

    :param target: ``(n, state_dim)``.
    :param reached: whether each try got there, ``(n,)``.
    :param tries: how much each try counts, ``(n,)``.
    :param grain: places are the same that are, coordinate by coordinate, nearest to the same multiple of it.
    """
    places, place = torch.unique((target / grain).round(), dim=0, return_inverse=True)
    count = torch.bincount(place, tries, minlength=len(places))
    share = torch.bincount(place, reached * tries, minlength=len(places)) / count
    return Outcomes(places * grain, share.to(target.dtype), count.to(target.dtype))


def moves_with_outcome(
    frames: Tensor, actions: Tensor, displacement: Tensor, tolerance: float = SAME_FRAME
) -> Outcomes:
    """Where actions would have led, and whether the agent got there.

    The path is counted as in :func:`close_loops`; actions that displace nothing are left out.

    :param displacement: M, ``(state_dim, action_dim)``.
    """
    changed = frame_changed(frames, tolerance)
    moves = actions @ displacement.t()
    s = (moves * changed.unsqueeze(-1)).cumsum(1)
    target, outcome = s[:, :-1] + moves[:, 1:], changed[:, 1:]
    length = moves[:, 1:].norm(dim=-1)
    tried = length > 0.1 * length.max()
    grain = 1e-3 * float(length.max())
    return tabulate(target[tried], outcome[tried], torch.ones_like(length[tried]), grain)
