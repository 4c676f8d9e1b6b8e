"""Episodes that others recorded, or that are played in an environment of theirs: one file a kind of source."""

from gtm_pyro.tasks.recordings.base import Recorded, Recordings
from gtm_pyro.tasks.recordings.environments import GymnasiumRecordings, Named
from gtm_pyro.tasks.recordings.frames import Reshaping
from gtm_pyro.tasks.recordings.hdf5 import Hdf5Recordings, MinariRecordings
from gtm_pyro.tasks.recordings.npz import NpzRecordings
from gtm_pyro.tasks.recordings.shards import Import
from gtm_pyro.tasks.recordings.video import VideoRecordings

__all__ = [
    "GymnasiumRecordings",
    "Hdf5Recordings",
    "Import",
    "MinariRecordings",
    "Named",
    "NpzRecordings",
    "Recorded",
    "Recordings",
    "Reshaping",
    "VideoRecordings",
]
