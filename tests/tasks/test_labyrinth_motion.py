"""How agents move, explore and are recorded."""

import math
from functools import cache

import numpy as np
import pytest

from gtm_pyro.errors import ConfigError
from gtm_pyro.tasks.labyrinth.clearance import Clearance, room_at
from gtm_pyro.tasks.labyrinth.maps import room, rooms
from gtm_pyro.tasks.labyrinth.motion import (
    FRICTION,
    ROTATION_ACTIONS,
    TICS,
    TOP_SPIN,
    WALK_ACTIONS,
    SimulatedAgent,
    next_spin,
)
from gtm_pyro.tasks.labyrinth.recording import Task, record, simulate
from gtm_pyro.tasks.labyrinth.tasks import rooms_task, rotation_task, walk_task
from gtm_pyro.tasks.labyrinth.world import AGENT_RADIUS, UNITS, World

DOOM = (0.7811, 1.489, 2.1305, 2.7119, 3.2387, 3.7162, 4.1489, 4.5411, 4.8965, 5.2185)
"""Units that Doom's player walks in each of the first tics, and then while it glides, measured in ViZDoom 1.3.2."""
DOOM_GLIDE = (4.7293, 4.2859, 3.8841, 3.52)
NAMES = {action.name: action for action in WALK_ACTIONS + ROTATION_ACTIONS}


def hall() -> World:
    """A room of 20 x 20 cells with a pillar in its middle."""
    world = room(np.random.default_rng(0))
    box = np.array([[0.0, 0, 0, 20], [0, 20, 20, 20], [20, 20, 20, 0], [20, 0, 0, 0]])
    pillar = np.array([[9.0, 9, 11, 9], [11, 9, 11, 11], [11, 11, 9, 11], [9, 11, 9, 9]])
    changed = dict(world.__dict__)
    changed.update(
        floors=np.array([[0.0, 0, 20, 20]]),
        pillars=np.array([[9.0, 9, 11, 11]]),
        walls=np.concatenate([box, pillar]),
        wall_textures=np.zeros(8, int),
    )
    return World(**changed)


@cache
def played(kind: str, count: int = 12) -> list[tuple[World, np.ndarray, np.ndarray, np.ndarray]]:
    make = {"walk": walk_task, "rooms": rooms_task}[kind]
    tasks = [make(np.random.SeedSequence([1, number])) for number in range(count)]
    return [(task.world, *simulate(task)) for task in tasks]


def test_walking_and_gliding_are_doom_s() -> None:
    agent = SimulatedAgent(hall(), (2.0, 5.0, 0.0))
    x = [agent.x]
    for name in ["forward"] * (len(DOOM) // TICS) + ["stay"] * (len(DOOM_GLIDE) // TICS):
        agent.step(NAMES[name])
        x.append(agent.x)
    tics = np.array(DOOM + DOOM_GLIDE).reshape(-1, TICS).sum(1)
    assert np.allclose(np.diff(x) * UNITS, tics, atol=3e-3) and agent.y == 5.0


def test_top_speed_and_what_is_lost_when_nothing_is_pressed() -> None:
    agent = SimulatedAgent(hall(), (2.0, 5.0, 0.0))
    for _ in range(60):
        agent.step(NAMES["forward"])
    before = agent.x
    agent.step(NAMES["forward"])
    top = 0.78125 / (1 - FRICTION)
    assert (agent.x - before) * UNITS == pytest.approx(TICS * top, rel=1e-3)
    before = agent.x
    agent.step(NAMES["stay"])
    assert (agent.x - before) * UNITS == pytest.approx(top * (FRICTION + FRICTION**2), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "way"),
    [("forward", 0.0), ("backward", math.pi), ("strafe left", math.pi / 2), ("strafe right", -math.pi / 2)],
)
def test_each_action_goes_its_way(name: str, way: float) -> None:
    heading = 0.7
    agent = SimulatedAgent(hall(), (5.0, 5.0, heading))
    agent.step(NAMES[name])
    off = math.atan2(agent.y - 5, agent.x - 5) - heading - way
    assert math.remainder(off, 2 * math.pi) == pytest.approx(0, abs=1e-9) and agent.heading == heading


def test_turns_take_41_frames_at_top_speed_and_45_from_rest() -> None:
    for spin, frames in ((TOP_SPIN, 41), (0.0, 45)):
        agent = SimulatedAgent(hall(), (5.0, 5.0, 0.3), spin)
        count = 0
        while agent.heading < 0.3 + 2 * math.pi - 1e-9:
            agent.step(NAMES["turn left"])
            count += 1
        assert count == frames and (agent.x, agent.y) == (5.0, 5.0)
    assert next_spin(TOP_SPIN, 1) == pytest.approx(TOP_SPIN) and next_spin(0.0, -1) == pytest.approx(-0.2 * TOP_SPIN)


