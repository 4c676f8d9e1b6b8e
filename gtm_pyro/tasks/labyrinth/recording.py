"""What an agent does in a world, and what it sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from gtm_pyro.errors import check_positive
from gtm_pyro.tasks.labyrinth.motion import Action, SimulatedAgent
from gtm_pyro.tasks.labyrinth.raycaster import RayCaster
from gtm_pyro.tasks.labyrinth.world import World


class Policy(Protocol):
    """Chooses actions by the pose, and keeps a seeded random state: use one for one episode."""

    def __call__(self, pose: np.ndarray) -> int:
        """
        :param pose: x, y in cells and heading in radians, ``(3,)``.
        :returns: the number of the next action.
        """
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """One episode to be played.

    :ivar start: x, y in cells and heading in radians of frame 0.
    :ivar actions: those that the policy's numbers mean.
    :ivar num_steps: frames of the episode.
    :ivar spin: radians a frame at the start.
    """

    world: World
    start: tuple[float, float, float]
    policy: Policy
    actions: tuple[Action, ...]
    num_steps: int
    spin: float = 0.0


@dataclass(frozen=True, eq=False)
class Recording:
    """One episode as it was played.

    :ivar frames: ``(time, 3, size, size)`` uint8.
    :ivar actions: ``(time,)`` int64; ``actions[t]`` led to ``frames[t]``, and ``actions[0]`` is 0 and says nothing.
    :ivar poses: ``(time, 3)`` float64, the heading not wrapped.
    """

    frames: np.ndarray
    actions: np.ndarray
    poses: np.ndarray


def simulate(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Play an episode without its frames.

    :returns: actions ``(time,)``, poses ``(time, 3)``, and at which steps a wall was touched ``(time,)``.
    :raises ConfigError: the task has no step.
    """
    check_positive(num_steps=task.num_steps)
    agent = SimulatedAgent(task.world, task.start, task.spin)
    actions, poses = np.zeros(task.num_steps, np.int64), np.zeros((task.num_steps, 3))
    touched = np.zeros(task.num_steps, bool)
    poses[0] = agent.pose
    for t in range(1, task.num_steps):
        actions[t] = task.policy(poses[t - 1])
        agent.step(task.actions[actions[t]])
        poses[t], touched[t] = agent.pose, agent.touched
    return actions, poses, touched


def record(tasks: Sequence[Task], size: int = 32) -> list[Recording]:
    """Play episodes with the simulated agent and the ray-caster, which need no engine.

    :param size: of a frame, in pixels.
    :raises ConfigError: a task has no step, or the size is not over 0.
    """
    check_positive(size=size)
    if not tasks:
        return []
    played = [simulate(task) for task in tasks]
    longest = max(task.num_steps for task in tasks)
    # a shorter episode stands still at its end, which is cut off below
    poses = np.stack([np.pad(p, ((0, longest - len(p)), (0, 0)), mode="edge") for _, p, _ in played])
    frames = RayCaster([task.world for task in tasks], size).render(torch.from_numpy(poses)).numpy()
    return [
        Recording(seen[: len(actions)], actions, walked)
        for seen, (actions, walked, _) in zip(frames, played, strict=True)
    ]
