"""How well the memory explains what is seen, for many candidates of a transition at once.

Along a candidate's paths, the two memorised frames whose places are nearest, mixed by distance, should look like the
frame that is predicted. Frames are compared once and paths are low-dimensional. Uses frames and actions alone.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtm_pyro.localisation.same_frames import frame_changed, frame_tolerance, small_frames
from gtm_pyro.transitions import Transition

Values = dict[str, Tensor]
Keys = Callable[[Tensor], Tensor]

CLEAR = 2.0
"""Standard errors by which a candidate must be better, to be taken for better; half of that where it is twice as
good, as few episodes have large ones."""
# share of the score of a memory that is read at random that is as good as none
_PERFECT = 1e-3
_LEAST_ERROR = 0.01


class Differences(NamedTuple):
    """Mean squared differences of frames, averaged to 8 x 8 pixels: of predicted frames from memorised ones,
    ``(batch, predicted, tau)``, and of memorised ones from each other, ``(batch, tau, tau)``."""

    predicted: Tensor
    memorised: Tensor


class Seen(NamedTuple):
    """What candidates have to explain: see :func:`differences` and :func:`steps_that_moved`."""

    actions: Tensor
    apart: Differences
    moved: Tensor | None

    @property
    def chance(self) -> float:
        """The score of a memory that is read at random."""
        return float(self.apart.predicted.mean())

    def relative(self, scores: Tensor) -> Tensor:
        """Logarithms of scores ``(..., batch)`` over those of memories that are read at random.

        Each episode counts the same: where frames differ much, they would decide for all.
        """
        chance = self.apart.predicted.mean((1, 2)).clamp_min(torch.finfo(scores.dtype).tiny)
        return (scores / chance + _PERFECT).log()

    def first(self, episodes: int) -> "Seen":
        apart = Differences(*(part[:episodes] for part in self.apart))
        return Seen(self.actions[:episodes], apart, None if self.moved is None else self.moved[:episodes])


def seen(frames: Tensor, actions: Tensor, num_observed: int) -> Seen:
    """Of frames ``(batch, T, C, H, W)`` and actions ``(batch, T, action_dim)``."""
    return Seen(actions, differences(frames, num_observed), steps_that_moved(frames))


def steps_that_moved(frames: Tensor) -> Tensor | None:
    """Whether the frame changed in each step, ``(batch, T)``: a move after which it did not was blocked.

    None where it always did. Frames that may be noisy are compared as :func:`frame_tolerance` says.
    """
    moved = frame_changed(frames, frame_tolerance(frames))
    return None if bool(moved[:, 1:].all()) else moved


def differences(frames: Tensor, num_observed: int) -> Differences:
    """Compare all frames ``(batch, T, C, H, W)`` with those of the first ``num_observed`` steps."""
    flat = small_frames(frames)
    apart = torch.cdist(flat, flat[:, :num_observed]).square() / flat.shape[-1]
    return Differences(apart[:, num_observed:], apart[:, :num_observed])


@torch.no_grad()
def memory_fit(
    transition: Transition,
    candidates: Values,
    actions: Tensor,
    apart: Differences,
    keys: Keys,
    chunk: int = 64,
    moved: Tensor | None = None,
) -> Tensor:
    """How unlike what the memory shows is to what is seen, for each candidate and episode, ``(N, batch)``.

    Shown are the two nearest entries at distances d_1 and d_2, with weights d_2 / (d_1 + d_2) and d_1 / (d_1 + d_2).

    :param candidates: parameters of the transition by name, each ``(N, ...)``.
    :param actions: ``(batch, T, action_dim)``.
    :param keys: places of states.
    :param moved: steps after which the position may be another one, ``(batch, T)``; by default all.
    """
    tau = apart.memorised.shape[-1]
    rollout = _Rollout(transition, keys)
    fixed = {f"transition.{name}": t for name, t in (*transition.named_parameters(), *transition.named_buffers())}

    def places(values: Values) -> Tensor:
        own = {f"transition.{name}": value for name, value in values.items()}
        found: Tensor = torch.func.functional_call(rollout, {**fixed, **own}, (actions, moved))
        return found

    scores = []
    for first in range(0, len(next(iter(candidates.values()))), chunk):
        part = {name: value[first : first + chunk] for name, value in candidates.items()}
        place = torch.func.vmap(places)(part)  # (n, batch, T, key_dim)
        distance = torch.cdist(place[:, :, tau:], place[:, :, :tau])
        n, shape = len(distance), distance.shape[1:]
        nearest, one = distance.min(-1)  # twice a minimum: a third of the time of topk
        second, two = distance.scatter(-1, one.unsqueeze(-1), torch.inf).min(-1)
        error = apart.predicted.expand(n, *shape).gather(-1, torch.stack([one, two], -1))
        pair = apart.memorised.flatten(1).expand(n, -1, -1).gather(-1, one * tau + two)
        # of the second; none where there is but one entry
        share = (nearest / (nearest + second).clamp_min(1e-12)).clamp_max(0.5)
        scores.append(((1 - share) * error[..., 0] + share * error[..., 1] - share * (1 - share) * pair).mean(-1))
    return torch.cat(scores)


def fit_of(transition: Transition, evidence: Seen, keys: Keys, candidates: Values) -> Tensor:
    """:func:`memory_fit` of candidates, to what is seen."""
    return memory_fit(transition, candidates, evidence.actions, evidence.apart, keys, moved=evidence.moved)


class _Rollout(nn.Module):
    """Keys of the states that actions lead to from the origin, without noise."""

    def __init__(self, transition: Transition, keys: Keys) -> None:
        super().__init__()
        self.transition, self._keys = transition, (keys,)  # a tuple hides the keys' own parameters

    def forward(self, actions: Tensor, moved: Tensor | None) -> Tensor:
        start = actions.new_zeros(len(actions), self.transition.state_dim)
        noise = actions.new_zeros(*actions.shape[:2], self.transition.state_dim)
        path = self.transition.rollout(start, actions, noise)
        return self._keys[0](path if moved is None else _only_moved(path, moved, self.transition.heading))


def _only_moved(path: Tensor, moved: Tensor, heading: bool) -> Tensor:
    """A path ``(batch, T, state_dim)`` whose position, but not its heading, stays in steps that moved nothing."""
    position, rest = (path[..., :-1], path[..., -1:]) if heading else (path, path[..., :0])
    steps = position.diff(dim=-2) * moved[:, 1:].unsqueeze(-1)
    return torch.cat([torch.cat([position[..., :1, :], steps], -2).cumsum(-2), rest], -1)


def standard_errors(difference: Tensor) -> float:
    """The mean of differences of logarithms ``(batch,)`` in standard errors, which are taken to be 0.01 at least."""
    error = float(difference.std()) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
    return float(difference.mean()) / max(error, _LEAST_ERROR)


def clearly_better(difference: Tensor) -> bool:
    """Whether logarithms of scores differ clearly, from :meth:`Seen.relative` scores: worse ones less better ones."""
    errors = standard_errors(difference)
    return errors > CLEAR or (errors > 0.5 * CLEAR and float(difference.mean()) > math.log(2))
