"""What people look at: what a model did on held-out episodes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.frame_errors import closest_copies
from gtm_pyro.evaluation.headings import map_poses
from gtm_pyro.evaluation.style import (
    COPY,
    FLOOR,
    MEAN,
    PREDICTED,
    RAW_STATES,
    TIME_MAP,
    TRUE,
    UNVISITED,
    canvas,
    cells_of_world,
    image,
    pixels_per_cell,
    plain,
    png,
)
from gtm_pyro.report.animation import rollout_gif
from gtm_pyro.report.curves import curve
from gtm_pyro.report.ground import Ground, square
from gtm_pyro.report.model_figures import training_figure, transition_figure
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.tasks.base import Task, general_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figures(
    evaluation: Evaluation,
    directory: str | os.PathLike[str],
    *,
    task: Task | None = None,
    ground: Ground | None = None,
    transition: Any = None,
    training: Sequence[Mapping[str, Any]] = (),
    action_names: Sequence[str] | None = None,
    episode: int = 0,
) -> list[Path]:
    """Draw every figure that the evaluation has data for.

    :param directory: where ``walk.png``, ``states.png``, ``frames.png``, ``horizon.png``, ``transition.png``,
        ``training.png``, ``rollout.gif`` and the figures of the task go.
    :param task: of the episodes; by default the general one.
    :param ground: what the agent of the episode walks on, where it is known.
    :param transition: the model's, for its displacements and its gate.
    :param training: the lines of metrics.jsonl.
    :param action_names: one for each number of an action.
    :param episode: which episode is shown where one is shown.
    :returns: the files written.
    :raises RunFolderError: a file cannot be written.
    """
    figures: dict[str, Figure | None] = {
        **(task or general_task()).figures(evaluation, episode, ground),
        "walk": walk_figure(evaluation, episode),
        "states": states_figure(evaluation, episode),
        "frames": frames_figure(evaluation),
        "horizon": horizon_figure(evaluation),
        "transition": transition_figure(transition, evaluation, action_names),
        "training": training_figure(training),
    }
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(write_result(Path(directory) / f"{name}.png", png(figure)))
    animation = rollout_gif(evaluation, episode, ground=ground)
    if animation is not None:
        paths.append(write_result(Path(directory) / "rollout.gif", animation))
    return paths


def walk_figure(evaluation: Evaluation, episode: int = 0) -> "Figure | None":
    """The image with the true walk, memorised and predicted steps apart; None without two-dimensional poses."""
    episodes, tau = evaluation.episodes, evaluation.episodes.num_observed
    if episodes.poses is None or episodes.poses.shape[-1] != 2:
        return None
    stride = pixels_per_cell(episodes)
    # a little noise, so that steps through the same cell can be told apart
    noise = np.random.default_rng(0).uniform(-0.22, 0.22, (episodes.num_steps, 2))
    points = episodes.poses[episode].numpy() + noise
    figure, axes = canvas(1, 2, (10, 5.2))
    parts = [
        (f"memorised: steps 1 to {tau}", slice(0, tau)),
        (f"predicted: steps {tau + 1} to {episodes.num_steps}", slice(tau, None)),
    ]
    ends = [
        (0, "first step", {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black"}),
        (-1, "last step", {"marker": "s", "markerfacecolor": "black", "markeredgecolor": "white"}),
    ]
    for ax, (title, steps) in zip(axes[0], parts, strict=True):
        if stride is not None and episodes.worlds is not None:
            extent = cells_of_world(episodes.worlds.shape[-2:], episodes.frame_shape[1:], stride)
            ax.imshow(image(episodes.worlds[episode]), extent=extent, alpha=0.75)
        _timed_path(ax, points[steps])
        for place, label, marker in ends:
            ax.plot(*points[steps][place], linestyle="none", markersize=9, label=label, **marker)
        ax.set(title=title, xlabel="x (cells)", ylabel="y (cells)", aspect="equal")
        if stride is None:
            ax.invert_yaxis()
    axes[0, 0].legend(loc="upper left", fontsize=8)
    _time_bar(figure, axes[0], "first step to last")
    return figure


def states_figure(evaluation: Evaluation, episode: int = 0) -> "Figure | None":
    """True positions, inferred ones aligned to them, and the raw states; None where there is no path in a plane.

    Positions of agents with a heading are as seen from where they start.
    """
    if evaluation.states is None:
        return None
    states, poses = evaluation.states[episode], evaluation.poses
    on_map = map_poses(evaluation)
    if states.shape[-1] < 2 or (on_map is not None and not on_map.moving):
        return None
    panels = [("inferred states, raw", states[:, :2], RAW_STATES)]
    aligned = evaluation.aligned_states
    if poses is not None and (on_map is not None or poses.shape[-1] == 2) and aligned is not None:
        names = ("x (cells)", "y (cells)") if on_map is None else ("ahead at the start (cells)", "left (cells)")
        panels.insert(0, ("true positions", poses[episode, :, :2], names))
        panels.insert(1, ("inferred states, best affine fit", aligned[episode], names))
        if evaluation.similarity is not None:
            fitted = evaluation.similarity(states[:, : evaluation.similarity.matrix.shape[-1]])
            panels.insert(2, ("inferred states, best similarity fit", fitted, names))
    figure, axes = canvas(1, len(panels), (3.6 * len(panels) + 0.6, 3.9))
    for ax, (title, points, names) in zip(axes[0], panels, strict=True):
        _timed_path(ax, points.numpy())
        ax.set(xlabel=names[0], ylabel=names[1], aspect="equal", xmargin=0.08, ymargin=0.08)
        ax.set_title(title, fontsize=10)
        plain(ax)
        if on_map is None and "cells" in names[0]:
            low, high = float(panels[0][1].min()) - 0.8, float(panels[0][1].max()) + 0.8
            ax.set(xlim=(low, high), ylim=(high, low))
        elif "cells" in names[0]:
            shown = torch.cat([path for _, path, its in panels if its == names])
            corner, other = square(shown.amin(0).numpy() - 0.2, shown.amax(0).numpy() + 0.2)
            ax.set(xlim=(corner[0], other[0]), ylim=(corner[1], other[1]))
    _time_bar(figure, axes[0], f"step 1 to {len(states)}")
    return figure


def frames_figure(evaluation: Evaluation, num_episodes: int = 2) -> "Figure":
    """True frames, predicted ones and the autoencoder's own, at horizons 1, 2, 4, ... and the last.

    Without an autoencoder, the memorised frame that looks most like the true one.
    """
    episodes = evaluation.episodes
    last = episodes.num_predicted
    horizons = [2**power for power in range(last.bit_length()) if 2**power < last] + [last]
    shown = min(num_episodes, episodes.batch_size)
    seen = "view" if episodes.has_heading else "place"
    rows = {"true": episodes.predicted_frames[:shown]}
    if evaluation.predicted_frames is not None:
        rows["predicted"] = evaluation.predicted_frames
    if evaluation.reconstructed_frames is not None:
        rows["decoded from\nits encoding"] = evaluation.reconstructed_frames
    else:
        chosen = zip(episodes.frames, closest_copies(episodes[:shown]), strict=False)
        rows["memorised,\nmost alike"] = torch.stack([frames[steps] for frames, steps in chosen])
    # pictures side by side in one pair of axes: axes of their own would take most of a report's time
    height = episodes.frame_shape[1] / episodes.frame_shape[2]
    wide, high = len(horizons) + 1.0, height * len(rows) + 0.4
    figure, axes = canvas(shown, 1, (1.05 * wide, 1.05 * high * shown))
    for b, ax in enumerate(axes[:, 0]):
        for c, horizon in enumerate(horizons):
            new = evaluation.visited is not None and not bool(evaluation.visited[b, horizon - 1])
            colour, width = (UNVISITED, 2.5) if new else ("black", 0.6)
            for r, frames in enumerate(rows.values()):
                left, right, bottom, top = c + 0.04, c + 0.96, height * (r + 0.96), height * (r + 0.04)
                ax.imshow(image(frames[b, horizon - 1]), interpolation="nearest", extent=(left, right, bottom, top))
                ax.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, lw=width)
            title = (f"+{horizon}" if c else "step +1") + (f"\nnew {seen}" if new else "")
            ax.text(c + 0.5, -0.04, title, fontsize=9, color=colour, ha="center", va="bottom")
        for r, name in enumerate(rows):
            ax.text(-0.05, height * (r + 0.5), name, fontsize=9, ha="right", va="center")
        ax.set(xlim=(-1, wide - 1), ylim=(high - 0.4, -0.4), aspect="equal")
        ax.set_axis_off()
    return figure


def horizon_figure(evaluation: Evaluation) -> "Figure":
    """Error, retrieval and localisation by the number of steps predicted, with all baselines."""
    arrays, poses = evaluation.by_horizon, map_poses(evaluation)
    headed = evaluation.episodes.has_heading
    seen, still = "view" if headed else "place", poses is not None and not poses.moving
    predicted = [("mse", PREDICTED, "predicted", "-")]
    # a walk hardly ever shows a view again, and a turn shows only such ones for a while
    if "mse_visited" in arrays and (not headed or still):
        predicted = [
            ("mse_unvisited", UNVISITED, f"predicted, new {seen}s", "-"),
            ("mse_visited", PREDICTED, f"predicted, visited {seen}s", "-"),
        ]
    curves = [
        ("last_frame_mse", COPY, "last memorised frame", ":"),
        ("mean_frame_mse_all", MEAN, "mean memorised frame", "--"),
        ("copy_mse", COPY, "memorised frame of the nearest true pose", "-."),
        ("closest_copy_mse", TRUE, "memorised frame most like the truth", "-."),
        *predicted,
        ("reconstruction_mse_all", FLOOR, "decoded from its own encoding (floor)", ":"),
    ]
    others = [
        ("retrieval_accuracy", f"right {seen} retrieved (share of visited steps)"),
        ("localisation_rmse", "position error (cells, best affine fit)"),
        ("heading_rmse", "heading error (degrees)"),
    ]
    if poses is not None and poses.heading_errors is not None:
        error = poses.heading_errors[:, evaluation.episodes.num_observed :]
        arrays = arrays | {"heading_rmse": np.sqrt(np.square(error).mean(0))}
    if headed:
        others.pop(1 if still else 0)
    others = [(name, label) for name, label in others if name in arrays and np.isfinite(arrays[name]).any()]
    curves = [line for line in curves if line[0] in arrays]
    figure, axes = canvas(1, 1 + len(others), (4.4 * (1 + len(others)), 3.7))
    horizon = np.arange(1, evaluation.episodes.num_predicted + 1)
    for name, colour, label, line in curves:
        curve(axes[0, 0], horizon, arrays[name], colour, line, label)
    axes[0, 0].set(yscale="log", ylabel="squared error a pixel")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high * (high / low) ** (0.1 * (1 + len(curves))))  # room for the legend
    axes[0, 0].legend(fontsize=8, loc="upper left")
    for ax, (name, label) in zip(axes[0, 1:], others, strict=True):
        if name == "heading_rmse":  # smooth as it is
            ax.plot(horizon, arrays[name], color=PREDICTED, linewidth=1.8)
        else:
            curve(ax, horizon, arrays[name], PREDICTED, "-", None)
        ax.set(ylabel=label, ylim=(0, 1.03) if name == "retrieval_accuracy" else (0, None))
    for ax in axes[0]:
        ax.set_xlabel("steps after the last memorised one")
        plain(ax)
    return figure


def _timed_path(ax: Any, points: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    segments: Any = np.stack([points[:-1], points[1:]], 1)
    ax.add_collection(LineCollection(segments, colors="white", linewidths=2.4, alpha=0.7))
    lines = LineCollection(segments, array=np.linspace(0, 1, len(segments)), cmap=TIME_MAP, linewidths=1.2)
    ax.add_collection(lines)
    ax.scatter(*points.T, c=np.linspace(0, 1, len(points)), cmap=TIME_MAP, s=7, zorder=3)


def _time_bar(figure: Any, axes: Any, label: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=TIME_MAP), ax=list(axes), shrink=0.75, ticks=[])
    bar.set_label(f"time: {label}", fontsize=9)
