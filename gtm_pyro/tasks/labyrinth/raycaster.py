"""A renderer of labyrinths in torch: a few rays a column, all frames of all worlds together. Needs no package."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.tasks.labyrinth.world import EYE_HEIGHT, World

HALF_WIDTH = math.tan(math.radians(50))
"""Tangent of half the horizontal field of view, which is 100 degrees wide."""
HALF_HEIGHT = 0.625 * HALF_WIDTH
"""Of half the vertical field of view: of 160 x 120 pixels that are 1.2 times as tall as wide, as Doom's."""
_CHUNK = 128  # frames whose rays fit a processor's cache
_NEAR = 1e-6
_GRID = 32  # places a cell at which the rectangle around is known
_OFFSET = 1024  # cells, a whole number of textures, so that truncating rounds down


class RayCaster:
    """Renders the views of agents in some worlds.

    A ray has depth 1 along the heading, so along a wall 1 / depth is linear across the frame.

    :param worlds: one for each row of the poses.
    :param size: of a frame, in pixels.
    :param rays: rays a column, whose colours are averaged.
    :raises ConfigError: textures whose side is no power of two.
    """

    def __init__(self, worlds: Sequence[World], size: int = 32, rays: int = 3) -> None:
        check_positive(size=size, rays=rays)
        self.size, self.rays = size, rays
        self.walls = _padded([w.walls for w in worlds], 0.0)
        starts = np.cumsum([0, *(len(w.textures) for w in worlds)])
        self.wall_textures = _padded([w.wall_textures + s for w, s in zip(worlds, starts, strict=False)], 0)
        self.textures, self.bits = _texels([w.textures for w in worlds])
        # the texture of the ceiling and the floor at each place, by its number and the bits of a texture
        self.planes, self.plane_bits = _planes(worlds, starts)
        self.objects = _padded([w.objects.reshape(-1, 4) for w in worlds], 0.0)
        starts = np.cumsum([0, *(len(w.pictures) for w in worlds)])
        self.object_pictures = _padded([w.object_pictures + s for w, s in zip(worlds, starts, strict=False)], 0)
        pictures = [w.pictures for w in worlds if len(w.pictures)]
        self.pictures, self.picture_bits = _texels(pictures) if pictures else (torch.zeros(1, dtype=torch.int32), 0)
        rows, columns = torch.arange(size), torch.arange(size * rays)
        # slopes of the rays: to the right, and downwards, of pixel centres
        self.across = (2 * (columns + 0.5) / (size * rays) - 1) * HALF_WIDTH
        self.down = (2 * (rows + 0.5) / size - 1) * HALF_HEIGHT

    def render(self, poses: Tensor) -> Tensor:
        """What is seen.

        :param poses: x, y in cells and heading in radians, counter-clockwise from east: ``(batch, time, 3)``.
        :returns: ``(batch, time, 3, size, size)`` uint8.
        """
        batch, time = poses.shape[:2]
        world = torch.arange(batch).unsqueeze(-1).expand(batch, time).reshape(-1)
        # wrapped in their own precision: a heading grows with every turn
        heading = poses[..., 2:].remainder(math.tau)
        flat = torch.cat([poses[..., :2], heading], -1).reshape(-1, 3).to(torch.float32)
        frames = [self._views(flat[i : i + _CHUNK], world[i : i + _CHUNK]) for i in range(0, len(flat), _CHUNK)]
        return torch.cat(frames).reshape(batch, time, 3, self.size, self.size)

    def _views(self, poses: Tensor, world: Tensor) -> Tensor:
        """``(n, 3)`` poses, ``(n,)`` worlds to ``(n, 3, size, size)``."""
        cos, sin = poses[:, 2:].cos(), poses[:, 2:].sin()
        closeness, u, texture = self._walls(poses, cos, sin, world)
        colours = self._columns(poses, cos, sin, closeness, u, texture, world)
        if self.objects.shape[1]:
            self._draw_objects(colours, poses, cos, sin, closeness, world)
        # two channels in one sum, each in 16 bits
        by_ray = colours.view(len(poses), self.size, self.rays, self.size).unbind(2)
        red_blue = sum(((c & 0xFF00FF) for c in by_ray[1:]), by_ray[0] & 0xFF00FF)
        green = sum(((c >> 8 & 0xFF) for c in by_ray[1:]), by_ray[0] >> 8 & 0xFF)
        frames = torch.stack([red_blue & 0xFFFF, green, red_blue >> 16], 1)
        if self.rays > 1:
            frames = (frames + self.rays // 2).float().mul(1 / self.rays)
        return frames.to(torch.uint8).transpose(2, 3)

    def _walls(self, poses: Tensor, cos: Tensor, sin: Tensor, world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1 / depth of the nearest wall, how far along it in cells, and its texture: each ``(n, columns)``."""
        x1, y1, x2, y2 = self.walls[world].unbind(-1)  # (n, W)
        ahead1, right1 = _seen_from(poses, cos, sin, x1, y1)
        ahead2, right2 = _seen_from(poses, cos, sin, x2, y2)
        # on a seen wall, the first point is to the left of the second
        low = torch.where(ahead1 > _NEAR, right1 / ahead1, -torch.inf)
        high = torch.where(ahead2 > _NEAR, right2 / ahead2, torch.inf)
        farther, wider = ahead2 - ahead1, right2 - right1
        facing = right1 * farther - ahead1 * wider
        seen = (facing < -_NEAR) & ((ahead1 > _NEAR) | (ahead2 > _NEAR)) & (low < HALF_WIDTH) & (high > -HALF_WIDTH)
        # only as many walls as some frame sees
        order = (~seen).to(torch.uint8).argsort(dim=-1, stable=True)[:, : max(1, int(seen.sum(-1).max()))]
        low, high = (t.gather(1, order).unsqueeze(-1) for t in (torch.where(seen, low, torch.inf), high))
        scale = 1 / torch.where(seen, facing, -1.0)
        constant, slope = (-wider * scale).gather(1, order), (farther * scale).gather(1, order)
        closeness = torch.addcmul(constant.unsqueeze(-1), slope.unsqueeze(-1), self.across)  # (n, seen, columns)
        closeness = closeness.masked_fill_((self.across < low) | (self.across > high), 0)
        closeness, nearest = closeness.max(1)
        closeness = closeness.clamp_min(_NEAR)
        nearest = order.gather(1, nearest)
        length = (farther.square() + wider.square()).sqrt().clamp_min(_NEAR)
        farther, wider = farther / length, wider / length
        start = ahead1 * farther + right1 * wider
        start, farther, wider = (t.gather(1, nearest) for t in (start, farther, wider))
        u = (torch.addcmul(farther, wider, self.across) / closeness - start).clamp_min(0)
        return closeness, u, self.wall_textures[world].gather(1, nearest)

    def _columns(
        self, poses: Tensor, cos: Tensor, sin: Tensor, closeness: Tensor, u: Tensor, texture: Tensor, world: Tensor
    ) -> Tensor:
        """Walls, floors and ceilings as packed colours: ``(n, columns, size)`` int32."""
        side = 1 << self.bits
        depth, closeness = 1 / closeness.unsqueeze(-1), closeness.unsqueeze(-1)  # (n, columns, 1)
        wall_column = ((texture << 2 * self.bits) + ((u * side).long() & (side - 1))).int().unsqueeze(-1)
        # texels that a ray goes east and south for each cell of depth, and where it starts
        east, south = (cos + sin * self.across) * side, (cos * self.across - sin) * side
        east, south = east.unsqueeze(-1), south.unsqueeze(-1)
        x, y = ((_OFFSET + c) * side for c in (poses[:, 0, None, None], -poses[:, 1, None, None]))
        grid = (world.int() << 1 + 2 * self.plane_bits)[:, None, None]

        def wall(down: Tensor) -> Tensor:
            v = (down * depth * side).add_((1 - EYE_HEIGHT) * side).clamp_(0, side - 1)
            return (v.int() << self.bits).add_(wall_column)

        def plane(down: Tensor, reach: Tensor) -> Tensor:
            column, row = torch.addcmul(x, east, reach).int(), torch.addcmul(y, south, reach).int()
            shift, mask = self.bits - int(math.log2(_GRID)), (1 << self.plane_bits) - 1
            place = (row >> shift & mask) << self.plane_bits
            place = place.add_(column >> shift & mask).add_(grid + ((down > 0).int() << 2 * self.plane_bits))
            number = self.planes.index_select(0, place.flatten()).view_as(place)
            return number.add_((row & side - 1) << self.bits).add_(column & side - 1)

        # edges of the wall in pixels from the top
        half = HALF_HEIGHT / self.size
        top = ((EYE_HEIGHT - 1) * closeness + HALF_HEIGHT) / (2 * half)
        bottom = (EYE_HEIGHT * closeness + HALF_HEIGHT) / (2 * half)
        reach = torch.where(self.down > 0, EYE_HEIGHT, EYE_HEIGHT - 1) / self.down
        reach = reach.clamp_max(1 / _NEAR)
        rows = torch.arange(self.size, dtype=torch.float32)
        covered = (rows >= top) & (rows + 1 <= bottom)
        colours = self._texel(torch.where(covered, wall(self.down), plane(self.down, reach)))
        # pixels that the wall covers in part are mixed, which smooths its edges
        row = torch.cat([top, bottom], -1).clamp(0, self.size - 1).long()
        down = self.down[row]
        share = (torch.minimum(bottom, row + 1) - torch.maximum(top, row)).clamp_min(0).unsqueeze(-1)
        colour = _unpacked(self._texel(wall(down)))
        under = _unpacked(self._texel(plane(down, torch.minimum(reach[row], depth))))
        mixed = torch.lerp(under, colour, share).round_().to(torch.uint8).view(torch.int32).squeeze(-1)
        return colours.scatter_(-1, row, mixed)

    def _texel(self, index: Tensor) -> Tensor:
        return self.textures.index_select(0, index.flatten()).view_as(index)

    def _draw_objects(
        self, colours: Tensor, poses: Tensor, cos: Tensor, sin: Tensor, closeness: Tensor, world: Tensor
    ) -> None:
        """Pictures before the walls, far ones first, written into ``(n, columns, size)`` packed colours."""
        x, y, width, height = self.objects[world].unbind(-1)  # (n, O)
        ahead, right = _seen_from(poses, cos, sin, x, y)
        shown = (ahead > 0.05) & (width > 0)
        far = torch.where(shown, ahead, torch.inf)
        left = (right - width / 2) / far
        hit = (self.across >= left.unsqueeze(-1)) & (self.across < (right + width / 2).div(far).unsqueeze(-1))
        hit &= shown.unsqueeze(-1) & (far.unsqueeze(-1) * closeness.unsqueeze(1) < 1)  # (n, O, columns)
        # those that no ray hits come first and are skipped
        order = torch.where(hit.any(-1), far, torch.inf).argsort(-1, descending=True)
        hit = hit.gather(1, order.unsqueeze(-1).expand_as(hit))
        side, columns = 1 << self.picture_bits, colours.view(-1, self.size)
        numbers = self.object_pictures[world]
        for rank in range(hit.shape[1]):
            frame, column = hit[:, rank].nonzero(as_tuple=True)
            if not len(frame):
                continue
            which = order[frame, rank]
            depth = far[frame, which]
            u = (self.across[column] - left[frame, which]) * depth / width[frame, which]
            base = (numbers[frame, which] << 2 * self.picture_bits) + (u * side).long().clamp_(0, side - 1)
            v = 1 - (EYE_HEIGHT - self.down * depth.unsqueeze(-1)) / height[frame, which].unsqueeze(-1)
            index = base.unsqueeze(-1) + ((v * side).long().clamp_(0, side - 1) << self.picture_bits)
            colour = self.pictures.index_select(0, index.flatten()).view_as(index)
            # the top bit of an opaque texel makes it negative
            opaque = (v >= 0) & (v < 1) & (colour < 0)
            place = frame * len(self.across) + column
            columns[place] = torch.where(opaque, colour, columns[place])


def _seen_from(poses: Tensor, cos: Tensor, sin: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How far ahead and to the right points ``(n, P)`` are."""
    dx, dy = x - poses[:, :1], y - poses[:, 1:2]
    return dx * cos + dy * sin, dx * sin - dy * cos


def _texels(images: Sequence[np.ndarray]) -> tuple[Tensor, int]:
    """Square images ``(N, S, S, 3 or 4)`` as one packed colour a texel, int32 in one row, and log2 S.

    :raises ConfigError: S is no power of two, or differs.
    """
    sides = {image.shape[1] for image in images}
    side = max(sides)
    if len(sides) > 1 or side & (side - 1):
        raise ConfigError(f"textures and pictures: expected one side that is a power of two, got {sorted(sides)}")
    packed = np.concatenate(images)
    packed = np.pad(packed, ((0, 0), (0, 0), (0, 0), (0, 4 - packed.shape[-1])))
    # coarse ones are magnified, so that a texel is not wider than a place of the grid
    times = max(1, _GRID // side)
    packed = packed.repeat(times, 1).repeat(times, 2)
    return torch.from_numpy(np.ascontiguousarray(packed)).view(torch.int32).flatten(), int(math.log2(side * times))


def _unpacked(colours: Tensor) -> Tensor:
    """Four channels, ``(..., 4)``, 0 to 255."""
    return colours.unsqueeze(-1).view(torch.uint8).float()


def _planes(worlds: Sequence[World], starts: np.ndarray) -> tuple[Tensor, int]:
    """Where in the row of texels the texture of the ceiling (0) and of the floor (1) at each place starts.

    :returns: ``(worlds * 2 * G * G)`` int32, south after north, and log2 G; the grid repeats after G places.
    """
    corners = [np.concatenate([w.floors[:, :2].min(0), w.floors[:, 2:].max(0)]) for w in worlds]
    extent = max(float((c[2:] - c[:2]).max()) for c in corners)
    # one room for all: the grid is a single place
    bits = 0 if all(len(w.floors) == 1 for w in worlds) else math.ceil(math.log2(extent * _GRID + 4))
    texels = _texels([w.textures for w in worlds])[1]
    grid = np.zeros((len(worlds), 2, 1 << bits, 1 << bits), np.int64)
    for own, world, start in zip(grid, worlds, starts, strict=False):
        # a margin first, for rays that end on a wall
        for margin in (1, 0):
            for box, floor, ceiling in zip(world.floors, world.floor_textures, world.ceiling_textures, strict=True):
                left, south, right, north = box * _GRID
                columns = np.arange(math.floor(left) - margin, math.ceil(right) + margin)
                rows = np.arange(math.floor(-north) - margin, math.ceil(-south) + margin)
                place = np.ix_(rows % (1 << bits), columns % (1 << bits))
                own[0][place], own[1][place] = start + ceiling, start + floor
    return torch.from_numpy((grid << 2 * texels).astype(np.int32)).flatten(), bits


def _padded(rows: Sequence[np.ndarray], value: float) -> Tensor:
    """Rows of different lengths as one tensor: a wall or an object of no size is never seen."""
    longest = max(len(row) for row in rows)
    padded = [np.concatenate([row, np.full((longest - len(row), *row.shape[1:]), value)]) for row in rows]
    stacked = torch.from_numpy(np.stack(padded))
    return stacked.to(torch.float32 if isinstance(value, float) else torch.int64)
