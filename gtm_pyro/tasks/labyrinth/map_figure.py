"""Labyrinths as seen from above: floors, walls, pillars and things in the colours of their textures."""

from typing import TYPE_CHECKING, Any, NamedTuple

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


class Picture(NamedTuple):
    """A square picture of a map, and where it shows a place.

    :param pixels: ``(side, side, 3)`` uint8.
    :param low: the place of its lower left corner, in cells.
    :param unit: pixels a cell.
    """

    pixels: np.ndarray
    low: np.ndarray
    unit: float

    def place(self, positions: np.ndarray) -> np.ndarray:
        """Positions ``(..., 2)`` in cells as columns and rows of the picture."""
        across, up = np.moveaxis((positions - self.low) * self.unit, -1, 0)
        return np.stack([across, len(self.pixels) - up], -1)


def picture_of_world(world: "World", side: int) -> Picture:
    """A map of so many pixels a side, the world in its middle."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side / 100, side / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.axis("off")
    draw_world(ax, world)
    low, high = square(*world_limits(world))
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return Picture(pixels, low, side / float(high[0] - low[0]))


def empty_picture(positions: np.ndarray, side: int) -> Picture:
    """A grey square that holds positions ``(n, 2)`` in cells, where there is no map."""
    low, high = square(positions.min(0), positions.max(0))
    half = max(0.62 * float(high[0] - low[0]), 0.5)
    low = (low + high) / 2 - half
    return Picture(np.full((side, side, 3), 0xEE, np.uint8), low, side / (2 * half))


def square(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the smallest square about the middle of a rectangle that holds it."""
    middle, half = (low + high) / 2, float((high - low).max()) / 2
    return middle - half, middle + half
