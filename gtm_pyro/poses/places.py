"""What counts as the same place: given, as the source of the data says, or read off the poses, in whatever unit."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.poses.planar import TURN, wrapped

VIEW_TOLERANCE = (0.25, 0.0767)
"""How near a pose counts as the same view where agents turn, in cells and in radians: half of a 41st of a turn."""
_VIEW_MOVES = 1.5  # the first of them in moves, as such agents walk
_ROUNDING = 1e-6  # of the largest coordinate; less is no move
_COMMON = 1e-3  # of the usual step, up to which steps are multiples of another one
_GRID = 0.1  # of the usual step: a smaller common one is chance


class Cells(NamedTuple):
    """Squares, cubes and so on of positions.

    :param size: of a side, in pose units.
    :param centred: whether a cell is about the first pose of an episode; otherwise about the origin.
    """

    size: float
    centred: bool = False

    def number(self, poses: Tensor, start: Tensor | None = None) -> Tensor:
        """The cell of each pose ``(batch, T, pose_dim)``: whole numbers, of the same shape.

        :param start: the pose that cells are about where they are about one, ``(batch, pose_dim)``; by default the
            first.
        """
        if self.centred:
            poses = poses - (poses[:, 0] if start is None else start).unsqueeze(1)
        return torch.floor(poses / self.size + 0.5).long()


class Nearness(NamedTuple):
    """What counts as the same place.

    :param cells: for poses without a heading.
    :param view: how near positions and headings must be, in pose units and in radians, for poses with one.
    """

    cells: Cells
    view: tuple[float, float]


def nearness(
    poses: Tensor, cell_size: float | None = None, view_tolerance: tuple[float, float] | None = None
) -> Nearness:
    """What is given, and for None what is usual in these poses ``(batch, T, pose_dim)``.

    :param cell_size: in pose units; None: the largest step of which all steps along all axes are multiples, which is a
        cell where agents walk on a grid, and elsewhere the median length of a move.
    :param view_tolerance: in pose units and radians; None: 1.5 median moves, and half of a 41st of a turn.
    :raises ConfigError: a number that is not positive.
    """
    given = {"cell_size": cell_size}
    given |= dict(zip(("view_tolerance[0]", "view_tolerance[1]"), view_tolerance or (None, None), strict=True))
    for name, value in given.items():
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name}: expected a number over 0, got {value}")
    cells = Cells(usual_cell(poses), centred=True) if cell_size is None else Cells(cell_size)
    if view_tolerance is None:
        view_tolerance = (_VIEW_MOVES * usual_move(poses[..., :2]), VIEW_TOLERANCE[1])
    return Nearness(cells, view_tolerance)


def usual_move(positions: Tensor) -> float:
    """The median length of a step that moves; where none does, the largest coordinate, or 1.

    A step moves if it is over a tenth as long as most, nine in ten, of those that are not zero.

    :param positions: ``(batch, T, dim)``.
    """
    length = positions.double().diff(dim=1).norm(dim=-1).flatten()
    moved = length[length > _ROUNDING * positions.abs().max()]
    if not len(moved):
        return float(positions.abs().max()) or 1.0
    long = moved.kthvalue(math.ceil(0.9 * len(moved))).values
    return float(moved[moved > 0.1 * long].median())


def usual_turn(headings: Tensor) -> float:
    """The median turn of steps that turn, in radians, the short way round; where none does, a whole turn.

    :param headings: ``(batch, T)``.
    """
    turn = wrapped(headings.double().diff(dim=1)).abs().flatten()
    turn = turn[turn > _ROUNDING * TURN]
    if not len(turn):
        return TURN
    most = turn.kthvalue(math.ceil(0.9 * len(turn))).values
    return float(turn[turn > 0.1 * most].median())


def usual_cell(positions: Tensor) -> float:
    """The cell of a grid on which all agents walk; the usual move where there is none.

    :param positions: ``(batch, T, dim)``.
    """
    usual = usual_move(positions)
    steps = positions.double().diff(dim=1).abs().flatten() / usual
    sizes = steps[steps > max(_COMMON, _ROUNDING * float(positions.abs().max()) / usual)]
    common = 0.0
    for step in sizes.div(_COMMON).round().unique().mul(_COMMON).tolist():  # by Euclid's algorithm
        while step > 2 * _COMMON:
            common, step = step, abs(common - step * round(common / step))
        if common < _GRID:
            return usual
    # a multiple is known better than the step itself
    times = (sizes / common).round() if len(sizes) else sizes
    return usual * float(sizes.sum() / times.sum()) if len(sizes) else usual


def leaves(positions: Tensor) -> bool:
    """Whether any agent leaves the place where it starts: positions ``(batch, T, dim)``."""
    away = (positions - positions[:, :1]).norm(dim=-1)
    return bool((away > 1e-4 * positions.abs().max()).any())
