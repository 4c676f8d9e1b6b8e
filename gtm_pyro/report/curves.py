"""Curves by the number of steps predicted."""

from typing import Any

import numpy as np

SMOOTHING = 9  # steps of the running mean


def curve(ax: Any, x: np.ndarray, y: np.ndarray, colour: str, line: str, label: str | None) -> None:
    ax.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
    known = np.isfinite(y).astype(float)
    window = np.ones(min(SMOOTHING, len(y)))
    with np.errstate(invalid="ignore"):
        smooth = np.convolve(np.nan_to_num(y), window, "same") / np.convolve(known, window, "same")
    smooth[np.convolve(known, np.ones(min(3, len(y))), "same") == 0] = (
        np.nan
    )  # not over gaps that are wider than a step
    # two curves often lie on each other: a wide dotted one stays visible on top
    ax.plot(x, smooth, line, color=colour, linewidth=2.4 if line == ":" else 1.8, label=label)
