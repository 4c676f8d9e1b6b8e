"""Episodes of agents that rotate and walk in labyrinths (Fraccaro et al. 2018, sections 4.2.1 and 4.2.2)."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.poses.places import VIEW_TOLERANCE
from gtm_pyro.storage.limits import LARGEST_EPISODES, LARGEST_WORKERS, check_memory, check_range
from gtm_pyro.tasks.base import Split, check_request, seeded_generator
from gtm_pyro.tasks.labyrinth.motion import ROTATION_ACTIONS, WALK_ACTIONS, Action
from gtm_pyro.tasks.labyrinth.shards import POSE_NAMES, SHARD_SIZE, Recipe
from gtm_pyro.tasks.labyrinth.store import ShardStore
from gtm_pyro.tasks.labyrinth.world import World

Engine = Literal["raycaster", "vizdoom"]


class Labyrinth:
    """What the three sources share.

    :ivar store: where the episodes are, 32 to a shard, uint8 at a byte a value.
    :ivar view_tolerance: how near a pose must be to another one, in cells and radians, to count as seen before.
    """

    task = "gtm_pyro.tasks.labyrinth.task.LabyrinthTask"
    frame_shape: tuple[int, int, int] = (3, 32, 32)
    view_tolerance: tuple[float, float] = VIEW_TOLERANCE

    def __init__(
        self,
        recipe: Recipe,
        actions: tuple[Action, ...],
        num_episodes: int,
        num_test_episodes: int,
        cache: str | None,
        workers: int | None,
    ) -> None:
        for name, number in (("num_episodes", num_episodes), ("num_test_episodes", num_test_episodes)):
            check_range(name, number, 1, LARGEST_EPISODES)
        if workers is not None:
            check_range("workers", workers, 0, LARGEST_WORKERS)
        check_whole(1, num_steps=recipe.num_steps)
        check_memory("num_steps", recipe.num_steps, SHARD_SIZE * math.prod(self.frame_shape))
        self.num_episodes, self.num_test_episodes, self.num_steps = num_episodes, num_test_episodes, recipe.num_steps
        self.action_names = tuple(action.name for action in actions)
        self.action_dim = len(actions)
        self.store = ShardStore(recipe, {"train": num_episodes, "test": num_test_episodes}, cache, workers)

    @property
    def lengths(self) -> dict[Split, tuple[int, ...]]:
        """The steps of episodes, all of which are as long."""
        return {"train": (self.num_steps,), "test": (self.num_steps,)}

    def sample(
        self,
        batch_size: int,
        *,
        num_observed: int,
        num_predicted: int,
        seed: int,
        split: Split = "train",
        device: torch.device | str = "cpu",
    ) -> Episodes:
        """Draw the beginnings of episodes, with poses (x, y, heading) in cells and radians; see ``EpisodeData.sample``.

        Every episode is equally likely where shards are full, that is with a multiple of 32 episodes, but those of a
        shard come together: a batch is drawn from as few shards as hold it. No episode comes twice before all came
        once. Shards stay on the device that they were asked for.

        :raises ConfigError: the window is longer than the episodes.
        :raises EpisodesError: a shard cannot be made, read or written.
        """
        check_request(batch_size, num_observed, num_predicted, split)
        length = num_observed + num_predicted
        if length > self.num_steps:
            raise ConfigError(
                f"num_observed + num_predicted: expected at most {self.num_steps} steps, the length of the episodes "
                f"(num_steps), got {length}"
            )
        device, dtype = _indexed(torch.device(device)), torch.get_default_dtype()
        parts = []
        for number, rows in self._choose(batch_size, seed, split):
            index = torch.tensor(rows).to(device, non_blocking=True)
            shard = self.store.shard(split, number, device)
            parts.append([tensor[:, :length].index_select(0, index).to(dtype) for tensor in shard])
        # of one part, a copy would be the costliest step
        frames, actions, poses = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*parts, strict=True))
        return Episodes(
            frames=frames.div_(255),
            actions=actions,
            num_observed=num_observed,
            poses=poses,
            pose_names=POSE_NAMES,
            continuous_actions=False,
            validate=False,
        )

    def worlds(self, batch_size: int, *, seed: int, split: Split = "train") -> list[World]:
        """The labyrinths of the episodes that :meth:`sample` draws with the same arguments, for maps."""
        check_request(batch_size, 1, 0, split)
        worlds = []
        for number, rows in self._choose(batch_size, seed, split):
            tasks = self.store.recipe.tasks(split, number)
            worlds += [tasks[row].world for row in rows]
        return worlds

    def close(self) -> None:
        """End the workers; otherwise they end with this object or with the interpreter."""
        self.store.close()

    def _choose(self, batch_size: int, seed: int, split: Split) -> Iterator[tuple[int, list[int]]]:
        """Numbers of shards, and rows in each."""
        generator = seeded_generator(seed, split)
        total, left = self.store.num_episodes[split], batch_size
        while left:
            # the last shard may have few episodes: the first choice is an episode's
            first = int(torch.randint(total, (), generator=generator)) // SHARD_SIZE
            others = torch.randperm(len(self.store.places(split)), generator=generator).tolist()
            for number in [first, *(other for other in others if other != first)]:
                size = min(SHARD_SIZE, total - number * SHARD_SIZE)
                rows = torch.randperm(size, generator=generator)[:left].tolist()
                left -= len(rows)
                yield number, rows
                if not left:
                    break


class LabyrinthRotation(Labyrinth):
    """An agent turns in place in a room of its own, twice round (Fraccaro et al. 2018, section 4.2.1).

    It turns one way all the time, 2 pi / 41 radians a frame at full speed. Actions are one-hot: stay, turn left, turn
    right. The labyrinths, their textures and their objects are drawn at random; those of the test split never occur in
    training.

    :param engine: what shows the labyrinths: the library's own "raycaster", or "vizdoom", a real engine, which needs
        ``pip install "gtm-pyro[labyrinth]"``.
    :param num_episodes: of the training split, each in a world of its own.
    :param num_test_episodes: of the test split.
    :param num_steps: frames of an episode.
    :param seed: of the worlds, from 0 to 2**32 - 1.
    :param cache: a folder for NPZ shards, which are made where they are missing. By default those of the ray-caster are
        kept in memory alone, and those of vizdoom in the user's folder for caches.
    :param workers: processes that make shards beside training; 0 makes them in this one, when they are asked for. By
        default 1 with vizdoom, so that an engine that hangs is replaced, and 0 with the ray-caster.
    :param from_rest: the agent stands still at first and accelerates, otherwise it turns at full speed from the start.
    :raises ConfigError: an argument out of its range.
    :raises EpisodesError: the folder holds something else, or a damaged shard; names the file.
    :raises MissingDependencyError: vizdoom is needed and not installed.
    """

    def __init__(
        self,
        engine: Engine = "raycaster",
        *,
        num_episodes: int = 2048,
        num_test_episodes: int = 128,
        num_steps: int = 82,
        seed: int = 0,
        cache: str | None = None,
        workers: int | None = None,
        from_rest: bool = True,
    ) -> None:
        recipe = Recipe("labyrinth-rotation", engine, seed, num_steps, bool(from_rest))
        super().__init__(recipe, ROTATION_ACTIONS, num_episodes, num_test_episodes, cache, workers)


class LabyrinthWalk(Labyrinth):
    """An agent explores a room with pillars (Fraccaro et al. 2018, section 4.2.2).

    It has momentum, friction and a top speed, starts at rest, and slides along walls. Actions are one-hot: turn left,
    turn right, forward, backward, strafe left, strafe right, forward left, forward right. The labyrinths, their
    textures and their objects are drawn at random; those of the test split never occur in training.

    :param engine: what shows the labyrinths: the library's own "raycaster", or "vizdoom", a real engine, which needs
        ``pip install "gtm-pyro[labyrinth]"``.
    :param num_episodes: of the training split, each in a world of its own.
    :param num_test_episodes: of the test split.
    :param num_steps: frames of an episode.
    :param seed: of the worlds and walks, from 0 to 2**32 - 1.
    :param cache: a folder for NPZ shards, which are made where they are missing. By default those of the ray-caster are
        kept in memory alone, and those of vizdoom in the user's folder for caches.
    :param workers: processes that make shards beside training; 0 makes them in this one, when they are asked for. By
        default 1 with vizdoom, so that an engine that hangs is replaced, and 0 with the ray-caster.
    :raises ConfigError: an argument out of its range.
    :raises EpisodesError: the folder holds something else, or a damaged shard; names the file.
    :raises MissingDependencyError: vizdoom is needed and not installed.
    """

    def __init__(
        self,
        engine: Engine = "raycaster",
        *,
        num_episodes: int = 1024,
        num_test_episodes: int = 128,
        num_steps: int = 300,
        seed: int = 0,
        cache: str | None = None,
        workers: int | None = None,
    ) -> None:
        recipe = Recipe("labyrinth-walk", engine, seed, num_steps)
        super().__init__(recipe, WALK_ACTIONS, num_episodes, num_test_episodes, cache, workers)


class LabyrinthRooms(Labyrinth):
    """An agent explores several rooms, with other textures in each (Fraccaro et al. 2018, section 4.2.2).

    Evaluations tell how often predicted frames are of the right room.

    :param engine: as of :class:`LabyrinthWalk`, and so are the other arguments.
    :raises ConfigError: an argument out of its range.
    :raises EpisodesError: the folder holds something else, or a damaged shard; names the file.
    :raises MissingDependencyError: vizdoom is needed and not installed.
    """

    task = "gtm_pyro.tasks.labyrinth.task.RoomsTask"

    def __init__(
        self,
        engine: Engine = "raycaster",
        *,
        num_episodes: int = 256,
        num_test_episodes: int = 128,
        num_steps: int = 450,
        seed: int = 0,
        cache: str | None = None,
        workers: int | None = None,
    ) -> None:
        recipe = Recipe("labyrinth-rooms", engine, seed, num_steps)
        super().__init__(recipe, WALK_ACTIONS, num_episodes, num_test_episodes, cache, workers)


def _indexed(device: torch.device) -> torch.device:
    """ "cuda" names the current one, which may change."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


SOURCES: dict[str, Callable[..., Labyrinth]] = {
    "labyrinth-rotation": LabyrinthRotation,
    "labyrinth-walk": LabyrinthWalk,
    "labyrinth-rooms": LabyrinthRooms,
}
