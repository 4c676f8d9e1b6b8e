"""Generative temporal models with memory, as Pyro programs.

The names below are the usual way in; each module holds more. Models are in ``gtm_pyro.models``, guides in
``gtm_pyro.guides``. Nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtm_pyro.data import EpisodeData, ImageNavigation, SavedEpisodes
    from gtm_pyro.emissions import FrameDecoder, FrameEncoder
    from gtm_pyro.episodes import Episodes
    from gtm_pyro.errors import GTMPyroError
    from gtm_pyro.evaluation import Evaluation, evaluate
    from gtm_pyro.fitting import Run, fit
    from gtm_pyro.memory import SpatialMemory
    from gtm_pyro.paths import TransitionPath
    from gtm_pyro.priors import BackgroundPrior, MixturePrior
    from gtm_pyro.reading import Reading
    from gtm_pyro.reliability import Diagnosis, diagnose
    from gtm_pyro.stages import LearningRates, Stage
    from gtm_pyro.transitions import Transition, Translation, WalledTranslation

__version__ = "0.1.0"

_MODULES = {
    "data": ("EpisodeData", "ImageNavigation", "SavedEpisodes"),
    "emissions": ("FrameDecoder", "FrameEncoder"),
    "episodes": ("Episodes",),
    "errors": ("GTMPyroError",),
    "evaluation": ("Evaluation", "evaluate"),
    "fitting": ("Run", "fit"),
    "memory": ("SpatialMemory",),
    "paths": ("TransitionPath",),
    "priors": ("BackgroundPrior", "MixturePrior"),
    "reading": ("Reading",),
    "reliability": ("Diagnosis", "diagnose"),
    "stages": ("LearningRates", "Stage"),
    "transitions": ("Transition", "Translation", "WalledTranslation"),
}

__all__ = [
    "BackgroundPrior",
    "Diagnosis",
    "EpisodeData",
    "Episodes",
    "Evaluation",
    "FrameDecoder",
    "FrameEncoder",
    "GTMPyroError",
    "ImageNavigation",
    "LearningRates",
    "MixturePrior",
    "Reading",
    "Run",
    "SavedEpisodes",
    "SpatialMemory",
    "Stage",
    "Transition",
    "TransitionPath",
    "Translation",
    "WalledTranslation",
    "diagnose",
    "evaluate",
    "fit",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"gtm_pyro.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
