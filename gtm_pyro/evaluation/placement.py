"""Predictions against true poses: which places were seen before, and how well positions are known."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.alignment import Alignment, best_affine, best_similarity, root_mean_square
from gtm_pyro.evaluation.measures import LAST_STEPS
from gtm_pyro.evaluation.rigid import rigid_measures
from gtm_pyro.evaluation.views import compare, pose_measures
from gtm_pyro.poses.places import leaves, nearness
from gtm_pyro.poses.planar import relative_poses


class Compared(NamedTuple):
    """True poses of predicted steps against those of memorised ones; None without poses.

    :ivar poses: as :class:`gtm_pyro.evaluation.evaluation.Evaluation` has them, and so are the next two.
    :ivar retrieved: None also where no memory entry is shown.
    :ivar nearest: the memorised step whose true pose is nearest, ``(batch, predicted)``; None without headings.
    :ivar sizes: what counted as one place, by the names of measures.
    """

    poses: Tensor | None
    visited: Tensor | None
    retrieved: Tensor | None
    nearest: Tensor | None
    sizes: dict[str, float]


def compared(
    episodes: Episodes, entries: Tensor | None, cell_size: float | None, view_tolerance: tuple[float, float] | None
) -> Compared:
    """
    :param entries: numbers of the memory entries shown, ``(batch, predicted)``; None where none are.
    :raises ConfigError: a size that is not over 0.
    """
    poses = episodes.poses
    if poses is None:
        return Compared(None, None, None, None, {})
    near = nearness(poses, cell_size, view_tolerance)
    shown = torch.full((len(episodes), episodes.num_predicted), -1) if entries is None else entries
    found = compare(poses, episodes.num_observed, shown, near, heading=episodes.has_heading)
    retrieved = None if entries is None else found.retrieved
    if not episodes.has_heading:
        return Compared(poses, found.visited, retrieved, found.nearest, {"cell_size": near.cells.size})
    sizes = dict(zip(("view_distance", "view_angle"), near.view, strict=True))
    return Compared(relative_poses(poses), found.visited, retrieved, found.nearest, sizes)


class Localised(NamedTuple):
    """How well positions are known, and the fits of states to positions that were used; None where there are none."""

    metrics: dict[str, float]
    by_horizon: dict[str, np.ndarray]
    affine: Alignment | None = None
    similarity: Alignment | None = None


def localised(
    path: Tensor | None,
    states: Tensor | None,
    poses: Tensor | None,
    episodes: Episodes,
    heading: bool,
    cell_size: float | None = None,
) -> Localised:
    """
    :param path: states of the memorised steps, ``(batch, tau, state_dim)``.
    :param states: of all steps, ``(batch, T, state_dim)``; None where none are imagined.
    :param poses: as of :class:`Compared`.
    :param heading: whether the last number of a state is a heading.
    :param cell_size: in pose units; None: as is usual in the poses.
    """
    if poses is None or path is None:
        return Localised({}, {})
    tau, places = episodes.num_observed, poses[..., :2] if episodes.has_heading else poses
    seen = path if states is None else states[:, :tau]
    seen = seen[..., :-1] if heading else seen
    tracked = best_affine(seen, places[:, :tau])(seen) - places[:, :tau]
    metrics = {
        "localisation_rmse_memorised_path": root_mean_square(tracked),
        "localisation_rmse_tracked_end": root_mean_square(tracked[:, -1]),
    }
    if states is None:
        return Localised(metrics, {})
    if episodes.has_heading and heading:
        metrics |= pose_measures(states, poses)
        assert episodes.poses is not None  # what poses are relative to
        if leaves(episodes.poses[..., :2]):
            metrics |= rigid_measures(states, episodes.poses, tau, cell_size)
    states = states[..., :-1] if heading else states
    affine = best_affine(states, places)
    error = affine(states) - places
    metrics["localisation_rmse"] = root_mean_square(error)
    metrics["localisation_rmse_last_32"] = root_mean_square(error[:, tau:][:, -LAST_STEPS:])
    by_horizon = {"localisation_rmse": error[:, tau:].double().square().sum(-1).mean(0).sqrt().numpy()}
    similarity = None
    if states.shape[-1] == places.shape[-1]:
        similarity = best_similarity(states, places)
        metrics["localisation_rmse_similarity"] = root_mean_square(similarity(states) - places)
    return Localised(metrics, by_horizon, affine, similarity)
