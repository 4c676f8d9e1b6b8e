"""Random episodes: a labyrinth, a start and a policy, all drawn from one seed."""

import math
from collections.abc import Callable

import numpy as np

from gtm_pyro.errors import check_positive
from gtm_pyro.tasks.labyrinth.clearance import Clearance
from gtm_pyro.tasks.labyrinth.maps import room, rooms
from gtm_pyro.tasks.labyrinth.motion import ROTATION_ACTIONS, TOP_SPIN, WALK_ACTIONS
from gtm_pyro.tasks.labyrinth.policies import ExploringPolicy, TurningPolicy
from gtm_pyro.tasks.labyrinth.recording import Task
from gtm_pyro.tasks.labyrinth.world import World

START_CLEARANCE = 0.5
"""Of walls, pillars and things, in cells."""


def rotation_task(seed: np.random.SeedSequence, num_steps: int = 82, from_rest: bool = True) -> Task:
    """Turning on the spot in one room, left or right throughout.

    :param from_rest: the first turn of 41 frames takes some 45 then; else it turns at full rate from the start.
    :raises ConfigError: no step.
    """
    check_positive(num_steps=num_steps)
    maze, start, rng = _drawn(seed, room)
    left = bool(rng.integers(2))
    turn = ROTATION_ACTIONS[1 if left else 2].turn
    spin = 0.0 if from_rest else TOP_SPIN * turn
    return Task(maze, start, TurningPolicy(1 if left else 2), ROTATION_ACTIONS, num_steps, spin)


def walk_task(seed: np.random.SeedSequence, num_steps: int = 300) -> Task:
    """Exploring one room.

    :raises ConfigError: no step.
    """
    check_positive(num_steps=num_steps)
    maze, start, rng = _drawn(seed, room)
    return Task(maze, start, ExploringPolicy(maze, rng), WALK_ACTIONS, num_steps)


def rooms_task(seed: np.random.SeedSequence, num_steps: int = 450) -> Task:
    """Exploring several rooms.

    :raises ConfigError: no step.
    """
    check_positive(num_steps=num_steps)
    maze, start, rng = _drawn(seed, rooms)
    return Task(maze, start, ExploringPolicy(maze, rng), WALK_ACTIONS, num_steps)


def _drawn(
    seed: np.random.SeedSequence, draw: Callable[[np.random.Generator], World]
) -> tuple[World, tuple[float, float, float], np.random.Generator]:
    """A labyrinth, a start in it that is clear of everything, and a generator for the rest."""
    # not by spawn, which would give other streams the second time
    streams = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, n)) for n in range(3)]
    maze_rng, start_rng, rng = (np.random.default_rng(stream) for stream in streams)
    maze = draw(maze_rng)
    left, bottom, right, top = maze.floors[start_rng.integers(maze.num_rooms)]
    places = start_rng.uniform([left, bottom], [right, top], (1000, 2))
    clear = Clearance(maze).at(places)
    for thing in maze.objects:
        clear = np.minimum(clear, np.linalg.norm(places - thing[:2], axis=1))
    good = np.flatnonzero(clear >= START_CLEARANCE)
    x, y = places[good[0] if len(good) else clear.argmax()].tolist()
    return maze, (x, y, float(start_rng.uniform(0, math.tau))), rng
