"""Memory Maze as an environment of Gymnasium, and the agent that walks to places of it."""

import importlib.util
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gtm_pyro.errors import ConfigError, MissingDependencyError
from gtm_pyro.tasks import SavedEpisodes
from gtm_pyro.tasks.recordings import GymnasiumRecordings, Import, Named, Reshaping
from gtm_pyro.tasks.recordings.memory_maze import _update_activation
from gtm_pyro.tasks.recordings.memory_maze_agents import WalksToPlaces, shortest_path

gymnasium = pytest.importorskip("gymnasium")
NAME, MOVE, TURN = "MemoryMaze-9x9-v0", 0.25, 0.3
Walker = partial(Named, "WalksToPlaces")


class Maze:
    """As the package's: another maze for each seed, a frame that tells the place, no inertia."""

    def __init__(self, seed: int, **asked: Any) -> None:
        assert asked in ({}, {"global_observables": True, "target_color_in_image": False})
        generator = np.random.default_rng(seed)
        self.free = np.ones((9, 9), np.uint8)
        self.free[2:7:2, 1:8] = 0  # corridors from left to right
        self.free[2:7:2, generator.integers(1, 8)] = 1
        self.place, self.heading, self.closed = np.array([0.5, 0.5]), generator.uniform(0, 6), False
        self.task = SimpleNamespace(_targets=[SimpleNamespace()])

    def reset(self) -> SimpleNamespace:
        return self._now()

    def step(self, action: int) -> SimpleNamespace:
        self.heading += TURN * ((action in (2, 4)) - float(action in (3, 5)))
        there = self.place + MOVE * (action in (1, 4, 5)) * self._ahead()
        x, y = np.floor(there).astype(int)
        if 0 <= x < 9 and 0 <= y < 9 and self.free[y, x]:
            self.place = there
        return self._now()

    def close(self) -> None:
        self.closed = True

    def _ahead(self) -> np.ndarray:
        return np.array([np.cos(self.heading), np.sin(self.heading)])

    def _now(self) -> SimpleNamespace:
        image = np.full((64, 64, 3), int(self.place[0] * 20), np.uint8)
        seen = {"image": image, "agent_pos": self.place, "agent_dir": self._ahead(), "maze_layout": self.free, "no": 0}
        return SimpleNamespace(observation=seen, reward=0.0, last=lambda: False)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the package, which need not be installed."""
    for name in ("memory_maze", "memory_maze.tasks"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["memory_maze"].tasks = sys.modules["memory_maze.tasks"]  # type: ignore[attr-defined]
    sys.modules["memory_maze.tasks"].memory_maze_9x9 = Maze  # type: ignore[attr-defined]


@pytest.mark.usefixtures("package")
def test_walks_to_places_of_a_maze_become_shards(tmp_path: Path) -> None:
    source = GymnasiumRecordings(NAME, Reshaping((8, 8)), num_episodes=3, num_steps=200, policy=Walker(WalksToPlaces))
    assert (source.num_actions, source.pose_names) == (6, ("x", "y", "heading"))
    Import(source, tmp_path).run(lambda number: None)
    data = SavedEpisodes(str(tmp_path), test_fraction=1)
    assert (data.lengths["test"], data.num_actions, data.frame_shape) == ((200,) * 3, 6, (3, 8, 8))
    with np.load(tmp_path / "episodes-00000.npz") as shard:
        layouts, poses = shard["layouts"], shard["poses"].reshape(3, 200, 3)
        assert (shard["frames"][0, :, 0, 0, 0] == (shard["poses"][0, :, 0] * 20).astype(int)).all()
    for number in range(3):
        walk = source.episode(number)
        assert walk.poses is not None and np.allclose(walk.poses, poses[number])
        assert (walk.layout == layouts[number]).all()
        x, y = np.floor(poses[number, :, :2]).astype(int).T
        assert layouts[number][y, x].all(), "it was in free cells alone"
        turned = (np.diff(poses[number, :, 2]) + np.pi) % (2 * np.pi) - np.pi
        assert np.allclose(turned[walk.actions[1:] == 2], TURN, atol=1e-5), "actions[t] led to poses[t]"
    assert (layouts[0] != layouts[1]).any(), "each in a maze of its own"


def test_a_target_is_reached_where_the_agent_touches_it() -> None:
    material = SimpleNamespace(rgba=[1, 1, 1, 1])
    contact = SimpleNamespace(geom=np.zeros((0, 2), np.int32))
    physics = SimpleNamespace(data=SimpleNamespace(contact=contact), bind=lambda bound: bound)
    target = SimpleNamespace(_activated=False, _geom_id=3, _material=material)
    for geoms, reached in (
        (contact.geom, False),
        (np.array([[1, 2], [4, 5]]), False),
        (np.array([[1, 2], [7, 3]]), True),
    ):
        contact.geom = geoms
        _update_activation(target, physics)
        assert target._activated is reached and material.rgba[-1] == (not reached)


def walked(policy: Any, maze: Maze, steps: int) -> np.ndarray:
    now, places = maze.reset(), []
    for _ in range(steps):
        places.append(np.floor(maze.place).astype(int))
        now = maze.step(policy(now.observation))
    return np.stack(places)


def test_an_agent_walks_to_places() -> None:
    space = gymnasium.spaces.Discrete(6)
    for seed in range(3):
        places = walked(WalksToPlaces(space, np.random.default_rng(seed), familiar=0, noise=0), Maze(seed), 600)
        assert (seen := len(np.unique(places, axis=0))) > 25, "it gets about"
        moved = (np.diff(places[::20], axis=0) != 0).any(1)
        assert moved.mean() > 0.9, "and is never stuck"
        homely = walked(WalksToPlaces(space, np.random.default_rng(seed), familiar=1, noise=0), Maze(seed), 600)
        assert len(np.unique(homely, axis=0)) < 0.6 * seen, "after the first place, none is new"
    noisy = WalksToPlaces(space, np.random.default_rng(0), noise=1)
    actions = [noisy(Maze(0).reset().observation) for _ in range(600)]
    assert (np.bincount(actions, minlength=6) > 50).all()


def test_the_shortest_path_goes_round_walls() -> None:
    free = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]])
    assert shortest_path(free, (0, 0), (0, 2)) == [(1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2)]
    free[1, 2] = 0
    assert shortest_path(free, (0, 0), (0, 2)) == []


@pytest.mark.parametrize(
    ("keywords", "actions", "message"),
    [
        ({}, 5, "policy: expected the 6 actions of Memory Maze, got Discrete"),
        ({"noise": 1.5}, 6, "noise: expected a chance from 0 to 1, got 1.5"),
        ({"familiar": -1}, 6, "familiar: expected a chance from 0 to 1, got -1"),
        ({"most": 0}, 6, "most: expected a whole number of at least 1, got 0"),
    ],
)
def test_mistakes(keywords: dict[str, Any], actions: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WalksToPlaces(gymnasium.spaces.Discrete(actions), np.random.default_rng(0), **keywords)


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "memory_maze" else object())
    with pytest.raises(MissingDependencyError, match=r'needs memory_maze: pip install "gtm-pyro\[memory-maze\]"'):
        GymnasiumRecordings(NAME, Reshaping())


def test_the_real_one() -> None:
    if importlib.util.find_spec("memory_maze") is None:
        pytest.skip("Memory Maze is not installed")
    source = GymnasiumRecordings(NAME, Reshaping((32, 32)), num_steps=12, policy=Walker(WalksToPlaces))
    walk = source.episode(0)
    assert walk.frames.shape == (12, 32, 32, 3) and walk.frames.std() > 5
    assert walk.poses is not None and walk.layout is not None and walk.layout.shape == (9, 9)
    turned = (np.diff(walk.poses[:, 2]) + np.pi) % (2 * np.pi) - np.pi
    left, right = (np.isin(walk.actions[1:], numbers) for numbers in ((2, 4), (3, 5)))
    assert (turned[left] > 0.1).all() and (turned[right] < -0.1).all()
    assert (source.episode(0).poses == walk.poses).all(), "a seed fixes an episode"
