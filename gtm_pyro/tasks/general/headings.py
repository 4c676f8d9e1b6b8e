"""Agents with a heading, as in figure 3 of Fraccaro et al. 2018: their map, their headings, and the last frames."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.headings import MapPoses, map_poses
from gtm_pyro.evaluation.style import PREDICTED, TRUE, UNVISITED, canvas, image, plain
from gtm_pyro.evaluation.views import nearest_view
from gtm_pyro.report.ground import Ground, square

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# what was memorised, in paler colours than what was predicted
_SEEN = {TRUE: "#56B4E9", PREDICTED: "#E69F00"}
_EVERY = 10  # steps from arrow to arrow
_COLUMNS = 16  # frames in a row
_CELL = 0.84  # inches for a frame


def map_figure(evaluation: Evaluation, ground: Ground | None = None, episode: int = 0) -> "Figure | None":
    """The map with true and inferred poses of one episode, and headings over time; None without headings in poses.

    Of agents that turn in place, time runs outwards along the two spirals.

    :param ground: what is walked on, otherwise paths are on an empty page.
    """
    poses = map_poses(evaluation)
    if poses is None:
        return None
    tau, total = evaluation.episodes.num_observed, evaluation.episodes.num_steps
    if poses.moving:
        headed = poses.headings is not None
        figure, axes = canvas(1 + headed, 2, (10.6, 5.2 + 3.2 * headed), height_ratios=[5.2, 3.2][: 1 + headed])
        layout: Any = figure.get_layout_engine()
        if layout is not None:
            layout.set(rect=(0, 0, 1, 0.97))  # maps stand out over what it makes room for
        parts = {
            f"memorised: steps 1 to {tau}": slice(0, tau),
            f"predicted: steps {tau + 1} to {total}": slice(tau, total),
        }
        for ax, (title, steps) in zip(axes[0], parts.items(), strict=True):
            _paths(ax, poses, ground, episode, steps, seen=steps.start == 0)
            ax.set_title(title, fontsize=11)
        rest = axes[1] if headed else []
    else:
        figure, axes = canvas(1, 3, (13.6, 4.5))
        _spirals(axes[0, 0], poses, ground, episode, tau)
        rest = axes[0, 1:] if poses.headings is not None else []
        for ax in axes[0, 1:] if poses.headings is None else []:
            ax.set_visible(False)
    for draw, ax in zip((_headings, _heading_errors), rest, strict=False):
        draw(ax, poses, evaluation, episode)
    return figure


def _paths(ax: Any, poses: MapPoses, ground: Ground | None, episode: int, steps: slice, seen: bool) -> None:
    """True and inferred paths of some steps, with an arrow every few steps and both ends marked."""
    _ground(ax, ground, np.concatenate([poses.true[episode, :, :2], poses.positions[episode]]))
    if not seen:
        before = poses.true[episode, : steps.start + 1, :2]
        ax.plot(*before.T, color="white", linewidth=1.2, alpha=0.8, zorder=1, label="memorised path")
    headings = poses.headings
    tracks: list[tuple[str, str, np.ndarray, np.ndarray | None]]
    tracks = [("true", TRUE, poses.true[episode, :, :2], poses.true[episode, :, 2])]
    tracks.append(("inferred", PREDICTED, poses.positions[episode], None if headings is None else headings[episode]))
    for name, colour, places, directions in tracks:
        colour = _SEEN[colour] if seen else colour
        ax.plot(*places[steps].T, color="white", linewidth=3.2, alpha=0.7, zorder=2)
        ax.plot(*places[steps].T, color=colour, linewidth=1.7, zorder=3, label=name)
        if directions is not None:
            _arrows(ax, places[steps][::_EVERY], directions[steps][::_EVERY], colour)
        ends = {"markeredgecolor": "black", "markeredgewidth": 1.0, "linestyle": "none", "zorder": 5}
        ax.plot(*places[steps][0], marker="o", markersize=8, color=colour, **ends)
        ax.plot(*places[steps][-1], marker="s", markersize=8, color=colour, **ends)
    ax.plot([], [], marker="o", color="white", markeredgecolor="black", linestyle="none", label="first step")
    ax.plot([], [], marker="s", color="white", markeredgecolor="black", linestyle="none", label="last step")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, fontsize=8, facecolor="#D8D8D8", framealpha=1)


def _arrows(ax: Any, places: np.ndarray, directions: np.ndarray, colour: str) -> None:
    toward = np.stack([np.cos(directions), np.sin(directions)], -1)
    ax.quiver(
        *places.T, *toward.T, color=colour, edgecolor="white", linewidth=0.5, scale=4.6, scale_units="inches",
        angles="xy", units="inches", width=0.028, headwidth=4, headlength=4, headaxislength=3.6, zorder=4,
    )  # fmt: skip


def _spirals(ax: Any, poses: MapPoses, ground: Ground | None, episode: int, tau: int) -> None:
    """Where an agent looks that turns in place: the direction is the heading, and time runs outwards."""
    x, y = poses.true[episode, 0, :2]
    reach = 1.0
    if ground is not None:
        low, high = ground.limits
        reach = max(0.6, 0.8 * float(min(*(poses.true[episode, 0, :2] - low), *(high - poses.true[episode, 0, :2]))))
    _ground(ax, ground, np.array([[x - reach, y - reach], [x + reach, y + reach]]))
    radius = np.linspace(0.3, 1, poses.true.shape[1]) * reach
    for name, colour, headings, width in (
        ("true", TRUE, poses.true[episode, :, 2], 5.0),
        ("inferred", PREDICTED, None if poses.headings is None else poses.headings[episode], 2.0),
    ):
        if headings is None:
            continue
        points = np.stack([x + radius * np.cos(headings), y + radius * np.sin(headings)])
        if colour == TRUE:
            ax.plot(*points, color="white", linewidth=width + 2, zorder=2)
        ax.plot(*points[:, : tau + 1], color=_SEEN[colour], linewidth=width, zorder=3, label=f"{name}, memorised")
        ax.plot(*points[:, tau:], color=colour, linewidth=width, zorder=3, label=f"{name}, predicted")
        ax.plot(*points[:, -1], "s", color=colour, markeredgecolor="black", markersize=7, zorder=5)
    first, last = poses.true[episode, [0, tau - 1], 2]
    for heading in (first, last):
        end = reach * 1.05
        ax.plot(
            [x, x + end * np.cos(heading)], [y, y + end * np.sin(heading)], ":", color="black", linewidth=1, zorder=2
        )
    ax.plot(x, y, "o", color="white", markeredgecolor="black", markersize=8, zorder=5)
    ax.set_title("viewing directions, time runs outwards", fontsize=11)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8)


def _ground(ax: Any, ground: Ground | None, points: np.ndarray) -> None:
    """A map, or an empty page that holds all points."""
    if ground is not None:
        ground.draw(ax)
    else:
        low, high = square(points.min(0), points.max(0))
        margin = 0.06 * float(high[0] - low[0]) + 0.05
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
        ax.set_facecolor("#E4E4E4")
    ax.set(xlabel="x (cells)", ylabel="y (cells)")


def _headings(ax: Any, poses: MapPoses, evaluation: Evaluation, episode: int) -> None:
    """Both headings of one episode, not wrapped, as turned since the first step."""
    assert poses.headings is not None
    steps, start = np.arange(1, poses.true.shape[1] + 1), poses.true[episode, 0, 2]
    _mark_new(ax, poses, evaluation, episode)
    for name, colour, headings, width in (
        ("true", TRUE, poses.true[..., 2], 4.5),
        ("inferred", PREDICTED, poses.headings, 1.6),
    ):
        ax.plot(steps, np.degrees(headings[episode] - start), color=colour, linewidth=width, label=name)
    ax.set(ylabel="heading (degrees turned)", title="headings of this episode")
    _finish(ax, evaluation)
    ax.legend(fontsize=8, loc="best")


def _heading_errors(ax: Any, poses: MapPoses, evaluation: Evaluation, episode: int) -> None:
    """Inferred minus true heading of every episode."""
    assert poses.headings is not None
    steps = np.arange(1, poses.true.shape[1] + 1)
    errors = np.degrees(poses.headings - poses.true[..., 2])
    _mark_new(ax, poses, evaluation, episode)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.plot(steps, errors.T, color="#7F7F7F", linewidth=0.7, alpha=0.5)
    ax.plot(steps, errors[episode], color=PREDICTED, linewidth=1.6, label="this episode")
    ax.plot([], [], color="#7F7F7F", label="the others")
    ax.set(ylabel="heading, inferred less true (degrees)", title="error of headings, all episodes")
    _finish(ax, evaluation)
    ax.legend(fontsize=8, loc="best")


def _mark_new(ax: Any, poses: MapPoses, evaluation: Evaluation, episode: int) -> None:
    """Pink where an agent that turns in place looks where it has not looked while memorising."""
    if poses.moving or evaluation.visited is None:
        return
    label: str | None = "view not memorised"
    for step in np.flatnonzero(~evaluation.visited[episode].numpy()) + evaluation.episodes.num_observed + 1:
        ax.axvspan(step - 0.5, step + 0.5, color=UNVISITED, alpha=0.25, linewidth=0, label=label)
        label = None


def _finish(ax: Any, evaluation: Evaluation) -> None:
    ax.axvline(evaluation.episodes.num_observed + 0.5, color="black", linestyle="--", linewidth=1, label="memory ends")
    ax.set_xlabel("step")
    plain(ax)


def last_frames_figure(evaluation: Evaluation, episode: int = 0) -> "Figure | None":
    """True frames, predicted ones, and the memorised one of the nearest true pose; None without headings in poses.

    Every second of the last steps of two episodes; of agents that turn in place, the last ones of one episode, after
    those around the end of memorisation.
    """
    poses, episodes, tau = map_poses(evaluation), evaluation.episodes, evaluation.episodes.num_observed
    predicted = evaluation.predicted_frames
    if poses is None or episodes.poses is None or predicted is None:
        return None
    nearest = nearest_view(episodes.poses, tau, evaluation.view_tolerance)
    total, before = episodes.num_steps, min(3, tau)
    last = range(max(tau, total - _COLUMNS), total)
    blocks = [(episode, range(tau - before, min(total, tau + _COLUMNS - before))), (episode, last)]
    if poses.moving:
        last = range(total - 1, max(tau, total - 2 * _COLUMNS) - 1, -2)[::-1]
        blocks = [(b, last) for b in range(episode, min(episode + 2, episodes.batch_size))]
    columns = max(len(steps) for _, steps in blocks)
    block = 3 * _CELL + 0.36
    width, height = 1.05 + _CELL * columns, len(blocks) * block
    figure, axes = canvas(3 * len(blocks), columns, (width, height))
    # every place is known, and to solve for them takes long with so many axes
    figure.set_layout_engine(None)
    for (row, column), ax in np.ndenumerate(axes):
        bottom = height - (row // 3) * block - (row % 3 + 1) * _CELL - 0.28
        ax.set_position(((1.0 + _CELL * column) / width, bottom / height, 0.93 * _CELL / width, 0.93 * _CELL / height))
    for ax in axes.flat:
        ax.axis("off")
    for number, (b, steps) in enumerate(blocks):
        rows = axes[3 * number : 3 * number + 3]
        for column, step in enumerate(steps):
            shown = [episodes.frames[b, step]]
            if step >= tau:
                shown += [predicted[b, step - tau], episodes.frames[b, int(nearest[b, step - tau])]]
            new = step >= tau and evaluation.visited is not None and not bool(evaluation.visited[b, step - tau])
            for ax, frame in zip(rows[:, column], shown, strict=False):
                _frame(ax, frame, new)
            title = f"+{step - tau + 1}" if step >= tau else "memory"
            rows[0, column].set_title(title, fontsize=8.5, color=UNVISITED if new else "black")
        for row, name in zip(rows, ("true", "predicted", "memorised,\nnearest pose"), strict=True):
            # the axes of the first column may be off
            row[0].text(-0.12, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    return figure


def _frame(ax: Any, frame: Any, new: bool) -> None:
    ax.axis("on")
    ax.imshow(image(frame), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=UNVISITED if new else "black", linewidth=2.5 if new else 0.6)
