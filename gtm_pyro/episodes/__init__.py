"""Episodes: frames, the actions that led to them and, where known, true poses. Batch first, time second."""

from gtm_pyro.episodes.batch import Episodes, concatenate, episodes_from_arrays
from gtm_pyro.episodes.folders import save_shards

__all__ = ["Episodes", "concatenate", "episodes_from_arrays", "save_shards"]
