"""Which moves were blocked: who walks into a wall sees what was seen before.

A blocked move leaves the frame as it was; where places look alike, so do some that succeed. Only what follows tells
them apart: along a wrong path, places that were visited before show other frames.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gtm_pyro.errors import ConfigError, check_positive, check_whole
from gtm_pyro.localisation.moves import free_moves, typical_move
from gtm_pyro.localisation.same_frames import frame_tolerance, small_frames
from gtm_pyro.localisation.selection import Array, compiled
from gtm_pyro.transitions.remembered import RememberedWalls

# of the usual difference of frames in an episode: those that differ by less are the same
_SAME = 1e-3
# of what noise makes of neighbours: there are many more pairs
_MORE = 1.5
# scores are whole numbers of so many parts of a nat: equal ones are equal, in whatever order they were added
_PARTS = 1e6
# frames are averaged to so many pixels a side at most where all pairs are compared
_SIDE = 14
# of a typical move, and of a usual turn: poses that are so near are the same
_NEAR_MOVE, _NEAR_TURN = 0.1, 0.1


class Unlike(NamedTuple):
    """:ivar changed: whether each frame differs from the one before it, ``(batch, T)``; the first does not.
    :ivar pairs: whether frames differ, ``(batch, T, T)``."""

    changed: Tensor
    pairs: Tensor


def unlike(frames: Tensor) -> Unlike:
    """Compare the frames ``(batch, T, C, H, W)`` of each episode, each by itself.

    Where frames repeat exactly, what changed is told exactly; otherwise
    :func:`~gtm_pyro.localisation.same_frames.frame_tolerance` says up to where noise makes frames differ. Any two are
    also the same if they differ by less than a thousandth of what is usual in the episode.
    """
    batch, time = frames.shape[:2]
    step = (frames[:, 1:] - frames[:, :-1]).square().mean((-3, -2, -1))
    exact = (step == 0).any(1) if time > 1 else torch.ones(batch, dtype=torch.bool)
    told = [
        0.0 if known else frame_tolerance(one.unsqueeze(0)) for known, one in zip(exact.tolist(), frames, strict=True)
    ]
    tolerance = step.new_tensor(told).unsqueeze(1)
    changed = torch.cat([torch.zeros(batch, 1, dtype=torch.bool, device=frames.device), step > tolerance], 1)
    flat = small_frames(frames, _SIDE)
    centred = flat - flat.mean(1, keepdim=True)
    square = centred.square().sum(-1)
    apart = (square.unsqueeze(-1) + square.unsqueeze(-2)).baddbmm(centred, centred.mT, alpha=-2) / flat.shape[-1]
    return Unlike(changed, apart > (_MORE * tolerance.unsqueeze(2)).maximum(_SAME * apart.mean((1, 2), keepdim=True)))


@dataclass(frozen=True)
class BlockedSearch:
    """The most probable of many explanations of an episode: which of its moves were blocked.

    Every move after which the frame is what it was has two explanations. Each costs what it is improbable by, beta_t as
    the frame before it says, and ``contradiction`` nats at each step at which the path comes back to a pose that showed
    another frame. Moves after which the frame changed were made.

    :param num_hypotheses: explanations that are kept at each step.
    :param look_alike: probability that a move that is made leaves the frame as it was.
    :param contradiction: in nats.
    :param trust: log odds up to which a frame's own opinion of walls counts; with 0 it does not. Who teaches the
        network by what is found leaves it out, or it proves itself right.
    :raises ConfigError: a number out of its range.
    """

    num_hypotheses: int = 32
    look_alike: float = 0.1
    contradiction: float = 8.0
    trust: float = 4.0

    def __post_init__(self) -> None:
        check_whole(1, num_hypotheses=self.num_hypotheses)
        check_positive(contradiction=self.contradiction)
        if not self.trust >= 0:
            raise ConfigError(f"trust: expected a number of at least 0, got {self.trust}")
        if not 0 < self.look_alike < 1:
            raise ConfigError(f"look_alike: expected a probability between 0 and 1, got {self.look_alike}")

    @torch.no_grad()
    def __call__(self, transition: RememberedWalls, frames: Tensor, actions: Tensor) -> Tensor:
        """Whether each move was blocked, ``(batch, T)``; the first was not.

        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        """
        looks = unlike(frames)
        controls = transition.controls(actions)
        start = controls.new_zeros(len(actions), 3)
        path = transition.rollout(start, actions, torch.zeros_like(controls))
        move, turns = typical_move(transition, actions), controls[:, 1:, 2].abs()
        length = free_moves(transition, actions)[..., :2].norm(dim=-1)
        asked = ~looks.changed & (length > 0.1 * move.unsqueeze(1))
        asked[:, 0] = False
        logit = torch.zeros_like(length)
        if actions.shape[1] > 1:
            logit[:, 1:] = transition.own_wall_logit(transition.walls(frames[:, :-1]), actions[:, 1:])
        logit = logit.clamp(-self.trust, self.trust)
        log_blocked = logsigmoid(logit)
        log_made = logsigmoid(-logit) + math.log(self.look_alike)
        turning = turns > 0.1 * turns.amax(-1, keepdim=True) if turns.shape[1] else turns > 0
        turn = (turns * turning).sum(-1) / turning.sum(-1).clamp_min(1)
        told = _explain(
            _array(path.diff(dim=1, prepend=path[:, :1])[..., :2]),
            _array(path[..., 2]),
            looks.pairs.cpu().numpy(),
            asked.cpu().numpy(),
            _parts(log_made),
            _parts(log_blocked),
            _array((_NEAR_MOVE * move).square()),
            _array((_NEAR_TURN * torch.where(turn > 0, turn, 1.0).clamp_max(1.0)).cos()),
            round(_PARTS * self.contradiction),
            self.num_hypotheses,
        )
        return torch.from_numpy(told).to(actions.device)


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().double().numpy())


def _parts(nats: Tensor) -> Array:
    return np.rint(_PARTS * _array(nats)).astype(np.int64)


@compiled
def _explain(
    moves: Array,
    heading: Array,
    differ: Array,
    asked: Array,
    log_made: Array,
    log_blocked: Array,
    near: Array,
    same_heading: Array,
    cost: int,
    size: int,
) -> Array:
    """Beam search, episode by episode: (B, T) booleans, blocked. Arrays as of ``BlockedSearch``, ``near`` squared."""
    batch, steps = asked.shape
    result = np.zeros((batch, steps), np.bool_)
    for b in range(batch):
        path = np.zeros((2 * size, steps, 2))
        blocked = np.zeros((2 * size, steps), np.bool_)
        score = np.zeros(2 * size, np.int64)
        count = 1
        against = np.zeros(steps, np.int64)
        stays = np.zeros(2 * size, np.bool_)
        for t in range(1, steps):
            num = 0
            for j in range(t):
                if differ[b, t, j] and math.cos(heading[b, t] - heading[b, j]) >= same_heading[b]:
                    against[num] = j
                    num += 1
            grown = 2 * count if asked[b, t] else count
            for n in range(count):
                if asked[b, t]:
                    path[count + n, :t] = path[n, :t]
                    path[count + n, t] = path[n, t - 1]
                    blocked[count + n, :t] = blocked[n, :t]
                    blocked[count + n, t] = True
                    score[count + n] = score[n] + log_blocked[b, t]
                    score[n] += log_made[b, t]
                path[n, t] = path[n, t - 1] + moves[b, t]
                blocked[n, t] = False
            for n in range(grown):
                for k in range(num):
                    away = path[n, t] - path[n, against[k]]
                    if away[0] * away[0] + away[1] * away[1] < near[b]:
                        score[n] -= cost
                        break
            count = grown
            if grown > size:
                # the better half stays where it is, or takes the place of one that goes
                order = np.argsort(-score[:grown], kind="mergesort")
                stays[:grown] = False
                stays[order[:size]] = True
                hole = 0
                for n in range(size, grown):
                    if stays[n]:
                        while stays[hole]:
                            hole += 1
                        path[hole, : t + 1] = path[n, : t + 1]
                        blocked[hole, : t + 1] = blocked[n, : t + 1]
                        score[hole] = score[n]
                        hole += 1
                count = size
        result[b] = blocked[np.argmax(score[:count])]
    return result
