"""Starting values of agents that move along the axes of the state space, with and without walls."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, check_positive
from gtm_pyro.initialisation.loop_closure import Outcomes
from gtm_pyro.initialisation.memory_fit import Values, seen
from gtm_pyro.initialisation.rooms import RoomSearch
from gtm_pyro.initialisation.slips import StartingValues, starting_values
from gtm_pyro.initialisation.transition_search import propose_displacements, scored_episodes, search, transition_of
from gtm_pyro.localisation.moves import typical_move
from gtm_pyro.localisation.starts import is_unknown
from gtm_pyro.transitions import SlidingTranslation, Translation, WalledTranslation

logger = logging.getLogger(__name__)

# of StartingValues.consistency, without and with slips: random starts gave at most 0.48 and 0.27, others 1.0 and 0.52
_CONSISTENT = {False: 0.7, True: 0.4}
# the share of places that lost agents may have got wrong
_WRONG = 0.02
# a search found something if it explains frames so much better than a memory that is read at random
_EXPLAINED = 0.5
# walls were found if what is seen contradicts paths so much less than without walls
_WALLED = 0.8


@dataclass(frozen=True)
class LoopClosure:
    """M where loops close, e and R where they fail to, and the gate where moves that changed no frame were tried.

    For a :class:`~gtm_pyro.transitions.Translation`, from frames and actions alone, in any unit. Where no loop closes,
    candidates for M are ranked by how well a memory explains what is seen; where these explain little, a warning is
    logged and M starts at random. The gate stays open, and a warning is logged, where a place is now reached and now
    not: positions are relative to the start, and outcomes contradict each other if episodes start in different places.

    :param slips: estimate e and R. An e that the transition was given as over 0, and its R, are kept.
    :param gate: fit the gate of a :class:`~gtm_pyro.transitions.WalledTranslation`; otherwise it starts open.
    :param gate_steps: of Adam, in that fit.
    :param gate_rate: its learning rate.
    :raises ConfigError: a number that is not over 0.
    """

    slips: bool = True
    gate: bool = True
    gate_steps: int = 1000
    gate_rate: float = 2e-2

    def __post_init__(self) -> None:
        check_positive(gate_steps=self.gate_steps, gate_rate=self.gate_rate)

    def __call__(self, model: Any, episodes: Episodes) -> None:
        """:raises ConfigError: the model has no ``transition`` that is a Translation."""
        transition = transition_of(model, Translation, self)
        known = self.start(transition, episodes.frames, episodes.actions, episodes.num_observed)
        if isinstance(transition, SlidingTranslation):
            transition.open_walls()
            if known:  # no path at random tells where walls are
                _room(transition, model, episodes)

    @torch.no_grad()
    def start(self, transition: Translation, frames: Tensor, actions: Tensor, num_observed: int | None = None) -> bool:
        """Set a transition's starting values.

        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        :param num_observed: e is for the first so many steps of an episode; by default for all.
        :returns: whether displacements were found; otherwise they are random.
        """
        known, found = self._displacements(transition, frames, actions, num_observed)
        if isinstance(transition, WalledTranslation):
            transition.open_gate()
            if self.gate and found is not None:
                self._gate(transition, found)
        return known

    def _displacements(
        self, transition: Translation, frames: Tensor, actions: Tensor, num_observed: int | None
    ) -> tuple[bool, StartingValues | None]:
        """Whether they were found, and what loops tell."""
        transition.measure_actions(actions)
        try:
            found = starting_values(frames, transition.standard(actions), transition.state_dim, num_observed)
        except EpisodesError as error:
            return _search(transition, frames, actions, num_observed, str(error)), None
        transition.displacement.copy_(found.displacement)
        if self.slips and not transition.slip_is_given:
            transition.slip.fill_(found.slips.rate)
            if found.slips.rate:
                logger.info("%.3f of the steps do not do as they are told", found.slips.rate)
                length = transition.moves(actions).square().mean(-1).sqrt()
                transition.slip_scale.copy_(length[length > 0.1 * length.max()].square().mean().sqrt())
        return True, found

    def _gate(self, transition: WalledTranslation, found: StartingValues) -> None:
        slips = found.slips.rate > 0
        tried = found.outcomes.clear if slips else found.outcomes
        if found.consistency < _CONSISTENT[slips]:
            logger.warning(
                "no starting values for the gate, it starts open (%s %.2f, expected at least %.2f: do the episodes "
                "start in different places?)",
                "the share of moves that others do not contradict is" if slips else "of success, places explain",
                found.consistency,
                _CONSISTENT[slips],
            )
        elif not len(tried.target):
            logger.warning("no starting values for the gate, it starts open (the outcome of no move is clear)")
        else:
            self._fit_gate(transition, tried, wrong=_WRONG if slips else 0.0)

    @torch.enable_grad()
    def _fit_gate(self, transition: WalledTranslation, tried: Outcomes, wrong: float = 0.0) -> None:
        """Logistic regression, in which a share ``wrong`` of the places may have the wrong outcome."""
        optimiser = torch.optim.Adam(transition.gate_network.parameters(), self.gate_rate)
        for _ in range(self.gate_steps):
            optimiser.zero_grad()
            logit = transition.gate_logit(tried.target).squeeze(-1)
            loss = F.binary_cross_entropy_with_logits(logit, tried.reached, reduction="none")
            if wrong:
                loss = -torch.log(wrong + (1 - 2 * wrong) * torch.exp(-loss))
            (tried.weight * loss).sum().backward()
            optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def _room(transition: SlidingTranslation, model: Any, episodes: Episodes) -> None:
    """Walls around the agent, a rectangle; where none is found, all stay as they are."""
    if transition.state_dim != 2:
        logger.warning(
            "no starting values for the walls, there are none at first (they are looked for in 2 dimensions, the "
            "transition has %d)", transition.state_dim,
        )  # fmt: skip
        return
    move = typical_move(transition, episodes.actions)
    same = not is_unknown(transition, model.path(episodes.actions).initial, episodes.actions)
    found = RoomSearch()(transition, episodes.frames, episodes.actions, same)
    if found.contradiction >= _WALLED * found.open:  # both are 0 where nothing contradicts anything
        logger.warning(
            "no starting values for the walls, there are none at first (what is seen contradicts paths at %.3g in the "
            "best room, at %.3g without walls)", found.contradiction, found.open,
        )  # fmt: skip
        return
    axes, half = found.room.axes, found.room.half
    transition.normals.copy_(torch.cat([axes, -axes]))
    transition.offsets.copy_(half.repeat(2))
    if found.start is not None:
        transition.offsets.sub_(transition.normals @ found.start)
    logger.info("a room of %.3g x %.3g typical moves", *(2 * half / move.mean()).tolist())


def _search(transition: Translation, frames: Tensor, actions: Tensor, num_observed: int | None, why: str) -> bool:
    """Where no loop closes, no frame looks like another one: candidates are ranked by how alike they are.

    :returns: whether one was found; otherwise displacements are random.
    """
    few, tau = scored_episodes(frames.shape[1], num_observed)
    frames, actions = frames[:few], actions[:few]
    propose = partial(propose_displacements, rows=range(transition.state_dim))
    still = {"displacement": torch.zeros_like(transition.displacement)}

    def candidates(best: Values, generator: torch.Generator) -> Values:
        return {"displacement": propose(best["displacement"], generator)}

    found = search(transition, candidates, still, seen(frames, actions, tau), nn.Identity())
    if found.score < _EXPLAINED * found.chance:
        logger.info("search: %.3g where a random memory has %.3g (%s)", found.score, found.chance, why)
        # places are the same under any invertible map, so axes of equal length are as good
        basis = torch.linalg.svd(found.values["displacement"], full_matrices=False).Vh
        transition.displacement.copy_(basis)
        return True
    logger.warning("no starting values for the displacements, they start at random (%s)", why)
    transition.displacement.copy_(0.1 * torch.randn_like(transition.displacement))
    return False
