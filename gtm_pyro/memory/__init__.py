"""Memories that a model writes in its memorisation phase and reads in its prediction phase."""

from gtm_pyro.memory.differentiable_computer import DifferentiableNeuralComputer
from gtm_pyro.memory.introspection import Introspection
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.memory.least_recently_used import LeastRecentlyUsed
from gtm_pyro.memory.spatial import Memory, NumNeighbors, Retrieved, SpatialMemory, recall
from gtm_pyro.memory.stored_latents import StoredLatents
from gtm_pyro.memory.turing_machine import NeuralTuringMachine
from gtm_pyro.memory.values import DeferredValues, StoredValues, Values

__all__ = [
    "DeferredValues",
    "DifferentiableNeuralComputer",
    "HeadingKeys",
    "Introspection",
    "LeastRecentlyUsed",
    "Memory",
    "NeuralTuringMachine",
    "NumNeighbors",
    "Retrieved",
    "SpatialMemory",
    "StoredLatents",
    "StoredValues",
    "Values",
    "recall",
]
