"""Where episodes come from."""

from gtm_pyro.tasks.base import EpisodeData, Split
from gtm_pyro.tasks.fixed import FixedEpisodes
from gtm_pyro.tasks.image_navigation.source import ImageNavigation
from gtm_pyro.tasks.labyrinth import LabyrinthRooms, LabyrinthRotation, LabyrinthWalk
from gtm_pyro.tasks.saved import SavedEpisodes

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
