"""The strategy that suits a model."""

from dataclasses import dataclass
from typing import Any

from gtm_pyro.episodes import Episodes
from gtm_pyro.initialisation.rotation import MemorySearch
from gtm_pyro.initialisation.translation import LoopClosure
from gtm_pyro.transitions import RotatingTranslation, Translation


@dataclass(frozen=True)
class Automatic:
    """What suits the model: its own starting values, else its transition's own, else those of its transition's kind.

    That is the first of ``model.initialise(episodes)``, ``model.transition.initialise(frames, actions, num_observed)``,
    :class:`LoopClosure` for a :class:`Translation` and :class:`MemorySearch` for a :class:`RotatingTranslation`. Any
    other model stays as it is.
    """

    def __call__(self, model: Any, episodes: Episodes) -> None:
        transition: Any = getattr(model, "transition", None)
        if hasattr(model, "initialise"):
            model.initialise(episodes)
        elif hasattr(transition, "initialise"):
            transition.initialise(episodes.frames, episodes.actions, num_observed=episodes.num_observed)
        elif isinstance(transition, Translation):
            LoopClosure()(model, episodes)
        elif isinstance(transition, RotatingTranslation):
            MemorySearch()(model, episodes)
