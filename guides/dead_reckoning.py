"""Dead reckoning: the position is inferred from the actions alone."""

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import SpatialGuide
from gtm_pyro.paths.transition import TransitionPath


class DeadReckoning(SpatialGuide):
    """q(z, s | x, a) = prod_t q(z_t | x_t) p(s_t | s_{t-1}, a_t): eq. (2), Fraccaro et al. 2018.

    Trusts every action: where the model's transition may slip, this guide leaves the slips out.
    """

    def path(self, episodes: Episodes) -> TransitionPath:
        """q(s_{1:T} | a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        return self.model.path(episodes.actions).without_slips()
