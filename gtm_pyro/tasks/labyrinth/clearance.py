"""How far from walls and pillars each place of a labyrinth is, and which rooms a doorway joins."""

import math

import numpy as np
from scipy.ndimage import distance_transform_cdt

from gtm_pyro.tasks.labyrinth.world import World

_GRAIN = 32  # places a cell


class Clearance:
    """A map of the largest square about each place that holds no wall and no pillar."""

    def __init__(self, world: World) -> None:
        self._origin = np.floor(world.floors[:, :2].min(0)) - 1
        columns, rows = np.ceil((world.floors[:, 2:].max(0) + 1 - self._origin) * _GRAIN).astype(int)
        free = np.zeros((rows, columns), bool)
        for boxes, value in ((world.floors, True), (world.pillars, False)):
            for left, bottom, right, top in (boxes - np.tile(self._origin, 2)) * _GRAIN:
                free[_inner(bottom, top, value), _inner(left, right, value)] = value
        self._map = distance_transform_cdt(free, "chessboard") / _GRAIN
        self._last = np.array([columns - 1, rows - 1])

    def at(self, places: np.ndarray) -> np.ndarray:
        """Half the side of the free square about each place, in cells: ``(..., 2)`` to ``(...)``; 0 outside."""
        # clip and moveaxis take more time than all the rest, and policies ask this for every frame
        cells = np.minimum(np.maximum(((places - self._origin) * _GRAIN).astype(int), 0), self._last)
        return self._map[cells[..., 1], cells[..., 0]]

    def along(self, start: np.ndarray, end: np.ndarray) -> float:
        """The least on the straight way between two places ``(2,)``."""
        count = 2 + int(12 * math.dist(start, end))
        return float(self.at(start + np.linspace(0, 1, count)[:, None] * (end - start)).min())


def _inner(low: float, high: float, floor: bool) -> slice:
    """Places on a floor wholly, or on a pillar in part."""
    return slice(math.ceil(low), math.floor(high)) if floor else slice(math.floor(low), math.ceil(high))


def room_at(world: World, x: float, y: float) -> int | None:
    """The room around a place; None within a doorway or a wall."""
    left, bottom, right, top = world.floors[: world.num_rooms].T
    inside = (left <= x) & (x <= right) & (bottom <= y) & (y <= top)
    return int(inside.argmax()) if inside.any() else None


def doorways(world: World) -> dict[tuple[int, int], np.ndarray]:
    """The rectangle ``(4,)`` between each two rooms that are joined, both ways."""
    found = {}
    for box in world.floors[world.num_rooms :]:
        joined = [i for i, room in enumerate(world.floors[: world.num_rooms]) if _touch(room, box)]
        for one in joined:
            found.update({(one, other): box for other in joined if other != one})
    return found


def _touch(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two rectangles share more than a corner."""
    across, up = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in range(2))
    return bool(min(across, up) >= -1e-9 and max(across, up) > 1e-9)
