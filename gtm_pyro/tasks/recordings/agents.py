"""Who acts in an environment, and where it is: what a user can replace by classes of their own."""

import math
from collections.abc import Sequence
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
    :raises ConfigError: another space, or actions that it has not.
    """

    def __init__(
        self, action_space: Any, generator: np.random.Generator, actions: Sequence[int] = (), most: int = 4
    ) -> None:
        first, count = int(getattr(action_space, "start", 0)), int(getattr(action_space, "n", 0))
        wrong = [action for action in actions if not first <= action < first + count]
        if wrong:
            raise ConfigError(f"actions: expected some from {first} to {first + count - 1}, got {wrong[0]}")
        low, high = (np.asarray(getattr(action_space, name, np.inf)) for name in ("low", "high"))
        if not count and not np.isfinite([low, high]).all():
            raise ConfigError(f"policy: expected a space of numbered or of bounded actions, got {action_space}")
        self._choices = list(actions) or list(range(first, first + count))
        self._bounds, self._generator, self._most = (low, high), generator, most
        self._left, self._action = 0, None

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


class MiniGridPoses:
    """Cells to the right and down, and the heading, which grows from right to down."""

    names = ("x", "y", "heading")

    def __call__(self, environment: Any) -> tuple[float, float, float]:
        x, y = environment.agent_pos
        return float(x), float(y), environment.agent_dir * math.pi / 2


class MiniWorldPoses:
    """Position on the floor, x and -z, and the heading, counter-clockwise from above."""

    names = ("x", "y", "heading")

    def __call__(self, environment: Any) -> tuple[float, float, float]:
        agent = environment.agent
        return float(agent.pos[0]), -float(agent.pos[2]), float(agent.dir)
