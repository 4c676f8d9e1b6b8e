"""What agents walk on, as seen from above, for figures and films."""

from typing import Any, NamedTuple, Protocol

import numpy as np


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


class Ground(Protocol):
    """The world of one episode, as a task shows it. Places are in the units of poses."""

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower left and upper right corner of what is shown."""

    def draw(self, ax: Any) -> None:
        """On matplotlib axes, nothing of it above zorder 1."""


def picture_of(ground: Ground, side: int) -> Picture:
    """A map of so many pixels a side, the world in its middle."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side / 100, side / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.axis("off")
    ground.draw(ax)
    low, high = square(*ground.limits)
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
