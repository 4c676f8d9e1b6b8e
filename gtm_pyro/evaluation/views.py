"""Measures for agents with a heading: which views were memorised, and how well poses are known."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.evaluation.alignment import best_similarity
from gtm_pyro.poses.places import VIEW_TOLERANCE, Nearness, leaves
from gtm_pyro.poses.planar import relative_poses, unwrapped, wrapped

_WINDOW = 50


class Views(NamedTuple):
    """True poses of predicted steps against those of memorised ones.

    :param visited: whether the view was memorised, ``(batch, predicted)``.
    :param retrieved: whether the entry shown was written at that view, same shape.
    :param nearest: the memorised step whose true pose is nearest, same shape; None for poses without a heading.
    """

    visited: Tensor
    retrieved: Tensor
    nearest: Tensor | None


def compare(poses: Tensor, num_observed: int, entries: Tensor, near: Nearness, *, heading: bool) -> Views:
    """By view for poses with a heading, otherwise by distance: up to half a cell.

    :param entries: numbers of memory entries, ``(batch, predicted)``; -1 for none.
    :param heading: whether poses are ``(batch, T, 3)``, positions and headings: ``Episodes.has_heading``.
    """
    if heading:
        return compare_views(poses, num_observed, entries, near.view)
    observed, predicted = poses[:, :num_observed], poses[:, num_observed:]
    return Views(*visited_and_retrieved(observed, predicted, entries, near.cells.size), None)


def visited_and_retrieved(
    observed: Tensor, predicted: Tensor, entries: Tensor, cell_size: float
) -> tuple[Tensor, Tensor]:
    """Whether each predicted place was visited while memorising, and whether the chosen entry was written there.

    On a grid these are the same cells; elsewhere two places are the same up to half a cell from each other.

    :param observed: positions ``(batch, tau, pose_dim)``.
    :param predicted: positions ``(batch, num_predicted, pose_dim)``.
    :param entries: numbers of memory entries, ``(batch, num_predicted)``; -1 for none, which was written nowhere.
    :param cell_size: in the unit of the positions.
    :returns: two boolean tensors ``(batch, num_predicted)``.
    """
    same = torch.cdist(predicted, observed, compute_mode="donot_use_mm_for_euclid_dist") < 0.5 * cell_size
    retrieved = same.gather(-1, entries.clamp_min(0).unsqueeze(-1)).squeeze(-1) & (entries >= 0)
    return same.any(-1), retrieved


def compare_views(poses: Tensor, num_observed: int, entries: Tensor, tolerance: tuple[float, float]) -> Views:
    """Compare views by position and heading, as of the tolerances; headings are periodic.

    :param poses: ``(batch, T, 3)``: x, y, radians.
    :param entries: numbers of memory entries, ``(batch, predicted)``; -1 for none.
    """
    far, aside = _apart(poses, num_observed, tolerance)
    same = torch.maximum(far, aside) <= 1
    retrieved = same.gather(-1, entries.clamp_min(0).unsqueeze(-1)).squeeze(-1) & (entries >= 0)
    return Views(same.any(-1), retrieved, nearest_view(poses, num_observed, tolerance))


def nearest_view(poses: Tensor, num_observed: int, tolerance: tuple[float, float] = VIEW_TOLERANCE) -> Tensor:
    """The memorised step whose true pose is nearest to that of each predicted one, ``(batch, predicted)``."""
    far, aside = _apart(poses, num_observed, tolerance)
    return (far.square() + aside.square()).argmin(-1)


def _apart(poses: Tensor, num_observed: int, tolerance: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Distances and turns of predicted from memorised views, in tolerances: (batch, predicted, tau)."""
    seen, new = poses[:, None, :num_observed], poses[:, num_observed:, None]
    aside = wrapped(new[..., 2] - seen[..., 2]).abs() / tolerance[1]
    return (new[..., :2] - seen[..., :2]).norm(dim=-1) / tolerance[0], aside


def heading_sign(states: Tensor, relative: Tensor) -> float:
    """1, or -1 for states on a mirrored map, which is as good: both ``(batch, T, 3)``, as of :func:`pose_measures`."""
    heading, true = unwrapped(states[..., 2].double()), unwrapped(relative[..., 2].double())
    return 1.0 if float((heading * true).sum()) >= 0 else -1.0


def pose_measures(states: Tensor, relative: Tensor) -> dict[str, float]:
    """How well headings, and positions at the last step, are known.

    :param states: ``(batch, T, 3)``, positions and headings.
    :param relative: of :func:`~gtm_pyro.poses.planar.relative_poses`.
    """
    heading, true = unwrapped(states[..., 2].double()), unwrapped(relative[..., 2].double())
    error = wrapped(heading_sign(states, relative) * heading - true)
    centred = [x - x.mean() for x in (heading, true)]
    power = centred[0].square().sum() * centred[1].square().sum()
    measures = {
        "heading_correlation": float((centred[0] * centred[1]).sum().abs() / power.sqrt()) if power > 0 else math.nan,
        "heading_rmse": float(error.square().mean().sqrt()),
    }
    position = relative[..., :2]
    length = position.diff(dim=1).norm(dim=-1).sum(-1)
    if bool((length > 0).all()):
        missed = best_similarity(states[..., :2], position)(states[..., :2])[:, -1] - position[:, -1]
        measures["position_error_last"] = float((missed.norm(dim=-1) / length).mean())
    return measures


def drift(error: Tensor) -> float:
    """Mean error of the last 50 steps over that of the 50 before them; NaN for fewer than 100 steps.

    :param error: ``(batch, steps)``.
    """
    if error.shape[1] < 2 * _WINDOW:
        return math.nan
    return float(error[:, -_WINDOW:].mean() / error[:, -2 * _WINDOW : -_WINDOW].mean())


def located(states: Tensor, poses: Tensor, *, state_heading: bool, pose_heading: bool) -> tuple[Tensor, Tensor]:
    """The coordinates of states and poses that tell where the agent was: all of them without a heading.

    With one, positions as seen from the start; of agents that only turn, the heading.

    :param states: ``(*draws, batch, T, state_dim)``.
    :param poses: ``(batch, T, pose_dim)``.
    :param state_heading: whether the last number of a state is a heading; likewise ``pose_heading`` of a pose.
    """
    places = states[..., :-1] if state_heading else states
    if not pose_heading:
        return places, poses
    seen = relative_poses(poses)
    if state_heading and not leaves(poses[..., :2]):
        return states[..., 2:], seen[..., 2:]
    return places, seen[..., :2]
