"""Inference programs, one a file: each approximates the posterior of a model that it is given."""

from gtm_pyro.guides.auto import AutoGuide
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.guides.filtering import Filtering
from gtm_pyro.guides.found_start import FoundStart
from gtm_pyro.guides.found_walls import FoundWalls
from gtm_pyro.guides.landmark import LandmarkCorrected
from gtm_pyro.guides.particles import ParticleGuide
from gtm_pyro.guides.smoothing import Smoothing

# the folder in the repository's root is the package gtm_pyro.guides: under another name it would be a second copy
if __name__ != "gtm_pyro.guides":
    raise ImportError(f"expected the package to be imported as gtm_pyro.guides, got {__name__}")

__all__ = [
    "AutoGuide",
    "DeadReckoning",
    "Filtering",
    "FoundStart",
    "FoundWalls",
    "LandmarkCorrected",
    "ParticleGuide",
    "Smoothing",
]
