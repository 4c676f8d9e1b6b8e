"""Where the agent of Memory Maze is, and an agent that walks to places of a maze."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from gtm_pyro.errors import ConfigError

_Cell = tuple[int, int]

# noop, forward, left, right, forward and left, forward and right
_FORWARD, _TURNS, _ARCS = 1, (2, 3), (4, 5)
_STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class MemoryMazePoses:
    """Cells along the columns and the rows of the maze's layout, and the heading, which grows from x to y."""

    names = ("x", "y", "heading")

    def __call__(self, environment: Any) -> tuple[float, float, float]:
        observed = environment.observation
        x, y = observed["agent_pos"]
        return float(x), float(y), _heading(observed)

    def layout(self, environment: Any) -> np.ndarray:
        """Which cells are free, ``(rows, columns)``, indexed [y, x], uint8."""
        return np.array(environment.observation["maze_layout"], dtype=np.uint8)


class WalksToPlaces:
    """Walks to random free places of Memory Maze by shortest paths, and now and then does something else.

    It looks at the true pose and layout, which observations of
    :class:`~gtm_pyro.tasks.recordings.memory_maze.MemoryMaze` hold: who records may know the maze.

    :param action_space: ``Discrete(6)``.
    :param familiar: chance that the next place is one where it has been before.
    :param noise: chance, at each step, that any action begins that is carried out one to ``most`` times.
    :param most: times in a row that such an action is repeated at most.
    :raises ConfigError: another space, a chance outside [0, 1], or ``most`` below 1.
    """

    def __init__(
        self,
        action_space: Any,
        generator: np.random.Generator,
        familiar: float = 0.5,
        noise: float = 0.05,
        most: int = 3,
    ) -> None:
        if getattr(action_space, "n", None) != len(_TURNS) + len(_ARCS) + 2:
            raise ConfigError(f"policy: expected the 6 actions of Memory Maze, got {action_space}")
        for name, chance in {"familiar": familiar, "noise": noise}.items():
            if not 0 <= chance <= 1:
                raise ConfigError(f"{name}: expected a chance from 0 to 1, got {chance}")
        if most < 1:
            raise ConfigError(f"most: expected a whole number of at least 1, got {most}")
        self._count, self._generator = int(action_space.n), generator
        self._familiar, self._noise, self._most = familiar, noise, most
        self._left, self._action = 0, 0
        self._path: list[_Cell] = []
        self._been: set[_Cell] = set()

    def __call__(self, observation: Mapping[str, Any]) -> int:
        if not self._left and self._generator.random() < self._noise:
            self._left = int(self._generator.integers(1, self._most + 1))
            self._action = int(self._generator.integers(self._count))
        if self._left:
            self._left -= 1
            return self._action
        return self._towards(self._next(observation), observation)

    def _next(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The middle of the cell to walk to now."""
        position, free = np.asarray(observation["agent_pos"], dtype=float), np.asarray(observation["maze_layout"])
        here = _cell_of(position, free)
        self._been.add(here)
        while self._path and np.linalg.norm(position - _middle(self._path[0])) < 0.3:
            self._path.pop(0)
        if self._path and abs(here[0] - self._path[0][0]) + abs(here[1] - self._path[0][1]) > 1:
            self._path = shortest_path(free, here, self._path[-1])  # it went astray
        if not self._path:
            self._path = self._chosen(here, free) or [here]
        return _middle(self._path[0])

    def _chosen(self, here: _Cell, free: np.ndarray) -> list[_Cell]:
        """The way to a place; none where no other place can be reached."""
        ways = {(int(x), int(y)): shortest_path(free, here, (int(x), int(y))) for y, x in np.argwhere(free)}
        ways = {place: way for place, way in ways.items() if way}
        known = [place for place in ways if place in self._been]
        places = known if known and self._generator.random() < self._familiar else list(ways)
        return ways[places[int(self._generator.integers(len(places)))]] if places else []

    def _towards(self, goal: np.ndarray, observation: Mapping[str, Any]) -> int:
        x, y = goal - observation["agent_pos"]
        turn = (math.atan2(y, x) - _heading(observation) + math.pi) % (2 * math.pi) - math.pi
        side = int(turn < 0)
        if abs(turn) > 0.6:
            return _TURNS[side]
        return _ARCS[side] if abs(turn) > 0.2 else _FORWARD


def shortest_path(free: np.ndarray, start: _Cell, goal: _Cell) -> list[_Cell]:
    """The cells after ``start`` up to ``goal``; none where no way leads there.

    :param free: ``(rows, columns)``, indexed [y, x]; cells are (x, y).
    """
    before: dict[_Cell, _Cell] = {start: start}
    queue = deque([start])
    while queue and goal not in before:
        x, y = queue.popleft()
        for dx, dy in _STEPS:
            cell = x + dx, y + dy
            inside = 0 <= cell[1] < free.shape[0] and 0 <= cell[0] < free.shape[1]
            if inside and free[cell[1], cell[0]] and cell not in before:
                before[cell] = x, y
                queue.append(cell)
    path, cell = [], goal
    while cell in before and cell != start:
        path.append(cell)
        cell = before[cell]
    return path[::-1]


def _heading(observation: Mapping[str, Any]) -> float:
    x, y = observation["agent_dir"]
    return math.atan2(y, x)


def _middle(cell: _Cell) -> np.ndarray:
    return np.asarray(cell) + 0.5


def _cell_of(position: np.ndarray, free: np.ndarray) -> _Cell:
    x, y = np.clip(np.floor(position).astype(int), 0, np.array(free.shape[::-1]) - 1)
    return int(x), int(y)
