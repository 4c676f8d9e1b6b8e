"""Walls that differ from world to world: which moves they stopped is inferred from frames, the rest from actions."""

from dataclasses import replace

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import SpatialGuide
from gtm_pyro.inference.programs import GuidedModel
from gtm_pyro.paths.transition import TransitionPath


class FoundWalls(SpatialGuide):
    """q(z, s | x, a) = p(s_1) prod_t q(z_t | x_t) p(s_t | s_{t-1}, o_t a_t): eq. (2) with moves that walls stopped.

    Fraccaro et al. 2018 learn the walls of one room. In a world that nobody saw before, a move that a wall stopped
    leaves the frame as it is; so does a move to a place that looks alike. :mod:`gtm_pyro.localisation.blocked` tells
    them apart: o_t is 0 for the translation of the former. For :class:`~gtm_pyro.transitions.RememberedWalls`; with
    another transition this is :class:`DeadReckoning`.

    :param num_hypotheses: explanations of an episode that are kept at each step.
    :param look_alike: probability that a move that is made leaves the frame as it was; small where every view is new.
    :raises ConfigError: a number out of its range.
    """

    def __init__(self, model: GuidedModel, num_hypotheses: int = 32, look_alike: float = 0.1) -> None:
        super().__init__(model)
        self.wall_search, self.training_wall_search = (
            replace(search, num_hypotheses=num_hypotheses, look_alike=look_alike)
            for search in (self.wall_search, self.training_wall_search)
        )

    def path(self, episodes: Episodes) -> TransitionPath:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        initial = self.model.path(episodes.actions).initial
        return TransitionPath(initial, self.told_transition, self.told_actions(episodes).unsqueeze(-3), slips=False)
