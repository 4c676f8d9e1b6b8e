"""Starting values of a transition, by search: the bound is full of local optima, but its candidates are cheap to rank.

A candidate is good if the memory explains what is seen: :func:`memory_fit` scores hundreds of them together. Uses
frames and actions alone.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.initialisation.memory_fit import Keys, Seen, Values, fit_of
from gtm_pyro.localisation.same_frames import small_frames
from gtm_pyro.transitions import Transition

Kind = TypeVar("Kind", bound=Transition)

# candidates that are proposed at a time
CANDIDATES = 512
# episodes that they are scored on, at least and at most, and pairs of a predicted and a memorised step in all of them
_EPISODES = (8, 32)
_PAIRS = 100_000
# largest displacement of a usual action among them, in units of the state and in radians
WIDEST = 0.6
# candidates of a round that are kept for what comes second
_TRIED = 8
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


def joined(parts: Sequence[Values]) -> Values:
    """Candidates of several searches, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Found(NamedTuple):
    """The best candidate of a search; scores are squared differences a pixel.

    :param scores: its own, of each episode.
    :param chance: of a memory that is read at random.
    :param tried: the best candidates of each round.
    :param other: the best candidate that is another map; none where none was looked for or seen.
    :param second: its score.
    :param lead: how far it is behind, in standard errors over episodes, which count the same each.
    :param clear: whether that is clear: :func:`~gtm_pyro.initialisation.memory_fit.clearly_better`.
    """

    values: Values
    scores: Tensor
    chance: float
    tried: Values
    other: Values | None = None
    second: float = math.nan
    lead: float = math.nan
    clear: bool = True

    @property
    def score(self) -> float:
        """Of all episodes."""
        return float(self.scores.mean())


def scored_episodes(num_steps: int, num_observed: int | None) -> tuple[int, int]:
    """How many episodes candidates are scored on, fewer where they are long; and how many of their steps are memorised.

    :param num_observed: where it leaves no step to predict, half of the steps are memorised.
    :raises EpisodesError: a single step, which leaves none to predict.
    """
    if num_steps < 2:
        raise EpisodesError(f"frames: expected at least 2 steps to find starting values, got {num_steps}")
    tau = num_observed if num_observed and num_observed < num_steps else max(1, num_steps // 2)
    fewest, most = _EPISODES
    return min(most, max(fewest, _PAIRS // (tau * (num_steps - tau)))), tau


@torch.no_grad()
def search(
    transition: Transition,
    propose: Callable[[Values, torch.Generator], Values],
    start: Values,
    evidence: Seen,
    keys: Keys,
    rounds: int = 24,
    gain: float = 0.0,
    seed: int = 0,
    relative: bool = False,
) -> Found:
    """The best of many candidates.

    :param propose: candidates near the best one so far: of its values and a generator.
    :param start: a candidate to begin with.
    :param evidence: what they have to explain.
    :param gain: share of its score by which a candidate must be better than the best one so far.
    :param relative: each episode counts the same: scores are compared by their geometric mean.
    """

    def total(scores: Tensor) -> Tensor:
        return evidence.relative(scores).mean(-1).exp() if relative else scores.mean(-1)

    generator = torch.Generator().manual_seed(seed)
    fit = partial(fit_of, transition, evidence, keys)
    best = start
    tried = [{name: value.unsqueeze(0) for name, value in best.items()}]
    score = fit(tried[0])[0]
    for _ in range(rounds):
        candidates = propose(best, generator)
        scores = fit(candidates)
        totals = total(scores)
        winner = int(totals.argmin())
        tried.append({name: value[totals.argsort(stable=True)[:_TRIED]] for name, value in candidates.items()})
        if totals[winner] < (1 - gain) * total(score):
            best, score = {name: value[winner] for name, value in candidates.items()}, scores[winner]
    return Found(best, score, evidence.chance, joined(tried))


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
    flat = small_frames(frames)
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
