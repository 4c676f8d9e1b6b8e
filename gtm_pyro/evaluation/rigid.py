"""Agents with a heading, on a map that each episode begins anew: how well they are placed after a rigid fit."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.poses.places import usual_cell, usual_move, usual_turn
from gtm_pyro.poses.planar import turned, wrapped


class Placed(NamedTuple):
    """Inferred poses in the true world.

    :ivar positions: ``(batch, T, 2)``, in pose units.
    :ivar headings: ``(batch, T)``, in radians.
    """

    positions: Tensor
    headings: Tensor


def placed(states: Tensor, poses: Tensor, num_observed: int) -> Placed:
    """Inferred poses after one rotation and one shift an episode, fitted to its memorised steps.

    What all episodes share is no part of the map: whether it is mirrored, its unit, for which moves of the usual length
    (:func:`~gtm_pyro.poses.places.usual_move`) are as long as true ones, and the direction in which headings are 0. The
    rotation and the shift suit most steps, their positions and headings, of which a cell and a usual turn count the
    same: steps that are far off do not move the others.

    :param states: ``(batch, T, 3)``, positions and headings; ``poses`` likewise, where some agent moves.
    :param num_observed: tau.
    """
    states, poses = states.detach().double(), poses.double()
    unit = usual_move(poses[..., :2]) / usual_move(states[..., :2])
    fits = [_fitted(states * _UPRIGHT.to(states), poses, num_observed, unit)]
    fits += [_fitted(states * _MIRRORED.to(states), poses, num_observed, unit)]
    return min(fits, key=lambda fit: fit[1])[0]


# rounds of each half of the fit; cells within which distances count the same, and from which on they count less
_ROUNDS, _NEAR, _FAR = 15, 0.05, 0.5
_UPRIGHT, _MIRRORED = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, -1.0])


def _fitted(states: Tensor, poses: Tensor, tau: int, unit: float) -> tuple[Placed, float]:
    """Positions and headings for a map that is not mirrored any more, and their error while memorising.

    By least squares, weighed anew in each round by the distances that the round before has left: the least sum of
    distances (Weiszfeld 1937) is where the search for the least sum of log(1 + (distance / half a cell)²) begins.
    """
    cell, turns = usual_cell(poses[..., :2]), usual_turn(poses[..., 2])
    ahead = cell / turns  # where a usual turn moves a point by a cell
    here, there = unit * states[..., :2], poses[..., :2]
    turn = torch.polar(torch.ones_like(poses[..., 2]), poses[..., 2] - states[..., 2])[:, :tau]
    weight = torch.ones_like(here[:, :tau, 0])
    for number in range(2 * _ROUNDS):
        weight = weight / weight.sum(1, keepdim=True)
        mean, true_mean = (torch.einsum("bt,btd->bd", weight, x[:, :tau]).unsqueeze(1) for x in (here, there))
        seen, true = (
            torch.view_as_complex((x[:, :tau] - m).contiguous()) for x, m in ((here, mean), (there, true_mean))
        )
        # the angle of such a sum is the best rotation
        by_place, by_view = (weight * true * seen.conj()).sum(1), (weight * turn).sum(1)
        # the camera's own direction, the same in all episodes
        camera = (by_place * by_view.conj() / by_view.abs().clamp_min(1e-12)).sum().angle()
        rotation = (by_place + ahead**2 * by_view * torch.polar(torch.ones_like(camera), camera)).angle().unsqueeze(-1)
        fit = Placed(turned(here - mean, rotation) + true_mean, states[..., 2] + rotation - camera)
        off = (fit.positions - there)[:, :tau].square().sum(-1) / cell**2
        aside = (2 - 2 * (fit.headings - poses[..., 2])[:, :tau].cos()) / turns**2
        square = off + aside
        # distances, as far as they lead; then steps that are far off do not count any more
        weight = 1 / square.sqrt().clamp_min(_NEAR) if number < _ROUNDS else 1 / (_FAR**2 + square)
    return fit, float((square / _FAR**2).log1p().sum())


def rigid_measures(states: Tensor, poses: Tensor, num_observed: int, cell_size: float | None) -> dict[str, float]:
    """Shares of steps at the right cell and of those with the right heading, and how far off the path ends.

    :param states: as of :func:`placed`.
    :param cell_size: in pose units; None: :func:`~gtm_pyro.poses.places.usual_cell`.
    """
    tau, fit = num_observed, placed(states, poses, num_observed)
    size = usual_cell(poses[..., :2]) if cell_size is None else cell_size
    far = (fit.positions - poses[..., :2].double()).norm(dim=-1)
    at_cell = (far < 0.5 * size).double()
    aside = wrapped(fit.headings - poses[..., 2]).abs()
    ahead = (aside < 0.5 * usual_turn(poses[..., 2])).double()
    # of episodes that stay where they are nobody can tell a share of the path
    length = poses[:, tau - 1 :, :2].double().diff(dim=1).norm(dim=-1).sum(-1)
    share = (far[:, -1] / length)[length > 0]
    return {
        "cell_size": size,
        "cell_accuracy": float(at_cell[:, tau:].mean()),
        "cell_accuracy_memorised": float(at_cell[:, :tau].mean()),
        "heading_accuracy": float(ahead[:, tau:].mean()),
        "heading_accuracy_memorised": float(ahead[:, :tau].mean()),
        "position_error_predicted": float(far[:, -1].sum() / length.sum()) if length.any() else math.nan,
        "position_error_predicted_median": float(share.median()) if len(share) else math.nan,
    }
