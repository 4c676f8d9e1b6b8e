"""Starting values of agents that turn."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import check_positive
from gtm_pyro.initialisation.transition_search import (
    CANDIDATES,
    WIDEST,
    Values,
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


@dataclass(frozen=True)
class MemorySearch:
    """Displacements, and frictions, with which the memory explains what is seen.

    For a :class:`~gtm_pyro.transitions.RotatingTranslation`, from frames and actions alone, in any unit of the actions.
    A warning is logged where the best candidate explains little.

    :param widest: of a usual action, the largest turn, in radians, and the largest move, in units of the state, that is
        tried.
    :raises ConfigError: a number that is not over 0.
    """

    widest: float = WIDEST

    def __post_init__(self) -> None:
        check_positive(widest=self.widest)

    def __call__(self, model: Any, episodes: Episodes) -> None:
        """:raises ConfigError: the model has no ``transition`` that is a RotatingTranslation."""
        transition = transition_of(model, RotatingTranslation, self)
        self.start(transition, episodes.frames, episodes.actions, episodes.num_observed)

    @torch.no_grad()
    def start(
        self, transition: RotatingTranslation, frames: Tensor, actions: Tensor, num_observed: int | None = None
    ) -> None:
        """Set a transition's starting values.

        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        :param num_observed: steps that are memorised; half of them by default and where none would be predicted.
        """
        transition.measure_actions(actions)
        few, tau = scored_episodes(frames.shape[1], num_observed)
        frames, actions = frames[:few], actions[:few]
        keys = HeadingKeys().to(frames.device)
        propose = _propose_momentum if isinstance(transition, MomentumTranslation) else _propose
        still = {"displacement": torch.zeros_like(transition.displacement)}
        if isinstance(transition, MomentumTranslation):
            still["friction"] = torch.zeros_like(transition.friction)
        # headings are searched first: positions depend on them
        turning = partial(propose, rows=(2,), widest=self.widest)
        found = search(transition, turning, still, frames, actions, tau, keys)
        everything = partial(propose, rows=(0, 1, 2), widest=self.widest)
        found = search(transition, everything, found.values, frames, actions, tau, keys, rounds=12, gain=0.02)
        for name, value in found.values.items():
            getattr(transition, name).copy_(value)
        turns = transition.displacement[2].clone()

        def all_turns(turns: Tensor) -> Tensor:
            transition.displacement[2] = turns
            return transition.controls(actions)[..., 2]

        transition.displacement[2] = turns * turn_signs(turns, frames, actions, all_turns)
        logger.info("search: %.3g where a random memory has %.3g", found.score, found.chance)
        if found.score > _DOUBTFUL * found.chance:
            logger.warning(
                "the search explains little (squared error %.3g, a memory that is read at random has %.3g): starting "
                "values of the displacements may be wrong; where true ones are known, the auxiliary objective "
                "DisplacementRegression helps",
                found.score,
                found.chance,
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
