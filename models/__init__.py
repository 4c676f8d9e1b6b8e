"""Generative programs, one a file."""

from gtm_pyro.inference.capabilities import Imagined
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.models.gtmm import GTMM
from gtm_pyro.models.linear_gaussian import LinearGaussian
from gtm_pyro.models.vrnn import VRNN

# the folder in the repository's root is the package gtm_pyro.models: under another name it would be a second copy
if __name__ != "gtm_pyro.models":
    raise ImportError(f"expected the package to be imported as gtm_pyro.models, got {__name__}")

__all__ = ["GTMM", "GTMSM", "Imagined", "LinearGaussian", "VRNN"]
