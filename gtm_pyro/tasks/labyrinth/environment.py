"""Labyrinths as a Gymnasium environment."""

from typing import Any, Literal, Protocol

import numpy as np
import torch

from gtm_pyro.errors import ConfigError, MissingDependencyError, check_whole
from gtm_pyro.tasks.base import check_choice
from gtm_pyro.tasks.labyrinth.doom import DoomEngine, check_vizdoom
from gtm_pyro.tasks.labyrinth.doom_process import SIZE
from gtm_pyro.tasks.labyrinth.motion import TICS, WALK_ACTIONS, Action, SimulatedAgent
from gtm_pyro.tasks.labyrinth.raycaster import RayCaster
from gtm_pyro.tasks.labyrinth.recording import Task
from gtm_pyro.tasks.labyrinth.tasks import rooms_task, walk_task
from gtm_pyro.tasks.labyrinth.world import World

try:
    import gymnasium
except ImportError as error:
    raise MissingDependencyError('the environment comes with gymnasium: pip install "gtm-pyro[labyrinth]"') from error

Start = tuple[float, float, float]
_TASKS = {"walk": walk_task, "rooms": rooms_task}
_MOST_WORLDS = 32  # in one engine, of which most resets then need no new one
_TICS_A_SECOND = 35


class _Engine(Protocol):
    @property
    def closed(self) -> bool: ...

    def reset(self, world: World, start: Start) -> tuple[np.ndarray, np.ndarray]: ...

    def step(self, action: Action) -> tuple[np.ndarray, np.ndarray]: ...

    def close(self) -> object: ...


class LabyrinthEnv(gymnasium.Env[np.ndarray, np.int64]):
    """An agent with momentum in a random labyrinth; every reset puts it into another one.

    Observations are frames, ``(32, 32, 3)`` uint8. Actions are the eight of
    :data:`~gtm_pyro.tasks.labyrinth.motion.WALK_ACTIONS`. There is no reward and no end; ``info["pose"]`` is the true
    pose: x, y in cells and the heading in radians, counter-clockwise from the east, whole turns counted.
    Where an engine fails, the next reset starts another one.

    :param labyrinth: "walk", one room, or "rooms", several.
    :param engine: "vizdoom", or the library's own "raycaster".
    :param max_steps: after which an episode is truncated.
    :param render_mode: "rgb_array" lets ``render`` return the frame.
    :raises ConfigError: an argument out of its range.
    :raises MissingDependencyError: vizdoom is needed and not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": _TICS_A_SECOND / TICS}

    def __init__(
        self,
        labyrinth: Literal["walk", "rooms"] = "walk",
        engine: Literal["vizdoom", "raycaster"] = "vizdoom",
        max_steps: int = 300,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        check_choice(tuple(_TASKS), labyrinth=labyrinth)
        check_choice(("vizdoom", "raycaster"), engine=engine)
        check_whole(1, max_steps=max_steps)
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode: expected None or 'rgb_array', got {render_mode!r}")
        if engine == "vizdoom":
            check_vizdoom()
        self.labyrinth, self.engine, self.max_steps, self.render_mode = labyrinth, engine, max_steps, render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(WALK_ACTIONS))
        self._engine: _Engine | None = None
        self._coming: list[Task] = []
        self._num_coming = 1
        self._steps = 0
        self._frame: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Into the next labyrinth.

        :param seed: of this labyrinth and those of later resets without a seed.
        :param options: ignored.
        :raises EngineError: the engine does not start, ended or hangs.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._coming, self._num_coming = [], 1
        self._frame = None
        if not self._coming:
            self._coming = [self._drawn() for _ in range(self._num_coming)]
            # those who go on without seeds need many
            self._num_coming = min(2 * self._num_coming, _MOST_WORLDS)
            self._end_engine()
        if self._engine is None or self._engine.closed:
            worlds = [task.world for task in self._coming]
            self._engine = DoomEngine(worlds) if self.engine == "vizdoom" else _RayCasterEngine()
        task = self._coming[0]
        frame, pose = self._engine.reset(task.world, task.start)
        # not before: where the engine fails, the next one shows it
        self._coming.pop(0)
        self._steps = 0
        return self._seen(frame, pose)

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One frame.

        :raises ConfigError: no action has this number.
        :raises EngineError: the engine ended or hangs.
        """
        if not self.action_space.contains(action):
            raise ConfigError(f"action: expected a whole number from 0 to {len(WALK_ACTIONS) - 1}, got {action!r}")
        if self._engine is None or self._frame is None:
            raise gymnasium.error.ResetNeeded("step: expected a reset before it")
        self._steps += 1
        frame, info = self._seen(*self._engine.step(WALK_ACTIONS[int(action)]))
        return frame, 0.0, False, self._steps >= self.max_steps, info

    def render(self) -> np.ndarray | None:
        """The frame, ``(32, 32, 3)`` uint8; None without a render mode."""
        return self._frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the engine."""
        self._end_engine()
        self._frame = None

    def _end_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _drawn(self) -> Task:
        return _TASKS[self.labyrinth](np.random.SeedSequence(int(self.np_random.integers(2**32))))

    def _seen(self, frame: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        self._frame = frame.copy()
        return self._frame, {"pose": pose}


class _RayCasterEngine:
    """The simulated agent and the ray-caster, as an engine."""

    closed = False
    _agent: SimulatedAgent
    _renderer: RayCaster

    def reset(self, world: World, start: Start) -> tuple[np.ndarray, np.ndarray]:
        self._agent, self._renderer = SimulatedAgent(world, start), RayCaster([world], SIZE)
        return self._view()

    def step(self, action: Action) -> tuple[np.ndarray, np.ndarray]:
        self._agent.step(action)
        return self._view()

    def close(self) -> None:
        """Nothing is open."""

    def _view(self) -> tuple[np.ndarray, np.ndarray]:
        pose = self._agent.pose
        frame = self._renderer.render(torch.from_numpy(pose)[None, None])[0, 0]
        return frame.permute(1, 2, 0).contiguous().numpy(), pose
