"""Memory Maze (Pasukonis et al. 2022) as environments of Gymnasium: importing this registers ``MemoryMaze-9x9-v0``."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

SIDES = (9, 11, 13, 15)
_PIXELS = 64
_SHOWN = ("image", "agent_pos", "agent_dir", "maze_layout")


class MemoryMaze(gymnasium.Env):
    """A maze that is another one after each reset, seen by a rolling ball at four frames a second.

    Observations are the package's ``image``, ``agent_pos`` in cells, ``agent_dir`` and ``maze_layout``. The colour of
    the target is not drawn around the image: it is no part of the world that is seen.

    :param side: cells a side: 9, 11, 13 or 15.
    :param render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, side: int = SIDES[0], render_mode: str | None = None) -> None:
        self.render_mode, self._side = render_mode, side
        self.action_space = Discrete(6)
        self.observation_space = Dict(
            image=Box(0, 255, (_PIXELS, _PIXELS, 3), np.uint8),
            agent_pos=Box(0, side, (2,), np.float64),
            agent_dir=Box(-1, 1, (2,), np.float64),
            maze_layout=Box(0, 1, (side, side), np.uint8),
        )
        self._maze: Any = None
        self.observation: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        from memory_maze import tasks

        super().reset(seed=seed)
        self.close()
        # a maze's generator takes a seed only when it is made
        self._maze = getattr(tasks, f"memory_maze_{self._side}x{self._side}")(
            global_observables=True, target_color_in_image=False, seed=int(self.np_random.integers(2**31))
        )
        for target in self._maze.task._targets:
            target._update_activation = partial(_update_activation, target)
        return self._observed(self._maze.reset()), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        now = self._maze.step(int(action))
        return self._observed(now), float(now.reward), False, bool(now.last()), {}

    def render(self) -> np.ndarray | None:
        return self.observation["image"].copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._maze is not None:
            self._maze.close()
            self._maze = None

    def _observed(self, now: Any) -> dict[str, np.ndarray]:
        self.observation = {name: np.array(now.observation[name]) for name in _SHOWN}
        return self.observation


def _update_activation(target: Any, physics: Any) -> None:
    """What a target does in each of the 50 steps of the physics; a loop over contacts would take over half the time."""
    if not target._activated and bool((physics.data.contact.geom == target._geom_id).any()):
        target._activated = True
        physics.bind(target._material).rgba[-1] = 0


for _side in SIDES:
    gymnasium.register(f"MemoryMaze-{_side}x{_side}-v0", f"{__name__}:MemoryMaze", kwargs={"side": _side})
