"""What people look at: what a model did on held-out episodes."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtm_pyro.animation import rollout_gif
from gtm_pyro.atomic import write_result
from gtm_pyro.evaluation import Evaluation
from gtm_pyro.figure_style import (
    FLOOR,
    MEAN,
    PREDICTED,
    TIME_MAP,
    UNVISITED,
    canvas,
    image,
    pixels_per_cell,
    plain,
)
from gtm_pyro.model_figures import training_figure, transition_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 9  # steps of the running mean in curves by horizon


def save_figures(
    evaluation: Evaluation,
    directory: str | os.PathLike[str],
    *,
    transition: Any = None,
    training: Sequence[Mapping[str, Any]] = (),
    action_names: Sequence[str] | None = None,
    episode: int = 0,
) -> list[Path]:
    """Draw every figure that the evaluation has data for.

    :param directory: where ``walk.png``, ``states.png``, ``frames.png``, ``horizon.png``, ``transition.png``,
        ``training.png`` and ``rollout.gif`` go.
    :param transition: the model's, for its displacements and its gate.
    :param training: the lines of metrics.jsonl.
    :param action_names: one for each number of an action.
    :param episode: which episode is shown where one is shown.
    :returns: the files written, in the order in which a reader wants them.
    :raises RunFolderError: a file cannot be written.
    """
    figures: dict[str, Figure | None] = {
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
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            paths.append(write_result(Path(directory) / f"{name}.png", buffer.getvalue()))
    animation = rollout_gif(evaluation, episode)
    paths.append(write_result(Path(directory) / "rollout.gif", animation))
    return paths


def walk_figure(evaluation: Evaluation, episode: int = 0) -> "Figure | None":
    """The image with the true walk, memorised and predicted steps apart; None without two-dimensional poses."""
    episodes, tau = evaluation.episodes, evaluation.episodes.num_observed
    if episodes.poses is None or episodes.poses.shape[-1] != 2:
        return None
    stride = pixels_per_cell(episodes)
    height, width = episodes.frame_shape[1:]
    scale, offset = (1.0, np.zeros(2)) if stride is None else (stride, (np.array([width, height]) - 1) / 2)
    # a little noise, so that steps through the same cell can be told apart
    noise = np.random.default_rng(0).uniform(-0.22, 0.22, (episodes.num_steps, 2))
    points = scale * (episodes.poses[episode].numpy() + noise) + offset
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
        unit = "cells"
        if stride is not None and episodes.worlds is not None:
            ax.imshow(image(episodes.worlds[episode]), alpha=0.75)
            unit = "pixels"
        _timed_path(ax, points[steps])
        for place, label, marker in ends:
            ax.plot(*points[steps][place], linestyle="none", markersize=9, label=label, **marker)
        ax.set(title=title, xlabel=f"x ({unit})", ylabel=f"y ({unit})", aspect="equal")
        if stride is None:
            ax.invert_yaxis()
    axes[0, 0].legend(loc="upper left", fontsize=8)
    _time_bar(figure, axes[0], "first step to last")
    return figure


def states_figure(evaluation: Evaluation, episode: int = 0) -> "Figure | None":
    """True positions, inferred ones aligned to them, and the raw states; None where states are not drawn in a plane."""
    states, poses = evaluation.states[episode], evaluation.episodes.poses
    if states.shape[-1] < 2:
        return None
    panels = [("inferred states, raw", states[:, :2], ("state 0", "state 1"))]
    if poses is not None and poses.shape[-1] == 2 and evaluation.affine is not None:
        names = ("x (cells)", "y (cells)")
        panels.insert(0, ("true positions", poses[episode], names))
        panels.insert(1, ("inferred states, best affine fit", evaluation.affine(states), names))
        if evaluation.similarity is not None:
            panels.insert(2, ("inferred states, best similarity fit", evaluation.similarity(states), names))
    figure, axes = canvas(1, len(panels), (3.6 * len(panels) + 0.6, 3.9))
    for ax, (title, points, names) in zip(axes[0], panels, strict=True):
        _timed_path(ax, points.numpy())
        ax.set(xlabel=names[0], ylabel=names[1], aspect="equal", xmargin=0.08, ymargin=0.08)
        ax.set_title(title, fontsize=10)
        plain(ax)
        if "cells" in names[0]:
            low, high = float(panels[0][1].min()) - 0.8, float(panels[0][1].max()) + 0.8
            ax.set(xlim=(low, high), ylim=(high, low))
    _time_bar(figure, axes[0], f"step 1 to {len(states)}")
    return figure


def frames_figure(evaluation: Evaluation, num_episodes: int = 2) -> "Figure":
    """True frames, predicted ones and the autoencoder's own, at horizons 1, 2, 4, ... and the last."""
    episodes = evaluation.episodes
    last = episodes.num_predicted
    horizons = [2**power for power in range(last.bit_length()) if 2**power < last] + [last]
    shown = min(num_episodes, episodes.batch_size)
    figure, axes = canvas(3 * shown, len(horizons), (1.05 * len(horizons) + 1.2, 3.35 * shown + 0.4))
    for b in range(shown):
        rows = {
            "true": episodes.predicted_frames,
            "predicted": evaluation.predicted_frames,
            "decoded from\nits encoding": evaluation.reconstructed_frames,
        }
        for r, (name, frames) in enumerate(rows.items()):
            for c, horizon in enumerate(horizons):
                ax = axes[3 * b + r, c]
                ax.imshow(image(frames[b, horizon - 1]), interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                new = evaluation.visited is not None and not bool(evaluation.visited[b, horizon - 1])
                for spine in ax.spines.values():
                    spine.set(color=UNVISITED if new else "black", linewidth=2.5 if new else 0.6)
                if r == 0:
                    title = (f"+{horizon}" if c else "step +1") + ("\nnew place" if new else "")
                    ax.set_title(title, fontsize=9, color=UNVISITED if new else "black")
            axes[3 * b + r, 0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    return figure


def horizon_figure(evaluation: Evaluation) -> "Figure":
    """Error, retrieval and localisation by the number of steps predicted, with both baselines."""
    arrays = evaluation.by_horizon
    curves = [
        ("mean_frame_mse", MEAN, "mean memorised frame", "--"),
        ("mse_unvisited", UNVISITED, "predicted, new places", "-"),
        ("mse_visited", PREDICTED, "predicted, visited places", "-"),
        ("reconstruction_mse", FLOOR, "decoded from its own encoding (floor)", ":"),
    ]
    if "mse_visited" not in arrays:
        curves = [
            ("mean_frame_mse_all", MEAN, "mean memorised frame", "--"),
            ("mse", PREDICTED, "predicted", "-"),
            ("reconstruction_mse_all", FLOOR, "decoded from its own encoding (floor)", ":"),
        ]
    others = [
        ("retrieval_accuracy", "right place retrieved (share of visited steps)"),
        ("localisation_rmse", "position error (cells, best affine fit)"),
    ]
    others = [(name, label) for name, label in others if name in arrays]
    figure, axes = canvas(1, 1 + len(others), (4.4 * (1 + len(others)), 3.7))
    horizon = np.arange(1, evaluation.episodes.num_predicted + 1)
    for name, colour, label, line in curves:
        _curve(axes[0, 0], horizon, arrays[name], colour, line, label)
    axes[0, 0].set(yscale="log", ylabel="squared error a pixel")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
    axes[0, 0].legend(fontsize=8, loc="upper left")
    for ax, (name, label) in zip(axes[0, 1:], others, strict=True):
        _curve(ax, horizon, arrays[name], PREDICTED, "-", None)
        ax.set(ylabel=label, ylim=(0, 1.03) if name == "retrieval_accuracy" else (0, None))
    for ax in axes[0]:
        ax.set_xlabel("steps after the last memorised one")
        plain(ax)
    return figure


def _curve(ax: Any, x: np.ndarray, y: np.ndarray, colour: str, line: str, label: str | None) -> None:
    ax.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
    known = np.isfinite(y).astype(float)
    window = np.ones(min(SMOOTHING, len(y)))
    with np.errstate(invalid="ignore"):
        smooth = np.convolve(np.nan_to_num(y), window, "same") / np.convolve(known, window, "same")
    # two curves often lie on each other: a wide dotted one stays visible on top
    ax.plot(x, smooth, line, color=colour, linewidth=2.4 if line == ":" else 1.8, label=label)


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
