"""Worlds whose free cells are known, as grounds of figures and films."""

from typing import Any, NamedTuple

import numpy as np

_WALL, _FREE = "#8C8C8C", "#EDEDED"


class Layout(NamedTuple):
    """A :class:`gtm_pyro.report.ground.Ground` of cells: free ones and walls.

    :ivar free: ``(rows, columns)``; x goes along the columns, y along the rows.
    :ivar corner: where the first cell's corner is, x and y alike, in cells.
    """

    free: np.ndarray
    corner: float

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = self.free.shape
        return np.full(2, self.corner), np.array([columns, rows]) + self.corner

    def draw(self, ax: Any) -> None:
        from matplotlib.colors import ListedColormap

        low, high = self.limits
        colours = ListedColormap([_WALL, _FREE])
        corners = (low[0], high[0], low[1], high[1])
        ax.imshow(self.free, cmap=colours, vmin=0, vmax=1, extent=corners, origin="lower", zorder=0)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def layout_under(free: np.ndarray, positions: np.ndarray) -> Layout | None:
    """The layout that a path lies on; None if it does on none.

    Some count cells from their corners and others from their middles: the first cell is about 0, or begins there.

    :param free: ``(rows, columns)``.
    :param positions: in cells, ``(T, 2)``.
    """
    on = {corner: _share_on(free, positions - corner) for corner in (-0.5, 0.0)}
    best = max(on, key=lambda corner: on[corner])
    return Layout(free != 0, best) if on[best] > 0.9 else None


def _share_on(free: np.ndarray, positions: np.ndarray) -> float:
    columns, rows = np.floor(positions).astype(int).T
    inside = (rows >= 0) & (rows < free.shape[0]) & (columns >= 0) & (columns < free.shape[1])
    return float(np.sum(free[rows[inside], columns[inside]] != 0) / len(positions))
