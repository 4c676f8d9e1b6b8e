"""Labyrinths: their colours, and that they are closed, reachable and drawn from the seed alone."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import label

from gtm_pyro.tasks.labyrinth.clearance import Clearance, doorways, room_at
from gtm_pyro.tasks.labyrinth.maps import room, rooms
from gtm_pyro.tasks.labyrinth.pictures import picture
from gtm_pyro.tasks.labyrinth.policies import TurningPolicy
from gtm_pyro.tasks.labyrinth.tasks import START_CLEARANCE, rooms_task, rotation_task, walk_task
from gtm_pyro.tasks.labyrinth.textures import PALETTE, quantised, surface, to_palette
from gtm_pyro.tasks.labyrinth.world import AGENT_RADIUS, World

GRAIN = 32
MAKERS = [room, rooms]


def worlds(make: Callable[[np.random.Generator], World], count: int = 20) -> list[World]:
    return [make(np.random.default_rng(seed)) for seed in range(count)]


def free_space(world: World) -> np.ndarray:
    """Which squares of 1/32 cell can be stood on, with a margin all round."""
    corner = np.floor(world.floors[:, :2].min(0)) - 1
    columns, rows = np.ceil((world.floors[:, 2:].max(0) - corner + 1) * GRAIN).astype(int)
    count = np.zeros((rows, columns), int)
    for boxes, change in ((world.floors, 1), (world.pillars, -1)):
        for left, bottom, right, top in ((boxes - np.tile(corner, 2)) * GRAIN).astype(int):
            count[bottom:top, left:right] += change
    return count


def test_palette_holds_its_own_colours() -> None:
    assert PALETTE.shape == (256, 3) and PALETTE.dtype == np.uint8
    assert not PALETTE[0].any() and len(np.unique(PALETTE, axis=0)) == 256
    assert np.array_equal(to_palette(PALETTE[1:]), np.arange(1, 256))
    # black is transparent, so the darkest other entry stands for it
    assert to_palette(np.zeros((2, 2, 3), np.uint8)).min() > 0
    rng = np.random.default_rng(0)
    colours = PALETTE[1:][rng.integers(255, size=500)].astype(int) + rng.integers(-3, 4, (500, 3))
    error = np.abs(PALETTE[to_palette(colours.clip(0, 255).astype(np.uint8))].astype(int) - colours)
    assert error.max() <= 3
    assert np.array_equal(quantised(PALETTE[5:9] / 255), PALETTE[5:9])


def test_textures_tile_and_are_coarse_enough_for_32_pixels() -> None:
    rng = np.random.default_rng(1)
    for calm in (False, True):
        for _ in range(40):
            image = surface(rng, rng.uniform(), calm).astype(float)
            across = np.abs(np.fft.rfft(image, axis=1))[:, 1:] ** 2
            down = np.abs(np.fft.rfft(image, axis=0))[1:] ** 2
            for power in (across.sum((0, 2)), down.sum((1, 2))):
                assert power[:4].sum() >= 0.8 * power.sum() or power.sum() < 1e-3 * image.size**2
            # the step from the last texel to the first is as small as those within
            for axis in (0, 1):
                inner = np.abs(np.diff(image, axis=axis)).sum(2).mean(1 - axis).max()
                seam = np.abs(image.take(0, axis) - image.take(-1, axis)).sum(-1).mean()
                assert seam <= 1.1 * inner + 1


def test_calm_textures_have_less_contrast() -> None:
    rng = np.random.default_rng(2)

    def spread(calm: bool) -> float:
        return np.mean([surface(rng, rng.uniform(), calm).astype(float).std((0, 1)).mean() for _ in range(60)])

    assert spread(True) < 0.85 * spread(False)


def test_pictures_stand_on_the_floor_and_fill_their_frame() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        image, width, height = picture(rng)
        seen = image[..., 3] == 255
        assert set(np.unique(image[..., 3])) <= {0, 255} and 0.2 < seen.mean() < 0.95
        assert seen[-1].any() and seen[:3].any() and 0.2 < width < 0.6 and 0.3 < height < 0.9
        assert np.array_equal(PALETTE[to_palette(image[seen][:, :3])], image[seen][:, :3])
        assert not image[~seen].any()


@pytest.mark.parametrize("make", MAKERS)
def test_floors_do_not_overlap_and_walls_close_them(make: Callable[[np.random.Generator], World]) -> None:
    for world in worlds(make):
        assert np.array_equal(world.walls * GRAIN, np.round(world.walls * GRAIN))
        assert np.array_equal(world.objects * GRAIN, np.round(world.objects * GRAIN))
        count = free_space(world)
        # an overlap of floors counts 2, a pillar outside a floor -1
        assert count.min() == 0 and count.max() == 1
        edges = np.abs(np.diff(count, axis=0)).sum() + np.abs(np.diff(count, axis=1)).sum()
        ends = world.walls.reshape(-1, 2, 2)
        length = np.abs(ends[:, 1] - ends[:, 0])
        assert (length.min(1) == 0).all() and (length.max(1) > 0).all()
        # as long as the border, and each on it with the free side on the right: so they are the border
        assert np.isclose(length.sum() * GRAIN, edges)
        middle, ahead = ends.mean(1), (ends[:, 1] - ends[:, 0]) / length.max(1, keepdims=True)
        right = np.stack([ahead[:, 1], -ahead[:, 0]], -1)
        # off the border between two squares of the grain, along the wall too
        beside = middle + ahead / 100
        clearance = Clearance(world)
        assert (clearance.at(beside + right / 64) > 0).all() and (clearance.at(beside - right / 64) == 0).all()


@pytest.mark.parametrize("make", MAKERS)
def test_all_of_a_labyrinth_can_be_reached(make: Callable[[np.random.Generator], World]) -> None:
    for world in worlds(make):
        clearance = Clearance(world)
        low, high = world.floors[:, :2].min(0), world.floors[:, 2:].max(0)
        grid = np.stack(np.meshgrid(*(np.arange(a, b, 1 / 16) for a, b in zip(low, high, strict=True))), -1)
        walkable = clearance.at(grid) > AGENT_RADIUS + 1 / GRAIN
        assert label(walkable)[1] == 1
        places = grid[walkable]
        assert {room_at(world, *place) for place in places} >= set(range(world.num_rooms))


@pytest.mark.parametrize("make", MAKERS)
def test_things_are_clear_of_walls_and_known(make: Callable[[np.random.Generator], World]) -> None:
    for world in worlds(make):
        assert (Clearance(world).at(world.objects[:, :2]) > 0.2).all()
        assert len(world.objects) == len(world.object_pictures) == len(world.pictures) >= 1
        assert world.wall_textures.max() < len(world.textures) and len(world.wall_textures) == len(world.walls)
        assert len(world.floors) == len(world.floor_textures) == len(world.ceiling_textures)
        assert np.array_equal(PALETTE[to_palette(world.textures)], world.textures)


def test_one_room_has_the_promised_size_and_four_unlike_walls() -> None:
    found = set()
    for world in worlds(room, 40):
        left, bottom, right, top = world.floors[0]
        assert 2.5 <= right - left <= 4.5 and 2.5 <= top - bottom <= 4.5 and world.num_rooms == 1
        assert len(set(world.wall_textures[:4])) == 4 and 1 <= len(world.objects) <= 4
        means = world.textures[world.wall_textures[:4]].mean((1, 2))
        assert min(np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]) > 10
        found.add(len(world.pillars))
    assert found == {0, 1, 2}


def test_rooms_are_joined_by_thin_doorways_and_have_textures_of_their_own() -> None:
    numbers = set()
    for world in worlds(rooms, 30):
        passages, joined = world.floors[world.num_rooms :], doorways(world)
        sides = np.sort(passages[:, 2:] - passages[:, :2], axis=1)
        assert (sides[:, 0] >= 0.125).all() and (sides[:, 0] <= 0.25).all() and (np.abs(sides[:, 1] - 0.9) < 0.01).all()
        assert len(joined) == 2 * len(passages) and {a for a, _ in joined} == set(range(world.num_rooms))
        shown = [*world.floor_textures[: world.num_rooms], *world.ceiling_textures[: world.num_rooms]]
        assert len(set(shown)) == 2 * world.num_rooms
        numbers.add(world.num_rooms)
    assert numbers == {3, 4, 5, 6}


@pytest.mark.parametrize("make", [rotation_task, walk_task, rooms_task])
def test_tasks_follow_from_the_seed_and_start_clear_of_everything(make: Callable[..., object]) -> None:
    for number in range(10):
        seed = np.random.SeedSequence([7, number])
        task, again, other = make(seed), make(seed), make(np.random.SeedSequence([8, number]))
        assert task.start == again.start and task.start != other.start  # type: ignore[attr-defined]
        world, same = task.world, again.world  # type: ignore[attr-defined]
        for field in dataclasses.fields(World):
            assert np.array_equal(getattr(world, field.name), getattr(same, field.name))
        x, y, heading = task.start  # type: ignore[attr-defined]
        assert 0 <= heading < 2 * np.pi and Clearance(world).at(np.array([x, y])) >= START_CLEARANCE
        assert (np.linalg.norm(world.objects[:, :2] - [x, y], axis=1) >= START_CLEARANCE).all()


def test_turning_goes_both_ways() -> None:
    policies = [rotation_task(np.random.SeedSequence([9, number])).policy for number in range(30)]
    assert all(isinstance(policy, TurningPolicy) for policy in policies)
    assert {policy(np.zeros(3)) for policy in policies} == {1, 2}
