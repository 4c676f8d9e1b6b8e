"""Poses in a plane, SE(2): rotations, headings modulo a turn, and poses relative to each other."""

import math

import torch
from torch import Tensor

TURN = 2 * math.pi


def turned(vectors: Tensor, angle: Tensor) -> Tensor:
    """R(angle) vectors, counter-clockwise from the first axis to the second.

    :param vectors: ``(..., 2)``; or displacements ``(..., 3)``, whose third number, a turn, stays as it is.
    :param angle: in radians, ``(...)``.
    """
    cos, sin = angle.cos(), angle.sin()
    x, y, *rest = vectors.unbind(-1)
    first = cos * x - sin * y
    return torch.stack([first, sin * x + cos * y, *(number.expand_as(first) for number in rest)], -1)


def turned_back(vectors: Tensor, angle: Tensor) -> Tensor:
    """R(-angle) vectors, from the world's into the agent's frame: shapes of :func:`turned`."""
    return turned(vectors, -angle)


def wrapped(angle: Tensor) -> Tensor:
    """The same direction, in (-pi, pi]."""
    return angle - TURN * ((angle - math.pi) / TURN).ceil()


def unwrapped(heading: Tensor) -> Tensor:
    """Headings along the last axis, counted on without jumps: no step turns by more than half a turn."""
    turns = ((heading.diff(dim=-1) - math.pi) / TURN).ceil().cumsum(-1)
    return torch.cat([heading[..., :1], heading[..., 1:] - TURN * turns], -1)


def displacements(poses: Tensor) -> Tensor:
    """From each pose to the next, in the frame of the earlier one: ``(..., T, 3)`` to ``(..., T - 1, 3)``.

    R(-h_{t-1}) (p_t - p_{t-1}) and h_t - h_{t-1}, the short way round, whether or not headings are wrapped.
    """
    moves = poses.diff(dim=-2)
    return torch.cat([turned_back(moves[..., :2], poses[..., :-1, 2]), wrapped(moves[..., 2:])], -1)


def relative_poses(poses: Tensor) -> Tensor:
    """Poses as seen from the first one of their episode, where models start: ``(batch, T, 3)``.

    Headings count on from there without jumps, whether or not those of the poses are wrapped.
    """
    move, heading = poses[..., :2] - poses[:, :1, :2], unwrapped(poses[..., 2])
    return torch.cat([turned_back(move, heading[:, :1]), (heading - heading[:, :1]).unsqueeze(-1)], -1)
