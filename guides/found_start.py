"""An agent that may begin anywhere: its first state is inferred from frames, the rest of its path from actions."""

import pyro.distributions as dist

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import SpatialGuide
from gtm_pyro.paths.transition import TransitionPath


class FoundStart(SpatialGuide):
    """q(z, s | x, a) = q(s_1 | x, a) prod_t q(z_t | x_t) p(s_t | s_{t-1}, a_t): eq. (2) with an unknown s_1.

    Fraccaro et al. 2018 let every walk begin in the same place. Where the model's p(s_1) is wide, q(s_1 | x, a) is
    narrow about the first state under which the frames contradict the path least: moves that a wall stopped leave the
    frame as it is, and places that are seen again are the same (:mod:`gtm_pyro.localisation.starts`). Where p(s_1) is
    narrow this is :class:`DeadReckoning`.
    """

    def path(self, episodes: Episodes) -> TransitionPath:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        start, variance = self.start(episodes)
        initial = dist.Normal(start, variance.sqrt().unsqueeze(-1)).to_event(1)
        return TransitionPath(initial, self.told_transition, self.told_actions(episodes).unsqueeze(-3), slips=False)
