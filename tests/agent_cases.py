"""Agents seen from within, whose true turns and moves are known: on grids of coloured cells and in painted rooms."""

import math

import torch
from torch import Tensor

LEFT, RIGHT, AHEAD = range(3)
_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def actions_of(batch: int, time: int, generator: torch.Generator, most: int) -> Tensor:
    """Random turns and moves, each repeated up to ``most`` times: numbers ``(batch, time)``."""
    rows = []
    for _ in range(batch):
        row: list[int] = []
        while len(row) < time:
            action = int(torch.tensor([0.25, 0.25, 0.5]).multinomial(1, generator=generator))
            row += [action] * int(torch.randint(1, most + 1, (1,), generator=generator))
        rows.append(row[:time])
    return torch.tensor(rows)


def grid_walks(batch: int, time: int, seed: int = 0, side: int = 7, colours: int = 4) -> tuple[Tensor, Tensor]:
    """Turns of a quarter and moves of a cell, in a new grid with walls every episode: frames and one-hot actions.

    What is seen are the three rows of three cells ahead, the nearest first; few colours make places look alike.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = actions_of(batch, time, generator, most=3)
    frames = torch.zeros(batch, time, 3, 3, 3)
    palette = torch.rand(colours, 3, generator=generator)
    for b in range(batch):
        colour = palette[torch.randint(colours, (side, side), generator=generator)]
        x, y, way = *torch.randint(side, (2,), generator=generator).tolist(), 0
        for t in range(time):
            action = int(chosen[b, t])
            ahead = _DIRECTIONS[way]
            if t and action == AHEAD and 0 <= x + ahead[0] < side and 0 <= y + ahead[1] < side:
                x, y = x + ahead[0], y + ahead[1]
            elif t and action != AHEAD:
                way = (way + (1 if action == LEFT else -1)) % 4
            (ax, ay), (lx, ly) = _DIRECTIONS[way], _DIRECTIONS[(way + 1) % 4]
            for row in range(3):
                for column in range(3):
                    i, j = x + row * ax + (column - 1) * lx, y + row * ay + (column - 1) * ly
                    if 0 <= i < side and 0 <= j < side:
                        frames[b, t, :, row, column] = colour[i, j]
    return frames, torch.eye(3)[chosen]


def room_walks(batch: int, time: int, seed: int = 0, half: float = 2.0, most: int = 8) -> tuple[Tensor, Tensor]:
    """Turns of 15 degrees and moves of 0.15 in square rooms with painted walls: frames and one-hot actions.

    What is seen are 12 rays over 90 degrees: the paint where they meet a wall, another in every room, and how near that
    is. A move that would lead through a wall is not made at all.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = actions_of(batch, time, generator, most)
    turns = torch.tensor([1.0, -1.0, 0.0])[chosen] * math.pi / 12
    heading = torch.cat([torch.zeros(batch, 1), turns[:, 1:]], 1).cumsum(1)
    place = (2 * torch.rand(batch, 2, generator=generator) - 1) * half * 0.9
    places = [place]
    for t in range(1, time):
        ahead = torch.stack([heading[:, t].cos(), heading[:, t].sin()], -1)
        there = place + 0.15 * ahead * (chosen[:, t] == AHEAD).unsqueeze(-1)
        place = torch.where((there.abs() < half * 0.95).all(-1, keepdim=True), there, place)
        places.append(place)
    return painted(torch.stack(places, 1), heading, half, generator, rays=12), torch.eye(3)[chosen]


def painted(places: Tensor, heading: Tensor, half: float, generator: torch.Generator, rays: int) -> Tensor:
    """Frames of square rooms with painted walls, ``(batch, time, 3, 1, rays)``, rays from the right to the left.

    :param places: ``(batch, time, 2)``.
    :param heading: ``(batch, time)``.
    :param half: half a room's side.
    """
    at = places.unsqueeze(2)
    angle = heading.unsqueeze(-1) + torch.linspace(-math.pi / 4, math.pi / 4, rays)
    ray = torch.stack([angle.cos(), angle.sin()], -1)
    distance = ((half * ray.sign() - at) / torch.where(ray.abs() < 1e-6, 1e-6, ray)).amin(-1, keepdim=True)
    hit = at + distance * ray
    waves = torch.randn(len(at), 1, 1, 2, 9, generator=generator) / half * 1.5
    phase = 2 * math.pi * torch.rand(len(at), 1, 1, 9, generator=generator)
    paint = ((hit.unsqueeze(-2) @ waves).squeeze(-2) + phase).cos().unflatten(-1, (3, 3)).mean(-1)
    near = 1 / (1 + 0.3 * distance)
    return (0.5 + 0.5 * paint * near).movedim(-1, 2).unsqueeze(-2)
