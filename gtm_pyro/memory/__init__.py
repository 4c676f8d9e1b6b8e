"""Memories that a model writes in its memorisation phase and reads in its prediction phase."""

from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.memory.spatial import Memory, NumNeighbors, Retrieved, SpatialMemory, recall
from gtm_pyro.memory.values import DeferredValues, StoredValues, Values

__all__ = [
    "DeferredValues",
    "HeadingKeys",
    "Memory",
    "NumNeighbors",
    "Retrieved",
    "SpatialMemory",
    "StoredValues",
    "Values",
    "recall",
]
