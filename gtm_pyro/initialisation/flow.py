"""Starting values of agents with momentum from how frames shift: turns and lags are seen, their scale is searched.

A turn to the left shifts what an upright camera sees to the right, and a step ahead shifts the two halves apart. How
these shifts follow from actions, with a lag, is a regression; what a radian and a length are in pixels it cannot tell.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.initialisation.joint_search import move_like_a_turn
from gtm_pyro.initialisation.memory_fit import Keys, Seen, Values, fit_of, seen
from gtm_pyro.initialisation.rotation import as_values
from gtm_pyro.initialisation.transition_search import scored_episodes, transition_of
from gtm_pyro.memory import HeadingKeys
from gtm_pyro.transitions import MomentumTranslation

logger = logging.getLogger(__name__)

# rows that frames are averaged to; the largest shift that is looked for, as a share of the width
_ROWS, _FARTHEST = 8, 0.3
_LAGS = tuple(0.05 * i for i in range(20))
# gains below these shares of the largest one are none
_NO_TURN, _NO_MOVE = 0.2, 0.15
# what a radian may be in widths of a frame, of cameras that see 150 to 20 degrees; lengths of moves over those of turns
_WIDTHS = tuple(0.25 * 1.08**i for i in range(32))
_LENGTHS = tuple(2 ** (i / 2) for i in range(-7, 5))
_FACTORS = (0.8, 0.9, 0.95, 0.98, 0.99, 1.01, 1.02, 1.05, 1.1, 1.25)
_SHIFTS = (-0.2, -0.1, -0.05, -0.02, 0.02, 0.05, 0.1, 0.2)
_FEWEST_LAG, _MOST_LAG = 0.02, 0.95
# up to so many actions, every set of them is tried as those that move
_FEW_ACTIONS = 8


class Response(NamedTuple):
    """y_t = c_t + noise, c_t = lag c_{t-1} + (1 - lag) gain · a_t: what actions do to a number, after a while.

    :param gain: of each number of an action, ``(action_dim,)``, when it was given for long.
    """

    lag: float
    gain: Tensor


@dataclass(frozen=True)
class FlowSearch:
    """Displacements and frictions of a :class:`~gtm_pyro.transitions.MomentumTranslation`, from frames and actions.

    How frames shift says which actions turn and how far relative to each other, which move, and how fast both follow
    (:func:`image_shifts`, :func:`response`). The rest is few numbers: what a radian is in pixels, the length of a move
    relative to the model's keys, which sets of actions move. They are searched, and then all improved one at a time, on
    whole paths, by how well the memory explains what is seen. Takes upright cameras that look along the heading.
    Positive headings are to the left, as perspective has them, not a mirror image.

    :param episodes: that candidates are compared on at last, at most.
    :param rounds: of improvement, at most.
    :raises ConfigError: a number that is not over 0.
    """

    episodes: int = 48
    rounds: int = 6

    def __post_init__(self) -> None:
        check_positive(episodes=self.episodes, rounds=self.rounds)

    def __call__(self, model: Any, episodes: Episodes) -> None:
        """:raises ConfigError: the model has no ``transition`` that is a MomentumTranslation, or frames are narrow."""
        transition = transition_of(model, MomentumTranslation, self)
        keys = getattr(model, "keys", None)
        keys = keys if isinstance(keys, HeadingKeys) else None
        self.start(transition, episodes.frames, episodes.actions, episodes.num_observed, keys)

    @torch.no_grad()
    def start(
        self,
        transition: MomentumTranslation,
        frames: Tensor,
        actions: Tensor,
        num_observed: int | None = None,
        keys: HeadingKeys | None = None,
    ) -> float:
        """Set a transition's starting values; arguments as of :meth:`MemorySearch.start`.

        :returns: the squared error that is left, over that of a memory that is read at random.
        """
        transition.measure_actions(actions)
        few, tau = scored_episodes(frames.shape[1], num_observed)
        keys = HeadingKeys().to(frames) if keys is None else keys
        frames, actions = frames[: self.episodes], actions[: self.episodes]
        shifts, given = image_shifts(frames), transition.standard(actions)
        evidence = seen(frames, actions, tau)
        start = _proposed(transition, evidence.first(few), keys, *(response(y, given) for y in shifts.unbind(-1)))
        best = _improved(transition, evidence, keys, start, self.rounds)
        values = {name: value[0] for name, value in best.values().items()}
        for name, value in values.items():
            getattr(transition, name).copy_(value)
        score = float(fit_of(transition, evidence, keys, best.values()).mean()) / evidence.chance
        logger.info("search by flow: %.3g of the squared error of a memory that is read at random", score)
        return score


def image_shifts(frames: Tensor) -> Tensor:
    """How far what is seen went to the right in each step, in widths of a frame; and how much more so in the right
    half than in the left one: ``(batch, T - 1, 2)``.

    The shift at which overlapping parts are most alike, to a fraction of a pixel by a parabola.

    :param frames: ``(batch, T, C, H, W)``.
    :raises ConfigError: fewer than 8 columns.
    """
    width = frames.shape[-1]
    if width < 8:
        raise ConfigError(f"initialisation: FlowSearch expected frames of at least 8 columns, got {width}")
    rows = F.adaptive_avg_pool2d(frames.flatten(0, 1), (min(_ROWS, frames.shape[-2]), width))
    x = rows.unflatten(0, frames.shape[:2]).flatten(2, 3)  # (batch, T, channels and rows, W)
    before, after, most = x[:, :-1], x[:, 1:], round(_FARTHEST * width)
    unlike = torch.full((3, *before.shape[:2], 2 * most + 1), torch.inf).to(frames)
    for shift in range(-most, most + 1):
        first, last = max(0, shift), width + min(0, shift)
        error = (after[..., first:last] - before[..., first - shift : last - shift]).square().mean(-2)
        middle = width // 2 - first
        for i, part in enumerate((error, error[..., :middle], error[..., middle:])):
            unlike[i, ..., shift + most] = part.mean(-1)
    best = unlike.argmin(-1, keepdim=True).clamp(1, 2 * most - 1)
    low, mid, high = (unlike.gather(-1, best + i) for i in (-1, 0, 1))
    fraction = (0.5 * (low - high) / (low - 2 * mid + high).clamp_min(1e-12)).clamp(-0.5, 0.5)
    whole, left, right = ((best - most + fraction).squeeze(-1) / width).unbind(0)
    return torch.stack([whole, right - left], -1)


def response(y: Tensor, actions: Tensor) -> Response:
    """What actions do to a number, by least squares that outliers hardly matter to, for each of many lags.

    :param y: of steps 2 to T, ``(batch, T - 1)``.
    :param actions: ``(batch, T, action_dim)``; before the first frame, the agent is at rest.
    """
    best, least = Response(0.0, torch.zeros_like(actions[0, 0])), math.inf
    scale = y.abs().mean().clamp_min(1e-6)
    for lag in _LAGS:
        x = lagged(actions, lag)[:, 1:].flatten(0, 1)
        weight = torch.ones_like(y).flatten()
        for _ in range(4):
            weighed = weight.unsqueeze(-1) * x
            ridge = 1e-6 * len(x) * torch.eye(x.shape[1]).to(x)
            gain = torch.linalg.solve(weighed.mT @ x + ridge, weighed.mT @ y.flatten())
            rest = (y.flatten() - x @ gain) / scale
            weight = 1 / (1 + rest.square())
        error = float(rest.square().log1p().mean())
        if error < least:
            best, least = Response(lag, gain), error
    return best


def lagged(actions: Tensor, lag: float) -> Tensor:
    """c_t = lag c_{t-1} + (1 - lag) a_t, at rest in the first step: ``(batch, T, action_dim)``."""
    c = [torch.zeros_like(actions[:, 0])]
    for a in actions[:, 1:].unbind(1):
        c.append(lag * c[-1] + (1 - lag) * a)
    return torch.stack(c, 1)


class _Candidates(NamedTuple):
    """Steps of an agent at full speed: moves ahead and turns, each ``(N, action_dim)``, and their lags ``(N,)``."""

    moves: Tensor
    turns: Tensor
    move_lag: Tensor
    turn_lag: Tensor

    def values(self) -> Values:
        friction = torch.stack([self.move_lag, self.move_lag, self.turn_lag], -1)
        steps = torch.stack([self.moves, torch.zeros_like(self.moves), self.turns], 1)
        return as_values(steps, friction.clamp(_FEWEST_LAG, _MOST_LAG).logit())

    def at(self, index: int | Tensor) -> "_Candidates":
        return _Candidates(*(part[index].reshape(-1, *part.shape[1:]) for part in self))


def _best(transition: MomentumTranslation, evidence: Seen, keys: Keys, candidates: _Candidates) -> tuple[int, float]:
    scores = evidence.relative(fit_of(transition, evidence, keys, candidates.values())).mean(-1)
    return int(scores.argmin()), float(scores.min())


def _proposed(
    transition: MomentumTranslation, evidence: Seen, keys: Keys, turning: Response, moving: Response
) -> _Candidates:
    """The best of those that shifts suggest: their scale first, then which actions move."""
    best = partial(_best, transition, evidence, keys)
    turns = torch.where(turning.gain.abs() > _NO_TURN * turning.gain.abs().max(), turning.gain, 0.0)
    # a step ahead lets things grow: their right half goes to the right
    moves = torch.where(moving.gain > _NO_MOVE * moving.gain.max(), moving.gain, 0.0)
    moves = moves / moves.max().clamp_min(1e-12)
    unit = move_like_a_turn(keys, evidence.actions)
    pairs = list(itertools.product(_WIDTHS, _LENGTHS))
    radians = turns.new_tensor([1 / width for width, _ in pairs]).unsqueeze(-1) * turns
    length = unit * turns.new_tensor([length for _, length in pairs]).unsqueeze(-1) * radians.abs().amax(-1, True)

    def candidates(moves: Tensor, radians: Tensor) -> _Candidates:
        lags = (torch.full((len(moves),), lag).to(moves) for lag in (moving.lag, turning.lag))
        return _Candidates(moves, radians, *lags)

    first, _ = best(scaled := candidates(length * moves, radians))
    found = scaled.at(first)
    if len(turns) <= _FEW_ACTIONS:
        sets = turns.new_tensor(list(itertools.product((0.0, 1.0), repeat=len(turns))))
        every = torch.cat([found.moves, found.moves.max() * sets])
        chosen, _ = best(sets_that_move := candidates(every, found.turns.expand(len(every), -1)))
        found = sets_that_move.at(chosen)
    return found


def _improved(
    transition: MomentumTranslation, evidence: Seen, keys: Keys, best: _Candidates, rounds: int
) -> _Candidates:
    """Better number by number: scales and lags of turns and of moves, then the gain of each action."""
    _, lowest = _best(transition, evidence, keys, best)
    for _ in range(rounds):
        before = lowest
        for changed in _numbers(best):
            index, score = _best(transition, evidence, keys, candidates := changed(best))
            if score < lowest:
                best, lowest = candidates.at(index), score
        if lowest > before - 1e-3:
            break
    return best


def _numbers(best: _Candidates) -> Sequence[Any]:
    """Functions that make candidates, each with another number changed."""

    def scaled(name: str, action: int | None, found: _Candidates) -> _Candidates:
        every = getattr(found, name).repeat(len(_FACTORS), 1)
        factors = every.new_tensor(_FACTORS)
        if action is None:
            every *= factors.unsqueeze(-1)
        else:
            every[:, action] *= factors
        return _repeated(found, len(_FACTORS))._replace(**{name: every})

    def delayed(name: str, found: _Candidates) -> _Candidates:
        every = getattr(found, name) + found.moves.new_tensor(_SHIFTS)
        return _repeated(found, len(_SHIFTS))._replace(**{name: every.clamp(_FEWEST_LAG, _MOST_LAG)})

    numbers = [partial(delayed, "turn_lag"), partial(scaled, "turns", None)]
    numbers += [partial(delayed, "move_lag"), partial(scaled, "moves", None)]
    for name in ("turns", "moves"):
        used = getattr(best, name)[0].nonzero().flatten().tolist()
        numbers += [partial(scaled, name, action) for action in used]
    return numbers


def _repeated(one: _Candidates, times: int) -> _Candidates:
    return _Candidates(*(part.expand(times, *part.shape[1:]) for part in one))
