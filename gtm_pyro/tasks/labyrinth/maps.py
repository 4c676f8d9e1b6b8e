"""Random labyrinths: one room with pillars, or several rooms joined by doorways.

All lengths are multiples of 1/32 of a cell, so they are whole in Doom's units.
"""

from dataclasses import dataclass, field

import numpy as np

from gtm_pyro.tasks.labyrinth.pictures import picture
from gtm_pyro.tasks.labyrinth.textures import surface
from gtm_pyro.tasks.labyrinth.world import World

GRAIN = 1 / 32
"""In cells; every length of a map is a multiple of it."""
_DOOR = 29 / 32
_SIDES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # west, north, east, south: clockwise, so that the inside is on the right


@dataclass
class _Plan:
    """A world in the making."""

    rng: np.random.Generator
    pillars: list[list[float]] = field(default_factory=list)
    walls: list[list[float]] = field(default_factory=list)
    wall_textures: list[int] = field(default_factory=list)
    textures: list[np.ndarray] = field(default_factory=list)
    objects: list[list[float]] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def length(self, low: float, high: float) -> float:
        """A random multiple of the grain."""
        return float(np.clip(_rounded(self.rng.uniform(low, high)), low, high))

    def texture(self, hue: float, calm: bool = False) -> int:
        """A new texture's number."""
        self.textures.append(surface(self.rng, hue, calm))
        return len(self.textures) - 1

    def wall(self, x1: float, y1: float, x2: float, y2: float, texture: int) -> None:
        self.walls.append([x1, y1, x2, y2])
        self.wall_textures.append(texture)

    def add_pillars(self, box: np.ndarray, count: int, hue: float) -> None:
        """Up to so many pillars in a room, with room for the agent on all sides."""
        for _ in range(count):
            side = self.length(0.375, 0.4375)
            place = self._place(box, 0.75, side, 0.75)
            if place is None:
                return
            left, bottom = place
            right, top = left + side, bottom + side
            self.pillars.append([left, bottom, right, top])
            number = self.texture(hue)
            # counter-clockwise, so that the outside is on the right
            for ends in ((left, bottom, right, bottom), (right, bottom, right, top)):
                self.wall(*ends, number)
            for ends in ((right, top, left, top), (left, top, left, bottom)):
                self.wall(*ends, number)

    def add_objects(self, box: np.ndarray, count: int) -> None:
        """Up to so many things in a room, clear of walls and of each other."""
        for _ in range(count):
            image, width, height = picture(self.rng)
            place = self._place(box, 0.3, 0.0, 0.25)
            if place is None:
                return
            self.objects.append([*place, _rounded(width), _rounded(height)])
            self.pictures.append(image)

    def _place(self, box: np.ndarray, margin: float, side: float, apart: float) -> tuple[float, float] | None:
        """Lower left corner of a square in a room, so far from its walls, pillars and things; None if there is none."""
        for _ in range(30):
            x = self.length(box[0] + margin, max(box[0] + margin, box[2] - margin - side))
            y = self.length(box[1] + margin, max(box[1] + margin, box[3] - margin - side))
            near = [p[0] - apart < x + side and x < p[2] + apart and p[1] - apart < y + side and y < p[3] + apart
                    for p in self.pillars]  # fmt: skip
            near += [max(abs(o[0] - x), abs(o[1] - y)) < 0.5 for o in self.objects]
            if not any(near):
                return x, y
        return None

    def world(self, floors: list[np.ndarray], num_rooms: int, floor: list[int], ceiling: list[int]) -> World:
        pictures = np.stack(self.pictures) if self.pictures else np.zeros((0, 1, 1, 4), np.uint8)
        return World(
            floors=np.stack(floors),
            num_rooms=num_rooms,
            pillars=np.array(self.pillars).reshape(-1, 4),
            walls=np.array(self.walls),
            wall_textures=np.array(self.wall_textures),
            floor_textures=np.array(floor),
            ceiling_textures=np.array(ceiling),
            textures=np.stack(self.textures),
            objects=np.array(self.objects).reshape(-1, 4),
            object_pictures=np.arange(len(self.objects)),
            pictures=pictures,
        )


def room(rng: np.random.Generator) -> World:
    """One room of 2.5 to 4.5 cells a side, its four walls unlike, with up to 2 pillars and 1 to 4 things in it."""
    plan = _Plan(rng)
    box = np.array([0, 0, plan.length(2.5, 4.5), plan.length(2.5, 4.5)])
    # hues all round the circle tell the walls apart
    hues = rng.permutation(4) / 4 + rng.uniform() + rng.uniform(-0.06, 0.06, 4)
    left, bottom, right, top = box
    corners = [(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)]
    for (x1, y1), (x2, y2), hue in zip(corners, corners[1:], hues, strict=False):
        plan.wall(x1, y1, x2, y2, plan.texture(hue))
    floor, ceiling = plan.texture(rng.uniform(), calm=True), plan.texture(rng.uniform(), calm=True)
    plan.add_pillars(box, int(rng.integers(3)), rng.uniform())
    plan.add_objects(box, int(rng.integers(1, 5)))
    return plan.world([box], 1, [floor], [ceiling])


