"""Smoothing: later loop closures correct the earlier path, and with it the memory's keys."""

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import TrackingGuide
from gtm_pyro.paths.fused import FusedPath


class Smoothing(TrackingGuide):
    """q(s_{1:T} | x_{1:T}, a_{1:T}): the whole past of the hypothesis that explains all frames best.

    Along it, landmarks of later frames reach back as Gaussian messages. For a linear transition without slips this is
    the exact posterior (Rauch, Tung & Striebel 1965).
    """

    def path(self, episodes: Episodes) -> FusedPath:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        return self.smoothed(episodes)
