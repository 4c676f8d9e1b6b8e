"""What a model has learnt, and how training went."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.headings import map_poses
from gtm_pyro.evaluation.style import FLOOR, MEAN, PREDICTED, RAW_STATES, TRUE, UNVISITED, canvas, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACTION_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#7F7F7F", "#009E73", "#CC79A7", "#000000")
_REPEATS = 200  # of an action, after which momentum has built up


def transition_figure(
    transition: Any, evaluation: Evaluation, action_names: Sequence[str] | None = None
) -> "Figure | None":
    """Where each action leads, in state units and in cells, and the wall gate, or the room, as a field.

    :param transition: with ``displacement`` ``(2, action_dim)`` and perhaps a ``gate``, or walls to ``slide`` along, or
        with a heading; None is returned for any other.
    """
    if getattr(transition, "heading", False):
        return _motion_figure(transition, evaluation, action_names)
    displacement = getattr(transition, "displacement", None)
    if displacement is None or displacement.shape[0] != 2:
        return None
    poses, affine = evaluation.episodes.poses, evaluation.affine
    known = poses is not None and poses.shape[-1] == 2 and affine is not None
    gated = (hasattr(transition, "gate") or hasattr(transition, "slide")) and (known or evaluation.states is not None)
    moves = displacement.detach().cpu().double().mT
    names = list(action_names or (f"action {i}" for i in range(len(moves))))
    figure, axes = canvas(1, 1 + known + gated, (4.3 * (1 + known + gated), 4))
    _arrows(axes[0, 0], moves, names)
    axes[0, 0].set(title="displacements, raw", xlabel=RAW_STATES[0], ylabel=RAW_STATES[1])
    if known and affine is not None:
        ax = axes[0, 1]
        circle, cell = np.linspace(0, 2 * np.pi, 100), evaluation.metrics["cell_size"]
        ax.plot(cell * np.cos(circle), cell * np.sin(circle), ":", color=MEAN, linewidth=1)
        ax.text(0.72 * cell, 0.72 * cell, "one cell", color=MEAN, fontsize=8)
        _arrows(ax, moves @ affine.matrix.mT, names)
        ax.set(title="displacements, best affine fit", xlabel="x (cells)", ylabel="y (cells)")
        ax.invert_yaxis()
    if gated:
        _gate_field(figure, axes[0, -1], transition, evaluation, known)
    return figure


@torch.no_grad()
def _motion_figure(transition: Any, evaluation: Evaluation, action_names: Sequence[str] | None) -> "Figure":
    """What an agent with a heading does in a frame, after each action was repeated until nothing changes any more."""
    dim = transition.action_dim
    names = list(action_names or (f"action {i}" for i in range(dim)))
    each = torch.diag(transition.action_unit)  # as large as usual
    repeated = each.unsqueeze(1).expand(dim, _REPEATS, dim).to(transition.displacement)
    motion = transition.controls(repeated)[:, -1].cpu().double()
    moves, turns, unit = motion[:, :2], motion[:, 2], "the model's own unit"
    poses, fit = map_poses(evaluation), evaluation.similarity
    if poses is not None and poses.mirrored:
        turns = -turns
    panels = [("turn to the left (degrees a frame)", _told(torch.rad2deg(turns)))]
    if poses is None or poses.moving:
        # states and true poses, as seen from the first one, have all their axes in common but for the fit
        if poses is not None and fit is not None:
            moves, unit = moves @ fit.matrix.mT, "cells"
        moves = _told(moves)
        panels = [(f"ahead ({unit} a frame)", moves[:, 0]), (f"to the left ({unit} a frame)", moves[:, 1]), *panels]
    figure, axes = canvas(1, len(panels), (3.9 * len(panels) + 0.9, 0.32 * dim + 1.6), sharey=True)
    for ax, (label, values) in zip(axes[0], panels, strict=True):
        colours = [_ACTION_COLOURS[i % len(_ACTION_COLOURS)] for i in range(dim)]
        bars = ax.barh(range(dim), values.numpy(), color=colours)
        ax.bar_label(bars, fmt="%.3g", fontsize=8, padding=3)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set(xlabel=label, yticks=range(dim), yticklabels=names, xmargin=0.25)
        plain(ax)
        ax.grid(False)
    if len(panels) > 1:  # ahead and to the left, on one scale
        limits = [limit for ax in axes[0, :2] for limit in ax.get_xlim()]
        for ax in axes[0, :2]:
            ax.set_xlim(min(limits), max(limits))
    axes[0, 0].invert_yaxis()
    return figure


def _told(motion: torch.Tensor) -> torch.Tensor:
    """Without what is less than a thousandth of the largest."""
    return torch.where(motion.abs() < 1e-3 * motion.abs().max(), torch.zeros_like(motion), motion)


def _arrows(ax: Any, moves: torch.Tensor, names: Sequence[str]) -> None:
    reach = 1.4 * max(float(moves.abs().max()), 1e-6)
    for i, (x, y) in enumerate(moves.tolist()):
        colour = _ACTION_COLOURS[i % len(_ACTION_COLOURS)]
        length = np.hypot(x, y)
        if length < 0.02 * reach:
            ax.plot(x, y, "o", color=colour, zorder=3)
            place = (0.0, -0.12 * reach)
        else:
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (x, y), (0, 0), arrowprops=arrow)
            place = (x * (1 + 0.16 * reach / length), y * (1 + 0.12 * reach / length))
        paper = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
        ax.text(*place, names[i], color=colour, fontsize=9, ha="center", va="center", fontweight="bold", bbox=paper)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    plain(ax)


@torch.no_grad()
def _gate_field(figure: Any, ax: Any, transition: Any, evaluation: Evaluation, known: bool) -> None:
    """sigma_d where a move would lead, or the places inside all walls, over what was seen and two cells around it."""
    points = evaluation.episodes.poses if known else evaluation.states
    assert points is not None
    low, high = points.amin((0, 1)).double(), points.amax((0, 1)).double()
    margin = 2.0 * evaluation.metrics["cell_size"] if known else 0.25 * float((high - low).max())
    grid = [torch.linspace(float(a) - margin, float(b) + margin, 161).double() for a, b in zip(low, high, strict=True)]
    xy = torch.stack(torch.meshgrid(*grid, indexing="xy"), -1)
    states = evaluation.affine.inverse(xy) if known and evaluation.affine is not None else xy
    places, gated = states.to(transition.displacement), hasattr(transition, "gate")
    inside = transition.gate(places).squeeze(-1) if gated else (transition.slide(places) == places).all(-1).float()
    gate = inside.cpu().numpy()
    x, y = (axis.numpy() for axis in grid)
    mesh = ax.pcolormesh(x, y, gate, cmap="cividis", vmin=0, vmax=1, shading="auto")
    if gate.min() < 0.5 < gate.max():
        ax.contour(x, y, gate, levels=[0.5], colors="white", linewidths=1)
    visited = np.unique(points.reshape(-1, 2).numpy().round(2 if known else 1), axis=0)
    if len(visited) <= 2000:
        ax.plot(*visited.T, ".", color="white", markersize=3, alpha=0.8)
    ax.set(title="wall gate where a move would lead" if gated else "the room inside the walls", aspect="equal")
    names = ("x (cells, best affine fit)", "y (cells, best affine fit)") if known else RAW_STATES
    ax.set(xlabel=names[0], ylabel=names[1])
    if known:
        ax.invert_yaxis()
    if gated:
        figure.colorbar(mesh, ax=ax, shrink=0.8, label="share of the move that is made")


def training_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure | None":
    """Loss, its terms, gradient norm and learning rate by step, stages marked; None where nothing was logged.

    :param rows: the lines of metrics.jsonl. Attempts before a restart are drawn grey.
    """
    rows = [row for row in rows if "step" in row]
    if not rows:
        return None
    panels: list[tuple[str, dict[str, tuple[str, str]], bool]] = [
        ("loss (nats a frame)", {"loss": (PREDICTED, "loss")}, False),
        ("KL (nats a frame)", {"kl_z": (UNVISITED, "KL of z"), "kl_s": (MEAN, "KL of s")}, False),
        ("log likelihood (nats a frame)", {"log_likelihood": (FLOOR, "log likelihood")}, False),
        ("gradient norm", {"grad_norm": (TRUE, "gradient norm")}, True),
        ("learning rate", {"learning_rate": (MEAN, "learning rate")}, False),
    ]
    panels = [(label, lines, log) for label, lines, log in panels if any(_series(rows, name)[1].size for name in lines)]
    if not panels:
        return None
    columns = min(3, len(panels))
    figure, grid = canvas(-(-len(panels) // columns), columns, (4.2 * columns, 3.1 * -(-len(panels) // columns)))
    last = rows[-1].get("restarts", 0)
    for ax, (label, lines, log) in zip(grid.flat, panels, strict=False):
        for _, attempt in groupby(rows, lambda row: row.get("restarts", 0)):
            part = list(attempt)
            kept = part[-1].get("restarts", 0) == last
            for name, (colour, text) in lines.items():
                steps, values = _series(part, name)
                ax.plot(steps, values, color=colour if kept else "#CCCCCC", linewidth=1.3, label=text if kept else None)
        for before, after in zip(rows, rows[1:], strict=False):
            if before.get("stage") != after.get("stage") and before.get("restarts", 0) == after.get("restarts", 0):
                ax.axvline(after["step"], color="black", linewidth=0.8, linestyle="--", alpha=0.5)
        ax.set(xlabel="optimiser step (dashed: a new stage)", ylabel=label, yscale=_scale(rows, lines, log))
        if len(lines) > 1:
            ax.legend(fontsize=8)
        plain(ax)
    for ax in list(grid.flat)[len(panels) :]:
        ax.set_visible(False)
    return figure


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    known = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
    steps, values = zip(*known, strict=True) if known else ((), ())
    return np.array(steps, float), np.array(values, float)


def _scale(rows: Sequence[Mapping[str, Any]], lines: Mapping[str, Any], log: bool) -> str:
    values = np.concatenate([_series(rows, name)[1] for name in lines])
    return "log" if log and (values > 0).all() else "linear"