def rooms(rng: np.random.Generator) -> World:
    """3 to 6 rooms of about 1.6 to 2.5 cells a side, each with a hue of its own, all of them joined by doorways."""
    plan = _Plan(rng)
    slots = _slots(rng)
    doors = _doors(rng, slots)
    boxes = _boxes(plan, slots, doors)
    openings: list[list[tuple[float, float]]] = [[] for _ in range(4 * len(slots))]  # on each side of each room
    doorways = []
    for one, other, side in doors:
        doorways.append(_doorway(plan, boxes[one], boxes[other], side))
        along = slice(1, 4, 2) if side == 2 else slice(0, 3, 2)
        low, high = doorways[-1][along]
        openings[4 * one + side].append((low, high))
        openings[4 * other + (side + 2) % 4].append((low, high))
    hues = rng.uniform() + rng.permutation(len(slots)) / len(slots)
    floor, ceiling, wall = [], [], []
    for number, (box, hue) in enumerate(zip(boxes, hues, strict=True)):
        wall.append(len(plan.textures))
        for side in range(4):
            _walled(plan, box, side, openings[4 * number + side], plan.texture(hue + rng.uniform(-0.03, 0.03)))
        floor.append(plan.texture(hue + rng.uniform(-0.1, 0.1), calm=True))
        ceiling.append(plan.texture(hue + rng.uniform(-0.1, 0.1), calm=True))
        if min(box[2] - box[0], box[3] - box[1]) >= 2.25 and rng.uniform() < 0.3:
            plan.add_pillars(box, 1, hue)
        plan.add_objects(box, int(rng.integers(1, 3)))
    for (one, _, side), box in zip(doors, doorways, strict=True):
        # the passage belongs to the first of its rooms; the jambs are the sides that are not open
        for jamb in (side + 1) % 4, (side + 3) % 4:
            _walled(plan, box, jamb, [], wall[one] + jamb)
        floor.append(floor[one])
        ceiling.append(ceiling[one])
    return plan.world([*boxes, *doorways], len(slots), floor, ceiling)


def _rounded(length: float) -> float:
    return round(length / GRAIN) * GRAIN


def _slots(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Connected squares of a coarse grid, column and row."""
    count = int(rng.integers(3, 7))
    shape = (2, 2) if count <= 4 and rng.uniform() < 0.5 else ((3, 2), (2, 3))[rng.integers(2)]
    slots = [(int(rng.integers(shape[0])), int(rng.integers(shape[1])))]
    while len(slots) < count:
        column, row = slots[rng.integers(len(slots))]
        across, up = _SIDES[rng.integers(4)]
        new = (column + across, row + up)
        if 0 <= new[0] < shape[0] and 0 <= new[1] < shape[1] and new not in slots:
            slots.append(new)
    return slots


def _doors(rng: np.random.Generator, slots: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """A random spanning tree of the neighbours and some loops: room, room to its north or east, and which side."""
    pairs = []
    for one, (column, row) in enumerate(slots):
        for side in (1, 2):
            other = (column + _SIDES[side][0], row + _SIDES[side][1])
            if other in slots:
                pairs.append((one, slots.index(other), side))
    group = list(range(len(slots)))
    doors = []
    for number in rng.permutation(len(pairs)):
        one, other, _ = pairs[number]
        joins = group[one] != group[other]
        if joins or rng.uniform() < 0.4:
            doors.append(pairs[number])
        if joins:
            group = [group[one] if g == group[other] else g for g in group]
    return doors


def _boxes(plan: _Plan, slots: list[tuple[int, int]], doors: list[tuple[int, int, int]]) -> list[np.ndarray]:
    """The rooms' rectangles; between those that are joined there is just the thickness of a wall."""
    starts = []
    for axis in range(2):
        edges, place = [], 0.0
        for _ in range(max(slot[axis] for slot in slots) + 1):
            size = plan.length(1.875, 2.5)
            edges.append((place, place + size))
            place += size + plan.length(0.125, 0.25)
        starts.append(edges)
    boxes = []
    for number, (column, row) in enumerate(slots):
        (left, right), (bottom, top) = starts[0][column], starts[1][row]
        box = np.array([left, bottom, right, top])
        used = {side for one, _, side in doors if one == number}
        used |= {(side + 2) % 4 for _, other, side in doors if other == number}
        # rooms of a row differ: one side each way may stand back where no doorway is
        for axis in range(2):
            side = int(plan.rng.choice([0, 2] if axis == 0 else [3, 1]))
            back = plan.length(0, 0.3)
            if side not in used:
                box[axis if side in (0, 3) else axis + 2] += back if side in (0, 3) else -back
        boxes.append(box)
    return boxes


def _doorway(plan: _Plan, one: np.ndarray, other: np.ndarray, side: int) -> np.ndarray:
    """The rectangle between a room and the one to its north (side 1) or east (side 2)."""
    axis = 0 if side == 1 else 1
    low, high = max(one[axis], other[axis]), min(one[axis + 2], other[axis + 2])
    start = plan.length(low + 0.125, high - 0.125 - _DOOR)
    if side == 1:
        return np.array([start, one[3], start + _DOOR, other[1]])
    return np.array([one[2], start, other[0], start + _DOOR])


def _walled(plan: _Plan, box: np.ndarray, side: int, openings: list[tuple[float, float]], texture: int) -> None:
    """Walls along one side of a rectangle, but for its openings."""
    axis = 1 if side in (0, 2) else 0
    fixed = box[[0, 3, 2, 1][side]]
    ends = [box[axis], *(end for opening in sorted(openings) for end in opening), box[axis + 2]]
    for low, high in zip(ends[::2], ends[1::2], strict=True):
        # north on the west side, east on the north side, and back
        first, second = (low, high) if side in (0, 1) else (high, low)
        if axis:
            plan.wall(fixed, first, fixed, second, texture)
        else:
            plan.wall(first, fixed, second, fixed, texture)
