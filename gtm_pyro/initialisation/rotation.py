"""Starting values of agents that turn."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import check_positive
from gtm_pyro.initialisation.joint_search import WHOLE_FRACTIONS, WIDE_TURNS, joint_search, move_like_a_turn
from gtm_pyro.initialisation.memory_fit import Keys, Seen, Values, clearly_better, fit_of, seen
from gtm_pyro.initialisation.same_map import with_second
from gtm_pyro.initialisation.simpler import about_pivot, of_other_points, simplified
from gtm_pyro.initialisation.transition_search import (
    CANDIDATES,
    WIDEST,
    Found,
    joined,
    propose_displacements,
    scored_episodes,
    search,
    transition_of,
    turn_signs,
)
from gtm_pyro.memory import HeadingKeys
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation

logger = logging.getLogger(__name__)

# of the error of a memory that is read at random: in place, searches that found the turns ended below 0.25 of it, and
# one that did not find how agents walk at 0.59
_DOUBTFUL = 0.45
# the same, up to which a map that is clearly the best one is searched no further
_STOP = 0.65
# share of its score by which a candidate with other moves must be better
_GAIN = 0.02
# episodes that the last candidates are compared on, at most
_MOST = 64
# per step, of what a momentum's saturation allows
_FASTEST = 0.95


class _Proposed(NamedTuple):
    """What a search came to.

    :param values: candidates, the simplest first.
    :param tried: others.
    :param evidence: what they explain.
    :param joint: whether it may be the last one.
    """

    values: list[Values]
    tried: Values
    evidence: Seen
    joint: bool = True


@dataclass(frozen=True)
class MemorySearch:
    """Displacements, and frictions, with which the memory explains what is seen.

    For a :class:`~gtm_pyro.transitions.RotatingTranslation`, from frames and actions alone, in any unit of the actions.
    Headings are searched first, then all; where that explains little, turns of up to half a turn and moves are proposed
    at once (:mod:`~gtm_pyro.initialisation.joint_search`), and the better ones are taken. A move after which the frame
    did not change was blocked and moved nothing. Moves have the length, relative to the model's keys, with which the
    memory fits best. What was found is logged, with a warning where it explains little or another map explains nearly
    as much.

    :param widest: of a usual action, the largest turn, in radians, and the largest move, in units of the state, that is
        tried at random.
    :raises ConfigError: a number that is not over 0.
    """

    widest: float = WIDEST

    def __post_init__(self) -> None:
        check_positive(widest=self.widest)

    def __call__(self, model: Any, episodes: Episodes) -> None:
        """:raises ConfigError: the model has no ``transition`` that is a RotatingTranslation."""
        transition = transition_of(model, RotatingTranslation, self)
        keys = getattr(model, "keys", None)
        self.start(
            transition,
            episodes.frames,
            episodes.actions,
            episodes.num_observed,
            keys if isinstance(keys, HeadingKeys) else None,
        )

    @torch.no_grad()
    def start(
        self,
        transition: RotatingTranslation,
        frames: Tensor,
        actions: Tensor,
        num_observed: int | None = None,
        keys: HeadingKeys | None = None,
    ) -> Found:
        """Set a transition's starting values.

        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        :param num_observed: steps that are memorised; half of them by default and where none would be predicted.
        :param keys: what the memory's distances see; by default those of radius 1.
        """
        transition.measure_actions(actions)
        few, tau = scored_episodes(frames.shape[1], num_observed)
        keys = HeadingKeys().to(frames) if keys is None else keys
        everything = seen(frames[:_MOST], actions[:_MOST], tau)
        found, evidence = self._searched(transition, everything, few, keys)
        for name, value in found.values.items():
            getattr(transition, name).copy_(value)
        turns = transition.displacement[2].clone()

        def all_turns(turns: Tensor) -> Tensor:
            transition.displacement[2] = turns
            return transition.controls(actions[:few])[..., 2]

        signs = turn_signs(turns, frames[:few], actions[:few], all_turns)
        transition.displacement[2] = turns * signs
        # where no episode turns both ways, a memory fits as well with either sign
        values = found.values | {"displacement": transition.displacement.clone()}
        signed = found._replace(values=values, scores=_on_all(transition, values, evidence, keys, found.tried).scores)
        if float((evidence.relative(signed.scores) - evidence.relative(found.scores)).mean()) > _GAIN:
            transition.displacement[2] = turns
            signed = found
        _report(signed)
        return signed

    def _searched(
        self, transition: RotatingTranslation, everything: Seen, few: int, keys: HeadingKeys
    ) -> tuple[Found, Seen]:
        """The best candidate and what it explains: found on few episodes, compared with others on all."""
        found, evidence, tried = None, everything, []
        for proposed in self._proposals(transition, everything, few, keys):
            tried.append(proposed.tried)
            whole = proposed.values[0] if found is None else found.values
            for values in proposed.values:
                if not isinstance(transition, MomentumTranslation):
                    values = _simplest(transition, values, whole, proposed.evidence, keys)
                one = _on_all(transition, values, proposed.evidence, keys, joined(tried))
                if found is None or _explains_more(one, found, everything):
                    found, evidence = one, proposed.evidence
            assert found is not None  # there are values
            if not isinstance(transition, MomentumTranslation):
                # to be fair: other maps may follow a point that suits the keys better
                points = of_other_points(found.values["displacement"], move_like_a_turn(keys, evidence.actions))
                tried.append({"displacement": points})
            found = with_second(transition, found._replace(tried=joined(tried)), evidence, keys)
            enough = _STOP if found.clear else _DOUBTFUL
            if proposed.joint and found.score <= enough * everything.chance:
                break
        assert found is not None
        return found, evidence

    def _proposals(
        self, transition: RotatingTranslation, everything: Seen, few: int, keys: HeadingKeys
    ) -> Iterator[_Proposed]:
        """What is tried next while little is explained, the simplest first."""
        momentum = isinstance(transition, MomentumTranslation)
        propose = partial(_propose_momentum if momentum else _propose, widest=self.widest)
        friction = None

        def together(now: Seen, rates: Sequence[float]) -> _Proposed:
            joint = joint_search(transition, now.first(few), keys, partial(as_values, friction=friction), rates)
            start = {name: value[0] for name, value in joint.items()}
            near = partial(propose, rows=(0, 1, 2), widest=float(start["displacement"].abs().max()))
            better = search(transition, near, start, now.first(few), keys, rounds=8, gain=_GAIN, relative=True)
            return _Proposed([start, better.values], joined([joint, better.tried]), now)

        if not momentum:
            yield together(everything, WHOLE_FRACTIONS)
        still = {"displacement": torch.zeros_like(transition.displacement)}
        if isinstance(transition, MomentumTranslation):
            still["friction"] = torch.zeros_like(transition.friction)
        # headings before positions, which depend on them
        headings = search(transition, partial(propose, rows=(2,)), still, everything.first(few), keys)
        moves = partial(propose, rows=(0, 1, 2))
        first = search(transition, moves, headings.values, everything.first(few), keys, rounds=12, gain=_GAIN)
        yield _Proposed([first.values], joined([headings.tried, first.tried]), everything, joint=not momentum)
        if momentum:  # only that search looks for frictions
            friction = first.values["friction"]
            yield together(everything, WHOLE_FRACTIONS)
        yield together(everything, WIDE_TURNS)
        if everything.moved is not None:  # at last, agents that do not turn either where no frame changes
            unmoved = everything.actions * everything.moved.unsqueeze(-1)
            yield together(everything._replace(actions=unmoved, moved=None), WHOLE_FRACTIONS)


def _simplest(transition: RotatingTranslation, found: Values, whole: Values, evidence: Seen, keys: Keys) -> Values:
    """Of displacements that explain as much as those found; without momentum."""

    def relative(displacements: Tensor) -> Tensor:
        return evidence.relative(fit_of(transition, evidence, keys, {"displacement": displacements}))

    return {"displacement": simplified(about_pivot(found["displacement"]), whole["displacement"], relative)}


def _on_all(transition: RotatingTranslation, values: Values, evidence: Seen, keys: HeadingKeys, tried: Values) -> Found:
    """A candidate, scored on all episodes."""
    scores = fit_of(transition, evidence, keys, {name: value.unsqueeze(0) for name, value in values.items()})[0]
    return Found(values, scores, evidence.chance, tried)


def _explains_more(one: Found, other: Found, evidence: Seen) -> bool:
    return clearly_better(evidence.relative(other.scores) - evidence.relative(one.scores))


def as_values(displacements: Tensor, friction: Tensor | None) -> Values:
    """Parameters with which steps are ``(N, 3, action_dim)``; with momentum, those of an agent at full speed."""
    if friction is None:
        return {"displacement": displacements}
    steps = displacements.clamp(-_FASTEST, _FASTEST)
    pushes = steps.atanh() - friction.sigmoid().unsqueeze(-1) * steps
    return {"displacement": pushes, "friction": friction.expand(len(steps), -1)}


def _report(found: Found) -> None:
    logger.info(
        "search: %.3g where a random memory has %.3g, and the best other map %.3g (%.1f standard errors behind)",
        found.score,
        found.chance,
        found.second,
        found.lead,
    )
    if found.score > _DOUBTFUL * found.chance:
        logger.warning(
            "the search explains little (squared error %.3g, a memory that is read at random has %.3g): starting "
            "values of the displacements may be wrong; where true ones are known, the auxiliary objective "
            "DisplacementRegression helps",
            found.score,
            found.chance,
        )
    elif not found.clear:
        logger.warning(
            "the search found two maps that explain what is seen nearly as well (squared errors %.3g and %.3g, %.1f "
            "standard errors apart): starting values of the displacements may be those of the "
            "wrong one; more or longer episodes tell them apart",
            found.score,
            found.second,
            found.lead,
        )


def _propose(
    best: Values,
    generator: torch.Generator,
    rows: Sequence[int],
    widest: float,
    start_of_motion: Tensor | None = None,
) -> Values:
    start = torch.ones(3) if start_of_motion is None else start_of_motion
    return {"displacement": propose_displacements(best["displacement"], generator, rows, start, widest)}


def _propose_momentum(best: Values, generator: torch.Generator, rows: Sequence[int], widest: float) -> Values:
    """As without momentum; in many candidates a friction differs too, and the top speed stays or nearly so."""
    # the displacement of the first step over that of all further ones under the same action
    candidates = _propose(best, generator, rows, widest, 1 - best["friction"].sigmoid())
    displacement, friction = candidates["displacement"], best["friction"].expand(CANDIDATES, -1).clone()
    displacement[::2] = best["displacement"]
    row = torch.tensor(rows)[torch.randint(len(rows), (CANDIDATES,), generator=generator)].to(friction.device)
    each = torch.arange(CANDIDATES, device=friction.device)
    carried = friction[each, row].sigmoid()
    new = torch.rand(CANDIDATES, generator=generator).to(carried).mul(0.96).add(0.02)
    near = (carried + 0.02 * torch.randn(CANDIDATES, generator=generator).to(carried)).clamp(0.02, 0.98)
    draw = torch.rand(CANDIDATES, generator=generator).to(carried)
    draw[::2] *= 0.5
    new = torch.where(draw < 0.25, new, torch.where(draw < 0.5, near, carried))
    stretch = torch.randn(CANDIDATES, generator=generator)
    stretch = stretch * 10 ** (-3 + 2 * torch.rand(CANDIDATES, generator=generator))
    stretch = torch.where(new == carried, 0.0, stretch.to(carried)).exp()
    displacement[each, row] *= (stretch * (1 - new) / (1 - carried)).unsqueeze(-1)
    friction[each, row] = new.logit()
    return {"displacement": displacement, "friction": friction}
