"""p(z | s, m), eq. (1) of Fraccaro et al. 2018: the prior over a frame's latent, given state and memory."""

from gtm_pyro.priors.mixture import BackgroundPrior, MixturePrior
from gtm_pyro.priors.mixtures import NormalMixture
from gtm_pyro.priors.perspective import PerspectivePrior
from gtm_pyro.priors.planar import PlanarPrior
from gtm_pyro.priors.query import QueryPrior
from gtm_pyro.priors.shown import Prior, regret, shown

__all__ = [
    "BackgroundPrior",
    "MixturePrior",
    "NormalMixture",
    "PerspectivePrior",
    "PlanarPrior",
    "Prior",
    "QueryPrior",
    "regret",
    "shown",
]
