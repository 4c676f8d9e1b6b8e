"""Rooms seen through the eyes of an agent that turns and walks."""

from gtm_pyro.tasks.labyrinth.sources import LabyrinthRooms, LabyrinthRotation, LabyrinthWalk

__all__ = ["LabyrinthRooms", "LabyrinthRotation", "LabyrinthWalk"]
