"""Where episodes come from."""

from gtm_pyro.data.base import EpisodeData, Split
from gtm_pyro.data.fixed import FixedEpisodes
from gtm_pyro.data.image_navigation import ImageNavigation
from gtm_pyro.data.labyrinth import LabyrinthRooms, LabyrinthRotation, LabyrinthWalk
from gtm_pyro.data.saved import SavedEpisodes

__all__ = [
    "EpisodeData",
    "FixedEpisodes",
    "ImageNavigation",
    "LabyrinthRooms",
    "LabyrinthRotation",
    "LabyrinthWalk",
    "SavedEpisodes",
    "Split",
]
