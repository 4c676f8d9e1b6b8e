"""Dead reckoning: the position is inferred from the actions alone."""

import logging
from typing import Any

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import SpatialGuide
from gtm_pyro.localisation.starts import is_unknown
from gtm_pyro.paths.transition import TransitionPath

logger = logging.getLogger(__name__)


class DeadReckoning(SpatialGuide):
    """q(z, s | x, a) = prod_t q(z_t | x_t) p(s_t | s_{t-1}, a_t): eq. (2), Fraccaro et al. 2018.

    Trusts every action: where the model's transition may slip, this guide leaves the slips out. It knows nothing of
    s_1 but p(s_1): where that is wide and walls would tell, it says so once, on a CPU; :class:`FoundStart` finds it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._told = False

    def path(self, episodes: Episodes) -> TransitionPath:
        """q(s_{1:T} | a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        path = self.model.path(episodes.actions)
        # an accelerator would have to wait for the answer
        ask = not self._told and episodes.actions.device.type == "cpu"
        if ask and is_unknown(self.model.transition, path.initial, episodes.actions):
            logger.warning(
                "guide: DeadReckoning cannot tell where an episode begins, and p(s_1) is wide; FoundStart can"
            )
            self._told = True
        return path.without_slips()
