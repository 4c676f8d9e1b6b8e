"""Particles: several explanations at once, for slips that stay ambiguous, a random start or a kidnapped agent."""

from typing import NamedTuple

from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.spatial import TrackingGuide
from gtm_pyro.paths.fused import PathMixture, smoothing_path


class Particles(NamedTuple):
    """p(s_t | x_{1:t}, a_{1:t}) = sum_n w_tn N(loc_tn, scale_tn² I).

    ``loc`` ``(batch, T, N, state_dim)``, ``scale`` and ``log_weight`` ``(batch, T, N)``.
    """

    loc: Tensor
    scale: Tensor
    log_weight: Tensor

    @property
    def mean(self) -> Tensor:
        """``(batch, T, state_dim)``."""
        return (self.log_weight.exp().unsqueeze(-1) * self.loc).sum(-2)


class ParticleGuide(TrackingGuide):
    """q(s_{1:T} | x_{1:T}, a_{1:T}) = sum_n w_n q_n(s_{1:T}): a mixture of the smoothed paths of all hypotheses.

    A Rao-Blackwellised particle filter whose particles are sequences of executed actions, each with a map of its own.
    With a ``memory`` and ``anywhere``, it finds out where in a known map it is.
    """

    def path(self, episodes: Episodes) -> PathMixture:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        start, variance = self.start(episodes)
        found = self.hypotheses(episodes, (start, variance))
        size = found.log_weight.shape[1]
        start, variance = start.unsqueeze(2).expand(-1, 1, size, -1), variance.unsqueeze(2).expand(-1, 1, size)
        paths = smoothing_path(self.told_transition, found.steps.unsqueeze(1), start, variance)
        return PathMixture(found.log_weight.unsqueeze(1), paths)

    def filter(self, episodes: Episodes) -> Particles:
        """The particles at each step, given the frames up to it."""
        found = self.hypotheses(episodes)
        return Particles(found.filtered, found.filtered_variance.sqrt(), found.filtered_log_weight)
