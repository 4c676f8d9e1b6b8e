"""The ray-caster against answers known beforehand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.tasks.labyrinth.maps import room, rooms
from gtm_pyro.tasks.labyrinth.raycaster import HALF_HEIGHT, HALF_WIDTH, RayCaster
from gtm_pyro.tasks.labyrinth.world import EYE_HEIGHT, World

FLOOR, CEILING = (60, 30, 10), (10, 90, 200)
WALLS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))  # west, north, east, south


def flat(colours: list[tuple[int, int, int]], side: int = 4) -> np.ndarray:
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), side, side, 3)).copy()


def box_world(
    width: float = 4.0, height: float = 4.0, things: tuple[tuple[float, ...], ...] = (), **others: np.ndarray
) -> World:
    walls = [[0, 0, 0, height], [0, height, width, height], [width, height, width, 0], [width, 0, 0, 0]]
    pictures = np.zeros((1, 4, 4, 4), np.uint8)
    pictures[...] = (250, 0, 250, 255)
    fields = dict(
        floors=np.array([[0, 0, width, height]]),
        num_rooms=1,
        pillars=np.zeros((0, 4)),
        walls=np.array(walls, float),
        wall_textures=np.arange(4),
        floor_textures=np.array([4]),
        ceiling_textures=np.array([5]),
        textures=flat([*WALLS, FLOOR, CEILING, (7, 7, 7)]),
        objects=np.array(things, float).reshape(-1, 4),
        object_pictures=np.zeros(len(things), int),
        pictures=pictures,
    )
    return World(**{**fields, **others})  # type: ignore[arg-type]


def view(world: World, *pose: float, size: int = 32, rays: int = 3) -> np.ndarray:
    """One frame, ``(size, size, 3)``."""
    frames = RayCaster([world], size, rays).render(torch.tensor([[pose]], dtype=torch.float64))
    return frames[0, 0].permute(1, 2, 0).numpy().astype(int)


def random_poses(world: World, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    boxes = world.floors[rng.integers(world.num_rooms, size=count)]
    places = boxes[:, :2] + 0.3 + rng.uniform(size=(count, 2)) * (boxes[:, 2:] - boxes[:, :2] - 0.6)
    return np.concatenate([places, rng.uniform(0, 2 * math.pi, (count, 1))], 1)


def differing(one: Tensor, other: Tensor) -> float:
    """Share of the pixels that differ visibly."""
    return ((one.int() - other.int()).abs().amax(-3) > 8).double().mean().item()


@pytest.mark.parametrize("size", [32, 33])
def test_a_wall_straight_ahead_has_the_right_height_and_colours(size: int) -> None:
    for depth in (1.0, 1.5, 3.0):
        seen = view(box_world(), 4 - depth, 2.0, 0.0, size=size)[:, size // 2]
        top = (1 - (1 - EYE_HEIGHT) / depth / HALF_HEIGHT) * size / 2
        bottom = (1 + EYE_HEIGHT / depth / HALF_HEIGHT) * size / 2
        for row, colour in enumerate(seen):
            cover = max(0.0, min(bottom, row + 1) - max(top, row))
            other = np.array(CEILING if row < size / 2 else FLOOR)
            assert np.abs(colour - (cover * np.array(WALLS[2]) + (1 - cover) * other)).max() <= 1
        exact = {tuple(colour) for row, colour in enumerate(seen) if not {row} & {int(top), int(bottom)}}
        assert exact <= {WALLS[2], FLOOR, CEILING}


def test_each_wall_is_where_it_should_be() -> None:
    for heading, colour in zip((math.pi, math.pi / 2, 0, -math.pi / 2), WALLS, strict=True):
        for turns in (0, 40):
            seen = view(box_world(), 2.0, 2.0, heading + turns * 2 * math.pi)
            assert tuple(seen[15, 16]) == colour
    # from the middle of a square the corners are 45 degrees off, of 50 on each side
    middle = view(box_world(), 2.0, 2.0, 0.0)[15]
    edge = (1 - 1 / HALF_WIDTH) * 16
    for column in range(32):
        if column + 1 <= edge:
            assert tuple(middle[column]) == WALLS[1]
        elif edge <= column <= 31 - edge:
            assert tuple(middle[column]) == WALLS[2]
        elif column >= 32 - edge:
            assert tuple(middle[column]) == WALLS[3]


def test_textures_begin_at_a_wall_s_first_point_and_repeat_every_cell() -> None:
    halves = flat([*WALLS, FLOOR, CEILING, (7, 7, 7)], 8)
    halves[2, :, 4:] = (0, 200, 200)
    halves[2, 4:] //= 2
    seen = view(box_world(textures=halves), 2.5, 2.0, 0.0, size=256, rays=1)
    # the east wall begins in the north: to the right on the screen is along it
    for column in range(256):
        across = ((column + 0.5) / 128 - 1) * HALF_WIDTH * 1.5
        along = 2 + across
        if not 0.02 < along < 3.98 or min(along % 0.5, 0.5 - along % 0.5) < 0.01:
            continue
        upper = (0, 0, 200) if along % 1 < 0.5 else (0, 200, 200)
        assert tuple(seen[100, column]) == upper and tuple(seen[150, column]) == tuple(c // 2 for c in upper)


def test_floors_and_ceilings_show_their_cells_with_north_up() -> None:
    corner = flat([*WALLS, FLOOR, CEILING, (7, 7, 7)], 8)
    corner[4, :4, :4], corner[5, 4:, 4:] = 255, 255  # north-west of each cell of floor, south-east of the ceiling
    size, pose = 128, (1.3, 1.6, 0.4)
    seen = view(box_world(textures=corner), *pose, size=size, rays=1)
    checked = 0
    for row in range(size):
        down = (2 * (row + 0.5) / size - 1) * HALF_HEIGHT
        for column in range(0, size, 5):
            across = (2 * (column + 0.5) / size - 1) * HALF_WIDTH
            depth = (EYE_HEIGHT if down > 0 else EYE_HEIGHT - 1) / down
            x = pose[0] + depth * (math.cos(pose[2]) + across * math.sin(pose[2]))
            y = pose[1] + depth * (math.sin(pose[2]) - across * math.cos(pose[2]))
            near_edge = min(min(c % 0.5, 0.5 - c % 0.5) for c in (x, y)) < 0.01
            # a pixel at the foot of a wall shows both
            if near_edge or not (0.3 < x < 3.7 and 0.3 < y < 3.7):
                continue
            north, west = y % 1 > 0.5, x % 1 < 0.5
            white = (north and west) if down > 0 else (not north and not west)
            plain = FLOOR if down > 0 else CEILING
            assert tuple(seen[row, column]) == ((255, 255, 255) if white else plain)
            checked += 1
    assert checked > 1000


def test_things_stand_on_the_floor_and_are_hidden_by_pillars() -> None:
    thing = (3.0, 2.0, 0.5, 0.25)
    seen = view(box_world(things=(thing,)), 1.0, 2.0, 0.0, size=128)
    shown = (seen == (250, 0, 250)).all(-1)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    depth = 2.0
    for edge, height in ((rows[0], 0.25), (rows[-1] + 1, 0.0)):
        assert edge == pytest.approx((1 + (EYE_HEIGHT - height) / depth / HALF_HEIGHT) * 64, abs=1)
    for edge, aside in ((columns[0], -0.25), (columns[-1] + 1, 0.25)):
        assert edge == pytest.approx((1 + aside / depth / HALF_WIDTH) * 64, abs=1)
    pillar = np.array([[1.8, 1.8, 2.2, 1.8], [2.2, 1.8, 2.2, 2.2], [2.2, 2.2, 1.8, 2.2], [1.8, 2.2, 1.8, 1.8]])
    plain = box_world(things=(thing,))
    changed = dict(
        pillars=np.array([[1.8, 1.8, 2.2, 2.2]]),
        walls=np.concatenate([plain.walls, pillar]),
        wall_textures=np.append(plain.wall_textures, [6] * 4),
    )
    assert tuple(view(box_world(things=(thing,), **changed), 1.0, 2.0, 0.0)[15, 16]) == (7, 7, 7)
    hidden = view(box_world(things=(thing,), **changed), 1.0, 2.0, 0.0)
    without = view(box_world(**changed), 1.0, 2.0, 0.0)
    assert np.array_equal(hidden, without)
    # and it is in sight from the side
    assert (view(box_world(things=(thing,), **changed), 3.0, 1.0, math.pi / 2) == (250, 0, 250)).all(-1).any()


def test_near_things_hide_far_ones_and_holes_show_what_is_behind() -> None:
    pictures = np.zeros((2, 4, 4, 4), np.uint8)
    pictures[0], pictures[1] = (250, 0, 250, 255), (0, 250, 250, 255)
    pictures[1, :, 1:3, 3] = 0  # see-through in its middle
    for order in ((0, 1), (1, 0)):
        things = tuple(((3.0, 2.0, 0.6, 0.6), (2.5, 2.0, 0.6, 0.6))[i] for i in order)
        world = box_world(things=things, object_pictures=np.array(order), pictures=pictures)
        row = [tuple(colour) for colour in view(world, 1.0, 2.0, 0.0, size=64)[35]]
        assert row[32] == (250, 0, 250) and (0, 250, 250) in row[20:32] and (0, 250, 250) in row[33:44]
        assert (0, 250, 250) not in row[31:33]


@pytest.mark.parametrize("make", [room, rooms])
def test_a_turned_world_looks_the_same(make: Callable[[np.random.Generator], World]) -> None:
    world = make(np.random.default_rng(5))
    poses = random_poses(world, 40, 0)

    def turned(places: np.ndarray) -> np.ndarray:
        return np.stack([-places[..., 1], places[..., 0]], -1)

    def boxes(old: np.ndarray) -> np.ndarray:
        new = turned(old.reshape(-1, 2, 2))
        return np.concatenate([new.min(1), new.max(1)], 1)

    planes = np.union1d(world.floor_textures, world.ceiling_textures)
    textures = world.textures.copy()
    textures[planes] = np.rot90(textures[planes], axes=(1, 2))
    fields = dict(world.__dict__)
    fields.update(floors=boxes(world.floors), pillars=boxes(world.pillars), textures=textures)
    fields.update(walls=turned(world.walls.reshape(-1, 2, 2)).reshape(-1, 4))
    fields.update(objects=np.concatenate([turned(world.objects[:, :2]), world.objects[:, 2:]], 1))
    moved = np.concatenate([turned(poses[:, :2]), poses[:, 2:] + math.pi / 2], 1)
    one = RayCaster([world]).render(torch.from_numpy(poses[None]))
    other = RayCaster([World(**fields)]).render(torch.from_numpy(moved[None]))
    # rays that meet a border of texels exactly may fall on either side
    assert differing(one, other) < 0.01


@pytest.mark.parametrize("make", [room, rooms])
def test_a_mirrored_world_is_seen_mirrored(make: Callable[[np.random.Generator], World]) -> None:
    world = make(np.random.default_rng(6))
    poses = random_poses(world, 40, 1)

    def boxes(old: np.ndarray) -> np.ndarray:
        return np.stack([-old[:, 2], old[:, 1], -old[:, 0], old[:, 3]], 1)

    fields = dict(world.__dict__)
    # flat walls: a mirrored one begins at its other end
    flat_walls = world.textures.copy()
    walls = np.unique(world.wall_textures)
    flat_walls[walls] = flat_walls[walls][:, :1, :1]
    plain = World(**{**fields, "textures": flat_walls})
    fields.update(floors=boxes(world.floors), pillars=boxes(world.pillars))
    fields.update(walls=world.walls[:, [2, 3, 0, 1]] * [-1, 1, -1, 1], objects=world.objects * [-1, 1, 1, 1])
    fields.update(textures=flat_walls[:, :, ::-1], pictures=world.pictures[:, :, ::-1])
    moved = np.stack([-poses[:, 0], poses[:, 1], math.pi - poses[:, 2]], 1)
    one = RayCaster([plain]).render(torch.from_numpy(poses[None]))
    other = RayCaster([World(**fields)]).render(torch.from_numpy(moved[None]))
    assert differing(one, other.flip(-1)) < 0.01


def test_a_batch_of_worlds_is_rendered_one_by_one() -> None:
    worlds = [make(np.random.default_rng(number)) for make in (room, rooms) for number in range(4)]
    poses = torch.from_numpy(np.stack([random_poses(world, 37, number) for number, world in enumerate(worlds)]))
    together = RayCaster(worlds).render(poses)
    for number, world in enumerate(worlds):
        alone = RayCaster([world]).render(poses[number : number + 1])
        assert torch.equal(alone[0], together[number])


def test_floors_of_several_rooms_are_their_own() -> None:
    world = next(w for w in (rooms(np.random.default_rng(n)) for n in range(20)) if not len(w.pillars))
    colours = [(5 * n + 5, 250 - 5 * n, 7) for n in range(len(world.textures))]
    fields = dict(world.__dict__)
    fields.update(textures=flat(colours), objects=np.zeros((0, 4)), object_pictures=np.zeros(0, int))
    plain = World(**fields)
    half = 31 / 32 * HALF_HEIGHT
    for box, floor, ceiling in zip(world.floors, world.floor_textures, world.ceiling_textures, strict=True):
        x, y = (box[:2] + box[2:]) / 2
        east = box[2] - box[0] < box[3] - box[1]
        # from just so far back that the middle of the lowest, then of the highest row is the middle of the rectangle
        for row, number, back in ((31, floor, EYE_HEIGHT / half), (0, ceiling, (1 - EYE_HEIGHT) / half)):
            place = (x - back, y, 0.0) if east else (x, y - back, math.pi / 2)
            assert tuple(view(plain, *place)[row, 16]) == colours[number]


def test_bad_arguments_are_refused() -> None:
    world = box_world(textures=flat([(1, 2, 3)] * 7, 6))
    with pytest.raises(ConfigError, match=r"a power of two, got \[6\]"):
        RayCaster([world])
    with pytest.raises(ConfigError, match="rays: expected a number over 0, got 0"):
        RayCaster([box_world()], rays=0)
