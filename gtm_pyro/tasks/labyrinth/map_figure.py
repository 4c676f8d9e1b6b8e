"""Labyrinths as seen from above: floors, walls, pillars and things in the colours of their textures."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gtm_pyro.tasks.labyrinth.world import World

_WALL = 3.0  # points
_MARGIN = 0.18  # cells around the rooms
_PALE = 0.45  # share of white in a floor's colour, so that paths stand out


def draw_world(ax: Any, world: "World") -> None:
    """A map on matplotlib axes, in cells, north up; nothing of it is above zorder 1."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    means = world.textures.reshape(len(world.textures), -1, 3).mean(1) / 255
    for box, texture in zip(world.floors, world.floor_textures, strict=True):
        colour = _PALE + (1 - _PALE) * means[texture]
        # drawn a little larger, or a hair of the page shows where two floors touch
        ax.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), color=colour, linewidth=0.5, zorder=0))
    for box in world.pillars:
        ax.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), color="#404040", linewidth=0, zorder=0.4))
    segments: Any = world.walls.reshape(-1, 2, 2)
    ax.add_collection(
        LineCollection(segments, colors="#202020", linewidths=_WALL + 1.6, capstyle="projecting", zorder=0.5)
    )
    ax.add_collection(LineCollection(segments, colors=list(means[world.wall_textures]), linewidths=_WALL, zorder=0.6))
    for (x, y, *_), number in zip(world.objects, world.object_pictures, strict=True):
        pixels = world.pictures[number].reshape(-1, 4)
        opaque = pixels[pixels[:, 3] > 0, :3]
        colour = opaque.mean(0) / 255 if len(opaque) else np.ones(3)
        ax.plot(x, y, "o", color=colour, markeredgecolor="black", markersize=6, markeredgewidth=0.8, zorder=0.8)
    low, high = world_limits(world)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def world_limits(world: "World") -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner of what a map shows, in cells."""
    return world.floors[:, :2].min(0) - _MARGIN, world.floors[:, 2:].max(0) + _MARGIN


class LabyrinthGround:
    """A labyrinth as :class:`gtm_pyro.report.ground.Ground`."""

    def __init__(self, world: "World") -> None:
        self.world = world

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        return world_limits(self.world)

    def draw(self, ax: Any) -> None:
        draw_world(ax, self.world)
