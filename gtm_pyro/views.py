"""Measures for agents with a heading: which views were memorised, and how well poses are known."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.alignment import best_similarity

VIEW_TOLERANCE = (0.25, 0.0767)
"""How near a pose counts as the same view, in pose units and in radians: half of a 41st of a turn."""
_WINDOW = 50


class Views(NamedTuple):
    """True poses of predicted steps against those of memorised ones.

    :param visited: whether the view was memorised, ``(batch, predicted)``.
    :param retrieved: whether the entry shown was written at that view, same shape.
    :param nearest: the memorised step whose true pose is nearest, same shape.
    """

    visited: Tensor
    retrieved: Tensor
    nearest: Tensor


def compare_views(poses: Tensor, num_observed: int, entries: Tensor, tolerance: tuple[float, float]) -> Views:
    """Compare views by position and heading, as of the tolerances; headings are periodic.

    :param poses: ``(batch, T, 3)``: x, y, radians.
    :param entries: numbers of memory entries, ``(batch, predicted)``; -1 for none.
    """
    seen, new = poses[:, None, :num_observed], poses[:, num_observed:, None]
    far = (new[..., :2] - seen[..., :2]).norm(dim=-1) / tolerance[0]
    turn = new[..., 2] - seen[..., 2]
    aside = torch.atan2(turn.sin(), turn.cos()).abs() / tolerance[1]
    same = torch.maximum(far, aside) <= 1
    retrieved = same.gather(-1, entries.clamp_min(0).unsqueeze(-1)).squeeze(-1) & (entries >= 0)
    return Views(same.any(-1), retrieved, (far.square() + aside.square()).argmin(-1))


def relative_poses(poses: Tensor) -> Tensor:
    """Poses as seen from the first one of their episode, where models start: ``(batch, T, 3)``."""
    move, start = poses[..., :2] - poses[:, :1, :2], poses[:, :1, 2]
    cos, sin = start.cos(), start.sin()
    x, y = move.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x, poses[..., 2] - start], -1)


def pose_measures(states: Tensor, relative: Tensor) -> dict[str, float]:
    """How well headings, and positions at the last step, are known.

    :param states: ``(batch, T, 3)``, positions and headings.
    :param relative: of :func:`relative_poses`.
    """
    heading, true = states[..., 2].double(), relative[..., 2].double()
    # a mirrored map is as good
    sign = 1.0 if float((heading * true).sum()) >= 0 else -1.0
    error = sign * heading - true
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
