"""How an agent is found: shares and errors by step, and the particles of one episode on the map."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtm_pyro.evaluation.localisation import Localisation, frames_until_found
from gtm_pyro.evaluation.style import (
    FLOOR,
    MEAN,
    PREDICTED,
    TRUE,
    canvas,
    cells_of_world,
    image,
    pixels_per_cell,
    plain,
    png,
)
from gtm_pyro.storage.atomic import write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = (1, 2, 4, 8)  # frames after the start and after a kidnap


def localisation_figure(result: Localisation) -> "Figure":
    """Left, by step, the share of agents found and the error; right the particles of the episode that took longest.

    Without two-dimensional poses there are no maps.
    """
    maps = _shown_steps(result) if result.estimate.shape[-1] == 2 else []
    columns = 2 + -(-len(maps) // 2)
    figure, axes = canvas(2, columns, (3.3 * columns + 1.5, 6.4))
    for row in axes[:, :2]:  # curves need twice the width of a map
        for ax in row:
            ax.remove()
    grid = axes[0, 0].get_gridspec()
    _shares(figure.add_subplot(grid[0, :2]), result)
    _errors(figure.add_subplot(grid[1, :2]), result)
    places = list(axes[:, 2:].flat)
    for ax, step in zip(places, maps, strict=False):
        _map(ax, result, _slowest(result), step)
    for ax in places[len(maps) :]:
        ax.set_visible(False)
    if maps:
        places[0].legend(loc="upper left", fontsize=7)
    return figure


def save_localisation_figure(result: Localisation, path: str | os.PathLike[str]) -> Path:
    """Draw and write it as PNG, whole or not at all.

    :raises RunFolderError: it cannot be written.
    """
    return write_result(path, png(localisation_figure(result)))


def _shown_steps(result: Localisation) -> list[int]:
    """Steps from 0, at most eight."""
    starts = [0] if result.kidnapped is None else [0, result.kidnapped]
    ends = [*starts[1:], result.second.num_steps]
    parts = zip(starts, ends, strict=True)
    return [start + n - 1 for start, end in parts for n in _SHOWN if start + n <= end]


def _slowest(result: Localisation) -> int:
    """The episode that took longest but was found; the first where none was."""
    begin = result.kidnapped or 0
    took = frames_until_found(result.found[:, begin:])
    return int(took.masked_fill(took.isinf(), 0).argmax())


def _shares(ax: Any, result: Localisation) -> None:
    steps, curves = np.arange(1, result.second.num_steps + 1), result.by_step()
    ax.plot(steps, curves["localised_by_step"], color=PREDICTED, label="all episodes")
    ax.plot(steps, curves["localised_in_map_by_step"], color=FLOOR, linestyle="--", label="true place in the map")
    ax.set(ylabel="share within half a cell", ylim=(-0.02, 1.05))
    _mark_kidnap(ax, result)
    ax.legend(loc="lower right", fontsize=8)
    plain(ax)


def _errors(ax: Any, result: Localisation) -> None:
    steps, error = np.arange(1, result.second.num_steps + 1), result.error.numpy()
    low, middle, high = np.quantile(error, [0.1, 0.5, 0.9], axis=0)
    ax.fill_between(steps, low, high, color=PREDICTED, alpha=0.25, linewidth=0, label="10% to 90% of episodes")
    ax.plot(steps, middle, color=PREDICTED, label="median")
    ax.set(xlabel="step of the second walk", ylabel="error (cells)")
    _mark_kidnap(ax, result)
    ax.legend(loc="upper right", fontsize=8)
    plain(ax)


def _mark_kidnap(ax: Any, result: Localisation) -> None:
    if result.kidnapped is not None:
        ax.axvline(result.kidnapped + 1, color="black", linewidth=0.8, linestyle=":")
        ax.text(result.kidnapped + 1, 0.5, " kidnap", transform=ax.get_xaxis_transform(), fontsize=8)


def _map(ax: Any, result: Localisation, episode: int, step: int) -> None:
    second, walked = result.second, result.first.poses
    assert second.poses is not None and walked is not None
    stride = pixels_per_cell(second)
    if stride is not None and second.worlds is not None:
        extent = cells_of_world(second.worlds.shape[-2:], second.frame_shape[1:], stride)
        ax.imshow(image(second.worlds[episode]), extent=extent, alpha=0.45)
    known = np.unique(walked[episode].numpy().round(2), axis=0)
    ax.plot(*known.T, ".", color=MEAN, markersize=3, label="in the map")
    x, y = second.poses[episode, step].tolist()
    ax.plot(x, y, "x", color=TRUE, markersize=13, markeredgewidth=2.5, label="true")
    points, weight = result.particles[episode, step].numpy(), result.weight[episode, step].numpy()
    held = weight > 1e-4
    size = 15 + 120 * weight[held]
    ax.scatter(*points[held].T, s=size, color=PREDICTED, alpha=0.7, linewidths=0, label="particles")
    low, high = float(walked.min()) - 1.2, float(walked.max()) + 1.2
    ax.set(xlim=(low, high), ylim=(high, low), aspect="equal", xticks=[], yticks=[])
    kidnapped = result.kidnapped
    since = f"{step + 1}" if kidnapped is None or step < kidnapped else f"{step - kidnapped + 1} since the kidnap"
    ax.set_title(f"frames: {since}", fontsize=9)
