"""Walks of an agent that turns and moves in small rooms with walls."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gtm_pyro.transitions import RememberedWalls

TURN = math.pi / 2
SIDE = 5
# a picture of what is at x, y, seen with a heading of so many quarters of a turn; and whether the place ahead is a wall
Picture = Callable[[int, int, int, bool], Tensor]


def transition(unit: float = 1.0, side: int = 3) -> RememberedWalls:
    """Left, right and ahead, exact, along no axis."""
    made = RememberedWalls(3, (1, 8, 8), side=side)
    with torch.no_grad():
        made.displacement.copy_(torch.tensor([[0, 0, 0.3 * unit], [0, 0, 0.4 * unit], [-TURN, TURN, 0]]))
    return made


def maze_walks(
    num: int, time: int, picture: Callable[[torch.Generator], Picture], seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Walks in rooms of 5 x 5 cells, a tenth of them walls: frames, actions, and which of these were blocked."""
    generator = torch.Generator().manual_seed(seed)
    frames, actions, blocked = [], [], []

    def draw(most: int) -> int:
        return int(torch.randint(most, (1,), generator=generator))

    for _ in range(num):
        wall = torch.ones(SIDE + 2, SIDE + 2, dtype=torch.bool)
        wall[1:-1, 1:-1] = torch.rand(SIDE, SIDE, generator=generator) < 0.1
        wall[3, 3] = False
        show = picture(generator)
        x, y, heading, bumped = 3, 3, 0, False
        seen: list[Tensor] = []
        taken, stopped = [], []
        for t in range(time):
            action = 0 if t == 0 else min(draw(2 if bumped else 4), 2)
            bumped = False
            if t and action < 2:
                heading = (heading + (-1, 1)[action]) % 4
            dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[heading]
            if action == 2:
                bumped = bool(wall[x + dx, y + dy])
                x, y = (x, y) if bumped else (x + dx, y + dy)
            seen.append(show(x, y, heading, bool(wall[x + dx, y + dy])))
            taken.append(action)
            stopped.append(bumped)
        frames.append(torch.stack(seen))
        actions.append(torch.eye(3)[taken])
        blocked.append(torch.tensor(stopped))
    return torch.stack(frames), torch.stack(actions), torch.stack(blocked)
