"""Agents with a heading: where they are, and where they are believed to be, in the true world."""

from typing import NamedTuple

import numpy as np
import torch

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.views import heading_sign
from gtm_pyro.poses.places import leaves
from gtm_pyro.poses.planar import turned, unwrapped, wrapped


class MapPoses(NamedTuple):
    """True and inferred poses in the true world, in cells and radians.

    :param true: ``(batch, T, 3)``, headings counted on without jumps.
    :param positions: inferred, ``(batch, T, 2)``, after the best similarity fit over all episodes, or the affine one
        where states have another dimension. Those of agents that stay in place are the true ones.
    :param headings: inferred, ``(batch, T)``: what the model says, not fitted but for the sign, for a mirrored map is
        as good. None where states have no heading.
    :param moving: whether any agent leaves its place.
    :param mirrored: whether the inferred map is one.
    """

    true: np.ndarray
    positions: np.ndarray
    headings: np.ndarray | None
    moving: bool
    mirrored: bool

    @property
    def heading_errors(self) -> np.ndarray | None:
        """Inferred minus true, the short way round, in degrees, ``(batch, T)``; None without inferred ones."""
        if self.headings is None:
            return None
        return np.degrees(wrapped(torch.from_numpy(self.headings - self.true[..., 2])).numpy())


def map_poses(evaluation: Evaluation) -> MapPoses | None:
    """Where the agents are and where they are believed to be; None without poses of a position and a heading, or
    without states."""
    true, relative, states = evaluation.episodes.poses, evaluation.poses, evaluation.states
    if true is None or relative is None or states is None or not evaluation.episodes.has_heading:
        return None
    true = torch.cat([true[..., :2], unwrapped(true[..., 2]).unsqueeze(-1)], -1)
    moving = leaves(true[..., :2])
    positions, headings, sign = true[..., :2], None, 1.0
    if moving:
        fit = evaluation.similarity
        local = evaluation.aligned_states if fit is None else fit(states[..., :2])
        assert local is not None  # wherever there are poses
        positions = turned(local.to(true), true[:, :1, 2]) + true[:, :1, :2]
    if evaluation.heading:
        sign = heading_sign(states, relative)
        headings = (sign * unwrapped(states[..., 2]) + true[:, :1, 2]).numpy()
    return MapPoses(true.numpy(), positions.numpy(), headings, moving, sign < 0)
