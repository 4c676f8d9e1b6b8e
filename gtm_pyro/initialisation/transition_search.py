"""Starting values of a transition, by search: the bound is full of local optima, but its candidates are cheap to rank.

A candidate is good if the memory explains what is seen: along its paths, the two memorised frames whose places are
nearest, mixed by distance, look like the frame that is predicted. Frames are compared once, a path is low-dimensional,
and so hundreds of candidates are scored together. Uses frames and actions alone.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError
from gtm_pyro.transitions import Transition

Kind = TypeVar("Kind", bound=Transition)
Values = dict[str, Tensor]
Keys = Callable[[Tensor], Tensor]

# candidates that are proposed at a time
CANDIDATES = 512
# episodes that they are scored on, at least and at most, and pairs of a predicted and a memorised step in all of them
_EPISODES = (8, 32)
_PAIRS = 100_000
# largest displacement of a usual action among them, in units of the state and in radians
WIDEST = 0.6
_SIDE = 8
_COMPONENTS = 32
_RIDGE = 1e-2


def transition_of(model: Any, kind: type[Kind], strategy: object) -> Kind:
    """The transition of a model, whose starting values a strategy can find.

    :raises ConfigError: it is of another kind, or there is none.
    """
    transition = getattr(model, "transition", None)
    if not isinstance(transition, kind):
        got = f"{type(model).__name__}, which has none" if transition is None else type(transition).__name__
        raise ConfigError(
            f"initialisation: {type(strategy).__name__} expected a model whose transition is a {kind.__name__}, "
            f"got {got}"
        )
    return transition


class Found(NamedTuple):
    """The best candidate, its score, and the score of a memory that is read at random; squared differences a pixel."""

    values: Values
    score: float
    chance: float


class _Rollout(nn.Module):
    """Keys of the states that actions lead to from the origin, without noise."""

    def __init__(self, transition: Transition, keys: Keys) -> None:
        super().__init__()
        self.transition, self._keys = transition, (keys,)  # a tuple hides the keys' own parameters

    def forward(self, actions: Tensor) -> Tensor:
        start = actions.new_zeros(len(actions), self.transition.state_dim)
        noise = actions.new_zeros(*actions.shape[:2], self.transition.state_dim)
        return self._keys[0](self.transition.rollout(start, actions, noise))


def scored_episodes(num_steps: int, num_observed: int | None) -> tuple[int, int]:
    """How many episodes candidates are scored on, fewer where they are long; and how many of their steps are memorised.

    :param num_observed: where it leaves no step to predict, half of the steps are memorised.
    """
    tau = num_observed if num_observed and num_observed < num_steps else max(1, num_steps // 2)
    fewest, most = _EPISODES
    return min(most, max(fewest, _PAIRS // (tau * (num_steps - tau)))), tau


class Differences(NamedTuple):
    """Mean squared differences of frames, averaged to 8 x 8 pixels: of predicted frames from memorised ones,
    ``(batch, predicted, tau)``, and of memorised ones from each other, ``(batch, tau, tau)``."""

    predicted: Tensor
    memorised: Tensor


def differences(frames: Tensor, num_observed: int) -> Differences:
    """Compare all frames ``(batch, T, C, H, W)`` with those of the first ``num_observed`` steps."""
    flat = _small(frames)
    apart = torch.cdist(flat, flat[:, :num_observed]).square() / flat.shape[-1]
    return Differences(apart[:, num_observed:], apart[:, :num_observed])


@torch.no_grad()
def memory_fit(
    transition: Transition, candidates: Values, actions: Tensor, apart: Differences, keys: Keys, chunk: int = 64
) -> Tensor:
    """How unlike what the memory shows is to what is seen, for each candidate and episode, ``(N, batch)``.

    Shown are the two nearest entries at distances d_1 and d_2, with weights d_2 / (d_1 + d_2) and d_1 / (d_1 + d_2).

    :param candidates: parameters of the transition by name, each ``(N, ...)``.
    :param actions: ``(batch, T, action_dim)``.
    :param keys: places of states.
    """
    tau = apart.memorised.shape[-1]
    rollout = _Rollout(transition, keys)
    fixed = {f"transition.{name}": t for name, t in (*transition.named_parameters(), *transition.named_buffers())}

    def places(values: Values) -> Tensor:
        own = {f"transition.{name}": value for name, value in values.items()}
        found: Tensor = torch.func.functional_call(rollout, {**fixed, **own}, (actions,))
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


@torch.no_grad()
def search(
    transition: Transition,
    propose: Callable[[Values, torch.Generator], Values],
    start: Values,
    frames: Tensor,
    actions: Tensor,
    num_observed: int,
    keys: Keys,
    rounds: int = 24,
    gain: float = 0.0,
    seed: int = 0,
) -> Found:
    """The best of many candidates.

    :param propose: candidates near the best one so far: of its values and a generator.
    :param start: a candidate to begin with.
    :param num_observed: steps of an episode that are memorised.
    :param gain: share of its score by which a candidate must be better than the best one so far.
    """
    generator = torch.Generator().manual_seed(seed)
    apart = differences(frames, num_observed)
    best = start
    score = memory_fit(transition, {k: v.unsqueeze(0) for k, v in best.items()}, actions, apart, keys)[0]
    for _ in range(rounds):
        candidates = propose(best, generator)
        scores = memory_fit(transition, candidates, actions, apart, keys)
        winner = int(scores.mean(-1).argmin())
        if scores[winner].mean() < (1 - gain) * score.mean():
            best, score = {name: value[winner] for name, value in candidates.items()}, scores[winner]
    return Found(best, float(score.mean()), float(apart.predicted.mean()))


def propose_displacements(
    best: Tensor,
    generator: torch.Generator,
    rows: Sequence[int],
    start_of_motion: Tensor | None = None,
    widest: float = WIDEST,
) -> Tensor:
    """Matrices M that each differ from the best in one coordinate of one action: drawn anew, a little, or the opposite
    of another action's, as of left and right; some draw two opposite actions anew.

    :param best: ``(state_dim, action_dim)``.
    :param rows: coordinates that may differ.
    :param start_of_motion: the displacement of an action's first step over that of its further ones, ``(state_dim,)``.
    :param widest: largest displacement of a usual action, in units of the state and in radians.
    :returns: ``(512, state_dim, action_dim)``.
    """
    old, each = best.cpu(), torch.arange(CANDIDATES)
    new = old.repeat(CANDIDATES, 1, 1)
    action = torch.randint(old.shape[1], (CANDIDATES,), generator=generator)
    row = torch.tensor(rows)[torch.randint(len(rows), (CANDIDATES,), generator=generator)]
    anew = torch.rand(CANDIDATES, generator=generator)
    wide = widest * (2 * torch.rand(CANDIDATES, generator=generator) - 1)
    if start_of_motion is not None:
        wide = wide * start_of_motion.cpu()[row]
    other = torch.randint(old.shape[1], (CANDIDATES,), generator=generator)
    little = torch.randn(CANDIDATES, generator=generator)
    little = little * 10 ** (-4 + 3 * torch.rand(CANDIDATES, generator=generator))
    value = torch.where(anew < 0.5, wide, new[each, row, action] + little)
    value = torch.where(anew < 0.1, -old[row, other], value)
    new[each, row, action] = torch.where(anew < 0.05, 0.0, value)
    # both ways of an axis at once
    pair = (anew > 0.3) & (anew < 0.5) & (other != action)
    new[each[pair], row[pair], other[pair]] = -value[pair]
    return new.to(best)


@torch.no_grad()
def turn_signs(turns: Tensor, frames: Tensor, actions: Tensor, displacements: Callable[[Tensor], Tensor]) -> Tensor:
    """Which way each action turns the agent, given how fast: +1 or -1 for each action, ``(action_dim,)``.

    Where no episode turns both ways, the memory fits as well if one way is taken for the other. But turns then change
    frames in ways that contradict each other: x_t - x_{t-1} = turn_t (B x_{t-1} + b), with B and b fitted to half the
    episodes, is compared with the other half.

    :param turns: radians a step of each action, ``(action_dim,)``; that of the first that turns keeps its sign.
    :param frames: ``(batch, T, C, H, W)``.
    :param displacements: turns of all steps, ``(batch, T)``, for turns of the actions ``(action_dim,)``.
    """
    flat = _small(frames)
    centred = flat - flat.mean((0, 1))
    axes = torch.linalg.svd(centred.flatten(0, 1)[:: max(1, len(flat) * flat.shape[1] // 4096)], full_matrices=False)
    x = centred @ axes.Vh[:_COMPONENTS].mT
    turning = [i for i, turn in enumerate(turns.tolist()) if abs(turn) > 0.01 * float(turns.abs().max())]
    best = torch.ones_like(turns)
    if len(turning) < 2:
        return best
    lowest = float("inf")
    for flips in itertools.product((1.0, -1.0), repeat=min(len(turning), 8) - 1):
        signs = torch.ones_like(turns)
        signs[turning[1:8]] = torch.tensor(flips).to(signs)
        error = _generator_error(x, displacements(turns * signs))
        if error < lowest:
            lowest, best = error, signs
    return best


def _generator_error(x: Tensor, turn: Tensor) -> float:
    """Of x_t - x_{t-1} = turn_t (B x_{t-1} + b) on the odd episodes, fitted to the even ones."""
    inputs = turn[:, 1:, None] * torch.cat([x[:, :-1], torch.ones_like(x[:, 1:, :1])], -1)
    target = x.diff(dim=1)
    a, b = (t[::2].flatten(0, 1).double() for t in (inputs, target))
    gram = a.mT @ a
    weights = torch.linalg.solve(gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram), a.mT @ b)
    rest = target[1::2].double() - inputs[1::2].double() @ weights
    return float(rest.square().mean())


def _small(frames: Tensor) -> Tensor:
    """Frames of at most 8 x 8 pixels as vectors, ``(batch, T, pixels)``."""
    batch, time = frames.shape[:2]
    if max(frames.shape[-2:]) > _SIDE:
        frames = F.adaptive_avg_pool2d(frames.flatten(0, 1), _SIDE)
    return frames.reshape(batch, time, -1)
