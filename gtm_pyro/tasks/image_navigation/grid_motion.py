"""Motion in whole cells: up, down, left, right, stay."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gtm_pyro.errors import EpisodesError
from gtm_pyro.tasks.base import Source
from gtm_pyro.tasks.image_navigation import walks
from gtm_pyro.tasks.image_navigation.disturbances import draw_slips


class GridMotion:
    """Actions are drawn uniformly and kept for a while; they are indices here and one-hot in episodes.

    :param size: cells on a side.
    :param walls: whether a move outwards has no effect; otherwise the walk turns back at the edge.
    :param mean_repeats: mean of the Poisson number of times that an action is repeated.
    :param slip: probability that an action is replaced by another one.
    """

    action_names = walks.ACTION_NAMES
    still = walks.STAY

    def __init__(self, size: int, walls: bool, mean_repeats: float, slip: float) -> None:
        self.size, self.walls, self.mean_repeats, self.slip = size, walls, mean_repeats, slip

    def draw(self, batch: int, steps: int, generator: torch.Generator) -> Tensor:
        """Action indices, shape (batch, steps), int64."""
        return walks.draw_actions(batch, steps, self.mean_repeats, generator)

    def draw_offsets(self, actions: Tensor, source: Source) -> Tensor | None:
        """What is done instead of what is intended, as places after it in ``action_names``; None if nothing ever is."""
        if not self.slip:
            return None
        batch, steps = actions.shape
        return draw_slips(batch, steps, self.slip, len(self.action_names), source("slips"))

    def follow(self, start: Tensor, actions: Tensor, offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The actions intended, which turn back at the edge without walls, and the positions reached.

        :param start: whole cells, shape (batch, 2), int64.
        :param actions: shape (batch, steps), int64.
        :param offsets: of ``draw_offsets``, shape (batch, steps).
        """
        if not self.walls and offsets is not None:
            return walks.slipping_walk(start, actions, offsets, self.size)
        done = actions if offsets is None else (actions + offsets) % len(self.action_names)
        moves = walks.displacements(actions.device)[done]
        if self.walls:
            return actions, walks.walled_positions(start, moves, self.size)
        positions = walks.folded_positions(start, moves, self.size)
        return walks.actions_between(start, positions), positions

    def encode(self, actions: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot, shape (batch, steps, 5)."""
        return one_hot(actions, len(self.action_names)).to(dtype)

    def crops(self, worlds: Tensor, positions: Tensor, crop_size: int, stride: int) -> Tensor:
        return walks.crops(worlds, positions, crop_size, stride)

    def check_start(self, start: Tensor) -> Tensor:
        """Poses (batch, 2) as positions.

        :raises EpisodesError: one is no whole cell.
        """
        cells = start.long()
        good = (cells == start) & (cells >= 0) & (cells < self.size)
        if not bool(good.all()):
            index = (~good).nonzero()[0].tolist()
            value, last = start[tuple(index)].item(), self.size - 1
            raise EpisodesError(f"start{index}: expected a whole cell from 0 to {last}, got {value:g}")
        return cells

    def check_actions(self, actions: Tensor) -> Tensor:
        """Indices or one-hot actions as indices.

        :raises EpisodesError: they are neither.
        """
        number = len(self.action_names)
        whole = not (actions.is_floating_point() or actions.is_complex() or actions.dtype == torch.bool)
        if actions.ndim == 2 and whole and actions.numel():
            bad = (actions < 0) | (actions >= number)
            if bool(bad.any()):
                index = bad.nonzero()[0].tolist()
                last, value = number - 1, actions[tuple(index)].item()
                raise EpisodesError(f"actions{index}: expected an index from 0 to {last}, got {value}")
            return actions.long()
        if actions.ndim != 3 or actions.shape[-1] != number or not actions.numel():
            raise EpisodesError(
                f"actions: expected indices (batch, steps) or one-hot (batch, steps, {number}), "
                f"got {actions.dtype} of shape {tuple(actions.shape)}"
            )
        indices = actions.argmax(-1)
        bad = (one_hot(indices, number) != actions).any(-1)
        if bool(bad.any()):
            index = bad.nonzero()[0].tolist()
            row = actions[tuple(index)].tolist()
            raise EpisodesError(f"actions{index}: expected one-hot, a single 1 among zeros, got {row}")
        return indices