def test_walls_stop_it_and_it_slides_along() -> None:
    agent = SimulatedAgent(hall(), (1.0, 5.0, 3 * math.pi / 4))
    heights = []
    for _ in range(40):
        agent.step(NAMES["forward"])
        heights.append(agent.y)
    assert agent.x == AGENT_RADIUS and agent.touched and (np.diff(heights) > 0).all()
    agent = SimulatedAgent(hall(), (7.0, 9.5, 0.0))
    for _ in range(40):
        agent.step(NAMES["forward"])
    assert agent.x == 9 - AGENT_RADIUS and agent.y == pytest.approx(9.5)
    # past the pillar by a hair
    agent = SimulatedAgent(hall(), (7.0, 9 - AGENT_RADIUS, 0.0))
    for _ in range(60):
        agent.step(NAMES["forward"])
    assert agent.x > 12 and not agent.touched


@pytest.mark.parametrize("make", [room, rooms])
def test_no_actions_lead_through_a_wall(make: object) -> None:
    rng = np.random.default_rng(3)
    for number in range(6):
        world = make(np.random.default_rng(number))  # type: ignore[operator]
        left, bottom, right, top = world.floors[0]
        agent = SimulatedAgent(world, (left + 0.4, bottom + 0.4, rng.uniform(0, 6)))
        places, touches = [], 0
        for action in np.repeat(rng.integers(8, size=150), rng.integers(1, 12, 150)):
            agent.step(WALK_ACTIONS[action])
            places.append((agent.x, agent.y))
            touches += agent.touched
        # to within a place of the map of clearances
        assert Clearance(world).at(np.array(places)).min() >= AGENT_RADIUS - 1 / 32 - 1e-9 and touches > 50


def test_explorers_seldom_touch_walls() -> None:
    for kind in ("walk", "rooms"):
        assert np.mean([touched.mean() for *_, touched in played(kind)]) < 0.03


def test_explorers_use_every_action_and_keep_to_it_for_a_while() -> None:
    for kind in ("walk", "rooms"):
        actions = np.stack([actions[1:] for _, actions, _, _ in played(kind)])
        assert (np.bincount(actions.flatten(), minlength=8) / actions.size > 0.01).all()
        assert (np.diff(actions, axis=1) != 0).mean() < 0.5


def test_a_walk_covers_its_room_in_all_directions() -> None:
    for world, _, poses, _ in played("walk"):
        places = {(int(x // 0.5), int(y // 0.5)) for x, y, _ in poses}
        sides = world.floors[0, 2:] - world.floors[0, :2]
        assert len(places) >= 0.35 * sides.prod() / 0.25
        assert len(set(np.round(poses[:, 2] / (math.pi / 4)).astype(int) % 8)) >= 7
        # and every quarter of the room
        assert len({(x > sides[0] / 2, y > sides[1] / 2) for x, y in poses[:, :2]}) == 4


def test_an_explorer_visits_all_rooms_and_comes_back() -> None:
    early, late = [], []
    for world, _, poses, _ in played("rooms"):
        visited = [room_at(world, x, y) for x, y, _ in poses]
        early.append(len(set(visited[:150]) - {None}) / world.num_rooms)
        late.append(len(set(visited[150:]) - {None}) / world.num_rooms)
        assert len(set(visited[:300]) - {None}) >= world.num_rooms - 1
    assert np.mean(early) > 0.75 and np.mean(late) > 0.85


def test_recordings_are_as_promised_and_repeat() -> None:
    def tasks() -> list[Task]:
        seeds = np.random.SeedSequence(4).spawn(3)
        return [rotation_task(seeds[0], 20), walk_task(seeds[1], 30), rooms_task(seeds[2], 25)]

    first, second = record(tasks()), record(tasks())
    for task, one, two in zip(tasks(), first, second, strict=True):
        assert one.frames.shape == (task.num_steps, 3, 32, 32) and one.frames.dtype == np.uint8
        assert one.actions.shape == (task.num_steps,) and one.actions.dtype == np.int64 and one.actions[0] == 0
        assert one.poses.shape == (task.num_steps, 3) and tuple(one.poses[0]) == task.start
        for name in ("frames", "actions", "poses"):
            assert np.array_equal(getattr(one, name), getattr(two, name))
        agent = SimulatedAgent(task.world, task.start, task.spin)
        for number, pose in zip(one.actions[1:], one.poses[1:], strict=True):
            agent.step(task.actions[number])
            assert np.array_equal(agent.pose, pose)
    assert record([]) == []


def test_a_forward_step_from_rest_goes_ahead() -> None:
    agent = SimulatedAgent(hall(), (5.0, 5.0, 2.0))
    before = agent.pose
    agent.step(NAMES["forward"])
    x, y, turned = agent.pose - before
    assert math.hypot(x, y) > 0.01 and math.atan2(y, x) == pytest.approx(2.0) and turned == 0


def test_bad_lengths_are_refused() -> None:
    for make in (rotation_task, walk_task, rooms_task):
        with pytest.raises(ConfigError, match="num_steps: expected a number over 0, got 0"):
            make(np.random.SeedSequence(0), num_steps=0)
    with pytest.raises(ConfigError, match="size"):
        record([rotation_task(np.random.SeedSequence(0))], size=0)
