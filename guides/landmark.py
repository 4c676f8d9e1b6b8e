"""Landmark correction: places that look familiar correct the position, step by step."""

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import TrackingGuide
from gtm_pyro.paths.fused import FusedPath, filtering_path


class LandmarkCorrected(TrackingGuide):
    """q(s | x, a) = prod_t q(s_t | s_{t-1}, a_t, x_t, m): after appendix D, Fraccaro et al. 2018.

    q(s_t | s_{t-1}, a_t, x_t, m) = N((1 - g_t) f(s_{t-1}, ã_t) + g_t y_t, ...): the transition's prediction under the
    action that was probably carried out, fused with the position of the memory entry that looks like x_t. Actions,
    entries and gains come from a search over hypotheses that has seen the frames up to t. Where nothing resembles
    g_t is 0 and ã_t is a_t: dead reckoning. A look-alike at the wrong place (perceptual aliasing) has to outweigh the
    action's probability, and what is written to the map while lost is not final: a hypothesis that explains later
    frames better brings its own map.

    With a heading landmarks are rare: gains are those of the filter, whose variance counts a turn of one radian as a
    move of the path's radius; see :func:`~gtm_pyro.paths.fused.filtering_path`.

    In training mode all frames are known, and the path is that of :class:`Smoothing`. Learnt from estimates that do not
    know yet that a move was lost, the walls close in: such runs lost the map.
    """

    training_note = "is trained along the path of Smoothing, and corrects step by step once it is trained"
    """``fit`` says so when it begins."""

    def path(self, episodes: Episodes) -> FusedPath:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        if self.training:
            return self.smoothed(episodes)
        start, transition = self.start(episodes), self.told_transition
        found = self.hypotheses(episodes, start)
        filtered = (found.online_gain.unsqueeze(1), found.online_variance.unsqueeze(1)) if transition.heading else None
        return filtering_path(transition, found.online.unsqueeze(1), *start, filtered)
