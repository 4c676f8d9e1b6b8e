"""Transition densities p(s_t | s_{t-1}, a_t) of the state-space model."""

from gtm_pyro.transitions.base import Transition
from gtm_pyro.transitions.remembered import RememberedWalls
from gtm_pyro.transitions.rotation import MomentumTranslation, RotatingTranslation
from gtm_pyro.transitions.sliding import SlidingTranslation
from gtm_pyro.transitions.translation import Translation, WalledTranslation

__all__ = [
    "MomentumTranslation",
    "RememberedWalls",
    "RotatingTranslation",
    "SlidingTranslation",
    "Transition",
    "Translation",
    "WalledTranslation",
]
