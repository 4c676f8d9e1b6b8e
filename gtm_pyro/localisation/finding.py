"""What looks like each frame, as a model's encoder sees it."""

from typing import Any

from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.localisation.landmarks import Landmarks, look, resembling_entries, resembling_steps
from gtm_pyro.localisation.revisits import revisited_entries, revisited_steps
from gtm_pyro.memory import SpatialMemory


def landmarks(model: Any, frames: Tensor, memory: SpatialMemory | None = None) -> Landmarks:
    """Entries of a known memory that look like each frame, otherwise earlier steps of the episode.

    A model's own ``landmarks(frames, memory)`` takes its place. For an agent with a heading they are revisits: the same
    view again, with another one in between.

    :param model: with an ``encoder``, q(z_t | x_t), and a ``transition``.
    :param frames: ``(batch, T, C, H, W)``.
    :raises ConfigError: a memory without ``num_entries``, ``keys`` and ``values``, which are looked through.
    """
    if hasattr(model, "landmarks"):
        own: Landmarks = model.landmarks(frames, memory)
        return own
    for name in ("num_entries", "keys", "values"):
        if memory is not None and not hasattr(memory, name):
            raise ConfigError(f"memory: a known map needs {name}, which {type(memory).__name__} does not have")
    sights = look(model.encoder.statistics, frames)
    if model.transition.heading:
        return revisited_steps(sights) if memory is None else revisited_entries(sights, memory)
    return resembling_steps(sights) if memory is None else resembling_entries(sights, memory)
