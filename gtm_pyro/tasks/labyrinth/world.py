"""What a labyrinth looks like: rectangles to walk on, walls, textures and objects. Renderers and maps read it."""

from dataclasses import dataclass

import numpy as np

EYE_HEIGHT = 41 / 128
"""Of the agent's eye over the floor, in cells; a wall is one cell high."""
AGENT_RADIUS = 16 / 128
"""In cells: the agent is a square of twice that side."""
UNITS = 128
"""Doom's map units in a cell."""


@dataclass(frozen=True, eq=False)
class World:
    """Some rooms, lengths in cells. A cell is as long as walls are high; x points east, y north.

    :ivar floors: rectangles that can be walked on, ``(R, 4)``: left, bottom, right, top. Rooms first, then doorways;
        they touch along openings and do not overlap.
    :ivar num_rooms: how many of them are rooms.
    :ivar pillars: solid rectangles within rooms, ``(P, 4)``.
    :ivar walls: what blocks sight, axis-parallel, ``(W, 4)``: x1, y1, x2, y2; from the first point to the second, the
        side that is seen is on the right hand. Pillars' walls are among them.
    :ivar wall_textures: which texture each wall shows, ``(W,)``. It begins at the first point and repeats every cell.
    :ivar floor_textures: which texture the floor of each rectangle shows, ``(R,)``, aligned to whole cells.
    :ivar ceiling_textures: likewise.
    :ivar textures: ``(N, S, S, 3)`` uint8, row 0 at the top (north), one texture a cell.
    :ivar objects: flat pictures that always face the agent and do not block it, ``(O, 4)``: x, y, width, height; they
        stand on the floor.
    :ivar object_pictures: which picture each shows, ``(O,)``.
    :ivar pictures: ``(N, S, S, 4)`` uint8, the last channel 255 where it is seen and 0 elsewhere.
    """

    floors: np.ndarray
    num_rooms: int
    pillars: np.ndarray
    walls: np.ndarray
    wall_textures: np.ndarray
    floor_textures: np.ndarray
    ceiling_textures: np.ndarray
    textures: np.ndarray
    objects: np.ndarray
    object_pictures: np.ndarray
    pictures: np.ndarray
