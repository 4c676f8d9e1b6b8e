"""Smoothing: later loop closures correct the earlier path, and with it the memory's keys."""

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import TrackingGuide
from gtm_pyro.inference.programs import GuidedModel
from gtm_pyro.localisation.similar_places import SimilarPlaces
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.paths.fused import FusedPath


class Smoothing(TrackingGuide):
    """q(s_{1:T} | x_{1:T}, a_{1:T}): the whole past of the hypothesis that explains all frames best.

    Along it, landmarks of later frames reach back as Gaussian messages. For a linear transition without slips this is
    the exact posterior (Rauch, Tung & Striebel 1965).

    :param move_noise: for real displacements that are not carried out exactly: how far off they are, a standard
        deviation of each axis in typical moves. Frames that are alike then correct the path where none repeats
        (:mod:`gtm_pyro.localisation.similar_places`), and q is as narrow about it as the model's own moves. 0: as the
        transition's ``scale`` says.
    :param num_hypotheses: this and the others as of :class:`TrackingGuide`.
    """

    def __init__(
        self,
        model: GuidedModel,
        num_hypotheses: int = 256,
        training_hypotheses: int = 32,
        kidnap: float = 0.0,
        memory: SpatialMemory | None = None,
        anywhere: bool = False,
        move_noise: float = 0.0,
    ) -> None:
        super().__init__(model, num_hypotheses, training_hypotheses, kidnap, memory, anywhere)
        self.similar = SimilarPlaces(move_noise)

    def path(self, episodes: Episodes) -> FusedPath:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        return self.smoothed(episodes)
