"""How the agent moves: the momentum and friction of Doom's player, at two tics a frame."""

import math
from typing import NamedTuple

import numpy as np

from gtm_pyro.tasks.labyrinth.world import AGENT_RADIUS, UNITS, World


class Action(NamedTuple):
    """What is pressed for a frame: each -1, 0 or 1.

    :ivar forward: -1 is backward.
    :ivar side: 1 is to the right.
    :ivar turn: 1 is to the left, counter-clockwise, the way in which the heading grows.
    """

    name: str
    forward: int
    side: int
    turn: int


WALK_ACTIONS = (
    Action("turn left", 0, 0, 1),
    Action("turn right", 0, 0, -1),
    Action("forward", 1, 0, 0),
    Action("backward", -1, 0, 0),
    Action("strafe left", 0, -1, 0),
    Action("strafe right", 0, 1, 0),
    Action("forward left", 1, 0, 1),
    Action("forward right", 1, 0, -1),
)
"""The eight of DeepMind Lab's navigation tasks."""
ROTATION_ACTIONS = (Action("stay", 0, 0, 0), Action("turn left", 0, 0, 1), Action("turn right", 0, 0, -1))
TICS = 2
"""Of the engine, a frame."""
TOP_SPIN = 2 * math.pi / 41
"""Radians a frame, reached after some frames of turning one way."""
FRICTION = 0.90625
"""What is left of the velocity after a tic."""
FORWARD_THRUST, SIDE_THRUST = 0.78125 / UNITS, 0.75 / UNITS
"""Added to the velocity each tic, in cells a tic; walking on and on gives 8.33 units a tic."""


def next_spin(spin: float, turn: float) -> float:
    """Radians of the next frame's turn, after a frame that turned by ``spin``."""
    return 0.8 * spin + 0.2 * TOP_SPIN * turn


def thrust(action: Action, heading: float) -> tuple[float, float]:
    """What an action adds to the velocity each tic, in cells a tic, to the east and north."""
    cos, sin = math.cos(heading), math.sin(heading)
    ahead, right = FORWARD_THRUST * action.forward, SIDE_THRUST * action.side
    return ahead * cos + right * sin, ahead * sin - right * cos


class SimulatedAgent:
    """An agent in a world of walls parallel to the axes, along which it slides.

    :param start: x, y in cells and heading in radians.
    :param spin: radians that the last frame turned by.
    :ivar touched: whether a wall stopped it in the last frame.
    """

    def __init__(self, world: World, start: tuple[float, float, float], spin: float = 0.0) -> None:
        self.x, self.y, self.heading = start
        self.spin, self.touched = spin, False
        self._vx, self._vy = 0.0, 0.0
        walls = world.walls
        upright = walls[:, 0] == walls[:, 2]
        # each (where it stands, from, to); a wall along the move needs no check, another one stands at its end
        self._upright = [(x, min(y1, y2), max(y1, y2)) for x, y1, _, y2 in walls[upright].tolist()]
        self._level = [(y, min(x1, x2), max(x1, x2)) for x1, y, x2, _ in walls[~upright].tolist()]

    @property
    def pose(self) -> np.ndarray:
        """x, y, heading, ``(3,)``."""
        return np.array([self.x, self.y, self.heading])

    def step(self, action: Action) -> None:
        """One frame: a turn, then the tics."""
        self.spin = next_spin(self.spin, action.turn)
        self.heading += self.spin
        ax, ay = thrust(action, self.heading)
        self.touched = False
        for _ in range(TICS):
            self._vx, self._vy = self._vx + ax, self._vy + ay
            x = _blocked(self.x, self._vx, self.y, self._upright)
            if x is not None:
                self._vx, self.touched = 0.0, True
            self.x = self.x + self._vx if x is None else x
            y = _blocked(self.y, self._vy, self.x, self._level)
            if y is not None:
                self._vy, self.touched = 0.0, True
            self.y = self.y + self._vy if y is None else y
            self._vx, self._vy = self._vx * FRICTION, self._vy * FRICTION


def _blocked(place: float, move: float, across: float, walls: list[tuple[float, float, float]]) -> float | None:
    """Where the nearest wall stops a move along one axis; None where nothing does.

    :param across: the place on the other axis.
    """
    stop = None
    near, far = across - AGENT_RADIUS, across + AGENT_RADIUS
    for at, low, high in walls:
        if low < far and high > near:
            if move > 0 and place <= at - AGENT_RADIUS + 1e-9 < place + move:
                stop = at - AGENT_RADIUS if stop is None else min(stop, at - AGENT_RADIUS)
            elif move < 0 and place >= at + AGENT_RADIUS - 1e-9 > place + move:
                stop = at + AGENT_RADIUS if stop is None else max(stop, at + AGENT_RADIUS)
    return stop
