"""Episodes that are played in a Gymnasium environment while they are imported."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gtm_pyro.errors import ConfigError, EpisodesError, GTMPyroError, first_line, kind_and_line
from gtm_pyro.tasks.recordings.actions import as_actions
from gtm_pyro.tasks.recordings.agents import MiniGridPoses, MiniWorldPoses, RandomRepeats
from gtm_pyro.tasks.recordings.base import Recorded, need
from gtm_pyro.tasks.recordings.frames import Reshaping, as_bytes
from gtm_pyro.tasks.recordings.memory_maze_agents import MemoryMazePoses

_MINIGRID_VIEW = 7  # tiles a side
_MINIGRID_MOVES = (0, 1, 2)  # left, right, forward


class Named(NamedTuple):
    """Something that a recipe names, and how it is made."""

    name: str
    make: Callable[..., Any]


class _Family(NamedTuple):
    """What is sensible for the ids of one package.

    :param limit: the environment's keyword and attribute for its longest episode, in steps.
    :param module: that registers the ids; by default the package itself.
    """

    package: str
    poses: type
    wrappers: Callable[[Sequence[int] | None], list[Named]]
    actions: tuple[int, ...]
    limit: str | None = None
    module: str | None = None


def _minigrid_wrappers(size: Sequence[int] | None) -> list[Named]:
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    # exactly the size that is asked for, where it is a whole number of pixels a tile
    tile = 4 if size is None or size[0] != size[1] or size[0] % _MINIGRID_VIEW else size[0] // _MINIGRID_VIEW
    partial_view = Named(f"RGBImgPartialObsWrapper(tile_size={tile})", partial(RGBImgPartialObsWrapper, tile_size=tile))
    return [partial_view, Named("ImgObsWrapper", ImgObsWrapper)]


_MINIGRID = _Family("minigrid", MiniGridPoses, _minigrid_wrappers, _MINIGRID_MOVES, "max_steps")
_MINIWORLD = _Family("miniworld", MiniWorldPoses, lambda size: [], (), "max_episode_steps")
_MEMORY_MAZE = _Family(
    "memory_maze", MemoryMazePoses, lambda size: [], (), module="gtm_pyro.tasks.recordings.memory_maze"
)
_FAMILIES = {"MiniGrid-": _MINIGRID, "BabyAI-": _MINIGRID, "MiniWorld-": _MINIWORLD, "MemoryMaze-": _MEMORY_MAZE}


class GymnasiumRecordings:
    """Walks of a policy in a Gymnasium environment, each reset with a seed of its own.

    Frames are what the wrapped environment observes where that is an image, otherwise what it renders, without a
    window. MiniGrid shows the part that the agent sees, turns and walks; its poses and MiniWorld's are known.

    :param environment: an id, for instance "MiniGrid-FourRooms-v0"; "module:id" imports a module that registers it.
    :param num_episodes: how many; an episode that ends before ``num_steps`` frames is a shorter one.
    :param wrappers: put around the environment, the first one innermost; None takes what is sensible for the id.
    :param policy: made with the action space and a generator.
    :param poses: made without arguments; None takes those of MiniGrid and MiniWorld.
    :param actions: the only ones of a ``Discrete`` space that the default policy chooses; numbered from 0 in this
        order. By default all, of MiniGrid left, right and forward.
    :param past_the_end: plays on without a reset where an episode ends, as at a goal: for the walk, not for the reward.
        MiniGrid and MiniWorld allow it; an environment that does not raises an error, or stands still.
    :raises MissingDependencyError: Gymnasium, or the package of the environment, is not installed.
    :raises ConfigError: there is no such environment, or it has no frames, or actions of another kind.
    """

    def __init__(
        self,
        environment: str,
        reshape: Reshaping,
        *,
        num_episodes: int = 100,
        num_steps: int = 200,
        seed: int = 0,
        wrappers: Sequence[Named] | None = None,
        policy: Named | None = None,
        poses: Named | None = None,
        actions: Sequence[int] | None = None,
        past_the_end: bool = False,
    ) -> None:
        need("gymnasium", "gymnasium", "playing in an environment")
        family = next((f for prefix, f in _FAMILIES.items() if environment.startswith(prefix)), None)
        if family is not None:
            need(family.package, family.package.replace("_", "-"), environment)
            _import_headless(family.package, family.module)
        self._id, self._reshape, self._seed = environment, reshape, seed
        self._num_episodes, self._num_steps = num_episodes, num_steps
        self._past_the_end = past_the_end
        self._env = self._make(family.limit if family else None)
        if wrappers is None:
            wrappers = family.wrappers(reshape.size) if family else []
        for wrapper in wrappers:
            self._env = _made(wrapper, self._env)
        space = self._env.action_space
        self._first, count = int(getattr(space, "start", 0)), int(getattr(space, "n", 0))
        usual = family.actions if family and policy is None and count > max(family.actions, default=0) else ()
        self._numbers: list[int] = list(usual if actions is None else actions) if count else []
        self._policy = policy or Named("RandomRepeats", partial(RandomRepeats, actions=tuple(self._numbers)))
        if poses is None and family is not None:
            poses = Named(family.poses.__name__, family.poses)
        self._poses = None if poses is None else _made(poses)
        if self._poses is not None and not hasattr(self._poses, "names"):
            raise ConfigError(f"poses: expected a class with names, {type(self._poses).__name__} has none")
        self.pose_names: tuple[str, ...] | None = None if self._poses is None else tuple(self._poses.names)
        self.num_actions = len(self._numbers) or count or None
        self.recipe: Mapping[str, Any] = {
            "source": environment,
            "steps": num_steps,
            "seed": seed,
            "wrappers": [wrapper.name for wrapper in wrappers],
            "policy": self._policy.name,
            "actions": self._numbers,
            "poses": poses.name if poses else None,
            **({"past_the_end": True} if past_the_end else {}),
            **reshape.recipe,
        }

    def __len__(self) -> int:
        return self._num_episodes

    def name(self, number: int) -> str:
        return f"{self._id}, episode {number}"

    def episode(self, number: int) -> Recorded:
        try:
            return self._played(number)
        except (GTMPyroError, MemoryError):
            raise
        except Exception as error:  # of an environment, a policy or poses of a user's own
            raise ConfigError(f"{self.name(number)}: {kind_and_line(error)}") from error

    def _played(self, number: int) -> Recorded:
        generator = np.random.default_rng([self._seed, number])
        policy = self._policy.make(self._env.action_space, generator)
        observation, _ = self._env.reset(seed=int(generator.integers(2**31)))
        actions: list[np.ndarray] = []
        frames, poses = [self._frame(observation)], [self._pose()]
        ended = False
        while len(frames) < self._num_steps and not ended:
            action = policy(observation)
            observation, _, terminated, truncated, _ = self._env.step(action)
            ended = (terminated or truncated) and not self._past_the_end
            frames.append(self._frame(observation))
            actions.append(self._numbered(action, f"{self.name(number)}, step {len(actions)}"))
            poses.append(self._pose())
        where = self.name(number)
        if not actions:
            raise EpisodesError(f"{where}: expected at least 2 steps, got 1")
        taken = as_actions(where, np.stack([np.zeros_like(actions[0]), *actions]))
        pixels = self._reshape(as_bytes(where, np.stack(frames)))
        known = None if self._poses is None else np.asarray(poses)
        layout = getattr(self._poses, "layout", None)
        return Recorded(pixels, taken, known, layout and layout(self._env.unwrapped))

    def _make(self, limit: str | None) -> Any:
        import gymnasium

        keywords: dict[str, Any] = {}
        try:
            # as long as asked for; gymnasium.make keeps a word of its own to itself
            taken = _parameters(gymnasium.spec(self._id).entry_point) - set(_parameters(gymnasium.make))
            if limit in taken:
                keywords[limit] = self._num_steps
            env = gymnasium.make(self._id, render_mode="rgb_array", disable_env_checker=True, **keywords)
        except Exception as error:  # whatever an environment raises as it starts
            raise ConfigError(f"{self._id}: could not be made ({first_line(error)})") from error
        if limit is not None and hasattr(env.unwrapped, limit):
            setattr(env.unwrapped, limit, self._num_steps)
        return env

    def _frame(self, observation: Any) -> np.ndarray:
        observed = np.asarray(observation) if not isinstance(observation, dict | tuple | str) else None
        if observed is not None and observed.dtype == np.uint8 and observed.ndim in (2, 3):
            return observed.copy()  # some environments use one array for all
        rendered = self._env.render()
        if rendered is None:
            raise ConfigError(f"{self._id}: expected images as observations, or an environment that renders rgb_array")
        return np.array(rendered)

    def _pose(self) -> Sequence[float]:
        return () if self._poses is None else tuple(self._poses(self._env.unwrapped))

    def _numbered(self, action: Any, where: str) -> np.ndarray:
        if not self.num_actions:
            return np.atleast_1d(np.array(action, dtype=np.float32))
        if not self._numbers:
            return np.asarray(int(action) - self._first)
        if action not in self._numbers:
            raise EpisodesError(f"{where}: expected one of the actions {self._numbers}, got {action}")
        return np.asarray(self._numbers.index(action))


def _made(named: Named, *arguments: Any) -> Any:
    try:
        return named.make(*arguments)
    except Exception as error:  # of a class of a user's own
        raise ConfigError(f"{named.name}: could not be made: {kind_and_line(error)}") from error


def _parameters(entry_point: Any) -> set[str]:
    """The keywords of an environment's class, and of those above it if it passes on what it does not know."""
    if isinstance(entry_point, str):
        module, _, name = entry_point.partition(":")
        __import__(module)
        entry_point = getattr(sys.modules[module], name)
    names: set[str] = set()
    for kind in inspect.getmro(entry_point) if inspect.isclass(entry_point) else (entry_point,):
        given = inspect.signature(kind).parameters
        names |= set(given)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in given.values()):
            break
    return names


def _import_headless(package: str, module: str | None = None) -> None:
    """Import a package, and what registers its environments, so that it opens no window where there is no display."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if package == "miniworld" and not os.environ.get("DISPLAY"):
        import pyglet

        pyglet.options["headless"] = True
    try:
        __import__(package)
        __import__(module or package)
    except Exception as error:  # whatever a system without OpenGL makes of it
        raise ConfigError(f"{package}: could not be loaded ({first_line(error)})") from error
