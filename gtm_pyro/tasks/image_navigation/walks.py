"""Walks in a square of cells, nearly all of them with every step of every walk at once: no loop over time.

Positions are (x, y) in cells, whole ones on a grid, x to the right and y down, between 0 and size - 1.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

ACTION_NAMES = ("up", "down", "left", "right", "stay")
STAY = ACTION_NAMES.index("stay")
_DISPLACEMENTS = ((0, -1), (0, 1), (-1, 0), (1, 0), (0, 0))


def displacements(device: torch.device | str = "cpu") -> Tensor:
    """The move (dx, dy) in cells of each action, shape (5, 2), int64."""
    return torch.tensor(_DISPLACEMENTS, device=device)


def draw_actions(batch: int, steps: int, mean_repeats: float, generator: torch.Generator) -> Tensor:
    """Uniform actions, each kept for 1 + Poisson(mean_repeats) steps (Fraccaro et al. 2018, section 4.1).

    :returns: action indices, shape (batch, steps), int64, on the CPU.
    """
    # As many runs as steps are enough whatever their lengths.
    choices = torch.randint(len(ACTION_NAMES), (batch, steps), generator=generator)
    return choices.gather(1, draw_runs(batch, steps, mean_repeats, generator))


def draw_runs(batch: int, steps: int, mean_repeats: float, generator: torch.Generator) -> Tensor:
    """The number of the run, from 0, that each step belongs to; a run has 1 + Poisson(mean_repeats) steps.

    :returns: shape (batch, steps), int64, on the CPU.
    """
    lengths = 1 + torch.poisson(torch.full((batch, steps), mean_repeats), generator=generator).long()
    return torch.searchsorted(lengths.cumsum(1), torch.arange(steps).expand(batch, steps).contiguous(), right=True)


def walled_positions(start: Tensor, moves: Tensor, size: int) -> Tensor:
    """Positions where a move into a wall has no effect: x_t = clamp(x_{t-1} + d_t, 0, size - 1).

    The maps x -> clamp(x + d, low, high) are closed under composition, which is associative, so log2(steps)
    rounds of composing each map with the one ``reach`` steps before it replace the loop. The result is exact for whole
    numbers; real ones should be float64.

    :param start: shape (batch, 2), of the dtype of the moves.
    :param moves: shape (batch, steps, 2), int64 or float64.
    :returns: shape (batch, steps, 2), int64.
    """
    steps = moves.shape[1]
    total = moves.cumsum(1)
    low, high = torch.zeros_like(moves), torch.full_like(moves, size - 1)
    reach = 1
    while reach < steps:
        # The shift of the later map, whose window is the last `reach` moves.
        shift = total[:, reach:] - total[:, :-reach]
        earlier_low, earlier_high = low[:, :-reach] + shift, high[:, :-reach] + shift
        later_low, later_high = low[:, reach:], high[:, reach:]
        low = torch.cat([low[:, :reach], torch.clamp(earlier_low, later_low, later_high)], 1)
        high = torch.cat([high[:, :reach], torch.clamp(earlier_high, later_low, later_high)], 1)
        reach *= 2
    return torch.clamp(start.unsqueeze(1) + total, low, high)


def folded_positions(start: Tensor, moves: Tensor, size: int) -> Tensor:
    """Positions of a walk that turns back at the edge: the free walk folded by a triangle wave.

    Shapes as in ``walled_positions``. A move of one cell stays a move of one cell, perhaps the other way round.
    """
    free = start.unsqueeze(1) + moves.cumsum(1)
    last = size - 1
    return last - (free.remainder(2 * last) - last).abs()


def actions_between(start: Tensor, positions: Tensor) -> Tensor:
    """The actions that lead from ``start`` (batch, 2) through ``positions`` (batch, steps, 2).

    Every step must be one of the five displacements.

    :returns: action indices, shape (batch, steps), int64.
    """
    moves = positions - pad(positions, (0, 0, 1, 0))[:, :-1]
    moves[:, 0] = positions[:, 0] - start
    dx, dy = moves.unbind(-1)
    # up 0, down 1, left 2, right 3, stay 4
    return torch.where(dy != 0, (dy + 1) // 2, torch.where(dx != 0, 2 + (dx + 1) // 2, STAY))


def slipping_walk(start: Tensor, actions: Tensor, offsets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A walk that turns back at the edge, as in ``folded_positions``, and slips.

    What is intended is the action drawn, turned back where it would leave the square. What is done is the action
    ``offset`` places after it in ``ACTION_NAMES``, or nothing where that would leave the square. Where the walk turns
    depends on where it slipped before, so this is a loop over time.

    :param start: shape (batch, 2), int64.
    :param actions: action indices that are drawn, shape (batch, steps), int64.
    :param offsets: 0 (no slip) to 4, shape (batch, steps), int64.
    :returns: the intended actions and the positions, shapes (batch, steps) and (batch, steps, 2), int64.
    """
    moves, position = displacements(start.device), start
    # whether up means down and left means right by now; the third column is for staying, which never turns
    turned = torch.zeros(len(start), 3, dtype=torch.int64, device=start.device)
    intended, positions = [], []
    for drawn, offset in zip(actions.unbind(1), offsets.unbind(1), strict=True):
        axis = (drawn // 2).unsqueeze(1)
        action = drawn ^ turned.gather(1, axis).squeeze(1)
        ahead = position + moves[action]
        leaves = (ahead != ahead.clamp(0, size - 1)).any(-1, keepdim=True).long()
        turned = turned ^ torch.zeros_like(turned).scatter_(1, axis, leaves)
        action = action ^ leaves.squeeze(1)
        position = (position + moves[(action + offset) % len(ACTION_NAMES)]).clamp(0, size - 1)
        intended.append(action)
        positions.append(position)
    return torch.stack(intended, 1), torch.stack(positions, 1)


def crops(worlds: Tensor, positions: Tensor, crop_size: int, stride: int) -> Tensor:
    """What is seen at each position: ``crop_size`` pixels square, the corner at ``stride`` times (x, y).

    :param worlds: shape (batch, channels, height, width).
    :param positions: shape (batch, steps, 2), int64.
    :returns: shape (batch, steps, channels, crop_size, crop_size).
    """
    views = worlds.unfold(2, crop_size, stride).unfold(3, crop_size, stride)
    batch, channels, rows, columns = views.shape[:4]
    # One row of memory for each view makes the gather a plain copy of rows.
    table = views.permute(0, 2, 3, 1, 4, 5).reshape(batch * rows * columns, -1)
    cell = positions[..., 1] * columns + positions[..., 0]
    row = cell + rows * columns * torch.arange(batch, device=cell.device).unsqueeze(1)
    seen = table.index_select(0, row.flatten())
    return seen.reshape(batch, positions.shape[1], channels, crop_size, crop_size)
