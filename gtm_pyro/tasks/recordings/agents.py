"""Who acts in an environment, and where it is: what a user can replace by classes of their own."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol

import numpy as np

from gtm_pyro.errors import ConfigError


class Policy(Protocol):
    """Chooses actions. A class of the user's own is made with the action space and a generator for each episode."""

    def __init__(self, action_space: Any, generator: np.random.Generator) -> None: ...

    def __call__(self, observation: Any) -> Any:
        """An action of the space."""
        ...


class Poses(Protocol):
    """Tells where the agent is. A class of the user's own is made without arguments.

    :ivar names: of the numbers, as ``pose_names`` of :class:`~gtm_pyro.episodes.Episodes`.
    """

    names: tuple[str, ...]

    def __call__(self, environment: Any) -> Sequence[float]:
        """
        :param environment: without its wrappers.
        """
        ...


class RandomRepeats:
    """Any action of a space, carried out one to ``most`` times in a row.

    :param action_space: ``Discrete`` or ``Box`` of Gymnasium.
    :param actions: the only ones that are chosen, of a ``Discrete`` space.
    :raises ConfigError: another space, actions that it has not, or ``most`` below 1.
    """

    def __init__(
        self, action_space: Any, generator: np.random.Generator, actions: Sequence[int] = (), most: int = 4
    ) -> None:
        first, count = int(getattr(action_space, "start", 0)), int(getattr(action_space, "n", 0))
        if most < 1:
            raise ConfigError(f"most: expected a whole number of at least 1, got {most}")
        if actions and not count:
            raise ConfigError(f"policy: expected a space of numbered actions, got {action_space}")
        wrong = [action for action in actions if not first <= action < first + count]
        if wrong:
            raise ConfigError(f"actions: expected some from {first} to {first + count - 1}, got {wrong[0]}")
        low, high = (np.asarray(getattr(action_space, name, np.inf)) for name in ("low", "high"))
        if not count and not np.isfinite([low, high]).all():
            raise ConfigError(f"policy: expected a space of numbered or of bounded actions, got {action_space}")
        self._choices = list(actions) or list(range(first, first + count))
        self._bounds, self._generator, self._most = (low, high), generator, most
        self._left = 0
        self._action: Any = None

    def __call__(self, observation: Any) -> Any:
        if not self._left:
            self._left = int(self._generator.integers(1, self._most + 1))
            self._action = self._draw()
        self._left -= 1
        return self._action

    def _draw(self) -> Any:
        if self._choices:
            return int(self._generator.choice(self._choices))
        return self._generator.uniform(*self._bounds).astype(self._bounds[0].dtype)


class TurnsWhenBlocked(RandomRepeats):
    """Random moves and turns, repeated; a move that changed nothing was blocked, and turns follow.

    An agent that goes on pushing a wall sees nothing new. The default numbers are left, right and forward of MiniGrid
    and of MiniWorld: ``--policy gtm_pyro.tasks.recordings.agents.TurnsWhenBlocked --only 0,1,2``.

    :param action_space: ``Discrete`` of Gymnasium.
    :param turns: actions that turn; one of them is repeated after a blocked move.
    :param moves: actions that move.
    :param most: times in a row that an action is repeated at most.
    :raises ConfigError: no turns or no moves, or actions that the space has not.
    """

    def __init__(
        self,
        action_space: Any,
        generator: np.random.Generator,
        turns: Sequence[int] = (0, 1),
        moves: Sequence[int] = (2,),
        most: int = 4,
    ) -> None:
        if not turns or not moves:
            raise ConfigError(f"policy: expected at least one turn and one move, got {list(turns)} and {list(moves)}")
        super().__init__(action_space, generator, (*turns, *moves), most)
        self._turns, self._moves = list(turns), set(moves)
        self._seen: Any = None

    def __call__(self, observation: Any) -> Any:
        if self._action in self._moves and _same(observation, self._seen):
            self._left = int(self._generator.integers(1, self._most + 1))
            self._action = int(self._generator.choice(self._turns))
        self._seen = deepcopy(observation)  # some environments use one array for all
        return super().__call__(observation)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return np.array_equal(one, other)


class MiniGridPoses:
    """Cells to the right and down, and the heading, which grows from right to down."""

    names = ("x", "y", "heading")

    def __call__(self, environment: Any) -> tuple[float, float, float]:
        x, y = environment.agent_pos
        return float(x), float(y), environment.agent_dir * math.pi / 2

    def layout(self, environment: Any) -> np.ndarray:
        """Which cells can be entered, ``(rows, columns)``; a door that is closed cannot."""
        grid = environment.grid
        cells = [[grid.get(x, y) for x in range(grid.width)] for y in range(grid.height)]
        return np.array([[cell is None or cell.can_overlap() for cell in row] for row in cells], dtype=np.uint8)


class MiniWorldPoses:
    """Position on the floor, x and -z, and the heading, counter-clockwise from above."""

    names = ("x", "y", "heading")

    def __call__(self, environment: Any) -> tuple[float, float, float]:
        agent = environment.agent
        return float(agent.pos[0]), -float(agent.pos[2]), float(agent.dir)
