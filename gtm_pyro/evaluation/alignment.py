"""Fitting inferred states to true poses: a latent map may come out rotated, mirrored, stretched and shifted."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """The map s -> matrix s + offset.

    :param matrix: ``(pose_dim, state_dim)``, pose units for a unit of the state space.
    :param offset: ``(pose_dim,)``, in pose units.
    """

    matrix: Tensor
    offset: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """States ``(..., state_dim)`` in pose units, ``(..., pose_dim)``, in the dtype of the states."""
        return (states.to(self.matrix) @ self.matrix.mT + self.offset).to(states)

    def inverse(self, poses: Tensor) -> Tensor:
        """The shortest states ``(..., state_dim)`` that the map takes nearest to ``poses`` ``(..., pose_dim)``."""
        centred = poses.to(self.matrix) - self.offset
        return (centred @ torch.linalg.pinv(self.matrix).mT).to(poses)


def best_affine(states: Tensor, poses: Tensor) -> Alignment:
    """The affine map with the least squared error: any matrix, any offset.

    :param states: ``(..., state_dim)``.
    :param poses: ``(..., pose_dim)``, with the same leading dimensions.
    :returns: fitted in float64 on the CPU; the matrix of least norm where states do not span their space.
    :raises ValueError: leading dimensions that differ, or no points.
    """
    s, p, s_mean, p_mean = _centred(states, poses)
    matrix = torch.linalg.lstsq(s, p, driver="gelsd").solution.mT
    return Alignment(matrix, p_mean - matrix @ s_mean)


def robust_affine(states: Tensor, poses: Tensor, rounds: int = 10, bound: float = 5.0) -> Alignment:
    """The affine map of the points that agree on one: an agent that was lost for a while does not bend the map.

    In each round points whose error exceeds ``bound`` times the median error are left out, and the map is fitted anew.
    Arguments as of :func:`best_affine`.
    """
    s, p = states.reshape(-1, states.shape[-1]), poses.reshape(-1, poses.shape[-1])
    align, before = best_affine(states, poses), torch.ones(len(s), dtype=torch.bool)
    for _ in range(rounds):
        error = (align(s) - p).norm(dim=-1)
        kept = error <= bound * error.median()
        if torch.equal(kept.cpu(), before):
            break
        before = kept.cpu()
        align = best_affine(s[kept], p[kept])
    return align


def best_similarity(states: Tensor, poses: Tensor) -> Alignment:
    """The map with the least squared error among rotations and reflections, one scale and an offset.

    Umeyama 1991, eqs. (40) to (42), with S = I, so that a reflection is allowed. Shapes as in :func:`best_affine`.

    :raises ValueError: also if ``state_dim`` differs from ``pose_dim``.
    """
    if states.shape[-1] != poses.shape[-1]:
        raise ValueError(
            f"states: expected state_dim = pose_dim = {poses.shape[-1]} for a similarity, got {states.shape[-1]}"
        )
    s, p, s_mean, p_mean = _centred(states, poses)
    left, singular, right = torch.linalg.svd(p.mT @ s)
    spread = s.square().sum()
    # states that never move have no scale
    scale = singular.sum() / spread if spread > 0 else torch.zeros_like(spread)
    matrix = scale * (left @ right)
    return Alignment(matrix, p_mean - matrix @ s_mean)


def root_mean_square(error: Tensor) -> float:
    """The root of the mean squared length of errors ``(..., pose_dim)``, in their unit; NaN for none."""
    return float(error.double().square().sum(-1).mean().sqrt())


def _centred(states: Tensor, poses: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if states.shape[:-1] != poses.shape[:-1] or 0 in states.shape:
        raise ValueError(
            f"states, poses: expected the same leading dimensions and at least one point, "
            f"got {tuple(states.shape)} and {tuple(poses.shape)}"
        )
    s, p = (x.detach().cpu().double().reshape(-1, x.shape[-1]) for x in (states, poses))
    return s - s.mean(0), p - p.mean(0), s.mean(0), p.mean(0)
