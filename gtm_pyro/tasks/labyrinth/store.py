"""Where a labyrinth's shards are: in memory, in a folder, or yet to be made, here or by workers."""

import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import EngineError, EpisodesError, check_whole
from gtm_pyro.storage.limits import check_seed
from gtm_pyro.tasks.base import Split, check_choice
from gtm_pyro.tasks.labyrinth import shards
from gtm_pyro.tasks.labyrinth.doom import check_vizdoom
from gtm_pyro.tasks.labyrinth.shards import SHARD_SIZE, Arrays, Recipe
from gtm_pyro.tasks.labyrinth.workers import TRIES, Job, Workers

Place = tuple[Split, int]


class Shard(NamedTuple):
    """Episodes on a device.

    :ivar frames: ``(32, time, 3, 32, 32)`` uint8.
    :ivar actions: ``(32, time, action_dim)`` uint8, one-hot.
    :ivar poses: ``(32, time, 3)`` float64.
    """

    frames: Tensor
    actions: Tensor
    poses: Tensor


class ShardStore:
    """The shards of a source; each is made when it is first asked for, and then held in memory.

    :param recipe: what is in them.
    :param num_episodes: of each split, at least one; a shard is always whole.
    :param cache: a folder of the user's, which may hold some, and gets those that are made. Without, those of vizdoom
        go into the user's folder for caches, and those of the ray-caster nowhere.
    :param workers: processes that make shards; 0 makes them in this one. By default 1 with vizdoom, 0 with the
        ray-caster.
    :raises ConfigError: an argument is out of its range.
    :raises EpisodesError: the user's folder holds something else, or a damaged shard.
    :raises MissingDependencyError: vizdoom is needed and not installed.
    """

    def __init__(
        self, recipe: Recipe, num_episodes: dict[Split, int], cache: str | None = None, workers: int | None = None
    ) -> None:
        _check_recipe(recipe)
        if workers is None:
            workers = int(recipe.engine == "vizdoom" and os.name == "posix")
        check_whole(0, workers=workers)
        self.recipe, self.num_episodes = recipe, num_episodes
        self.is_users = cache is not None
        self.folder: Path | None = None
        if cache is not None:
            # an engine may change the working directory
            self.folder = Path(cache).expanduser().absolute()
        elif recipe.engine == "vizdoom":
            check_vizdoom()
            self.folder = shards.automatic_folder(recipe)
        self._loaded: dict[tuple[Place, torch.device], Shard] = {}
        self._num_workers = workers
        self._workers: Workers | None = None
        if self.folder is not None and self.is_users:
            if self.folder.exists() and not self.folder.is_dir():
                raise EpisodesError(f"{self.folder}: expected a folder for shards, got a file")
            self.missing()  # a wrong folder is told before any work begins

    def places(self, split: Split) -> list[Place]:
        """Split and number of every shard of a split."""
        return [(split, number) for number in range(-(-self.num_episodes[split] // SHARD_SIZE))]

    def shard(self, split: Split, number: int, device: torch.device) -> Shard:
        """A shard on a device, where it stays. Workers then make those that follow it.

        :raises EpisodesError: it cannot be made, read or written.
        """
        place = (split, number)
        if (place, device) not in self._loaded:
            elsewhere = [shard for (other, _), shard in self._loaded.items() if other == place]
            if elsewhere:
                tensors = [tensor.to(device) for tensor in elsewhere[0]]
            else:
                arrays = self._read(place)
                if arrays is None:
                    every = self.places(split)
                    following = [p for p in every[number + 1 :] + every[:number] if not self._is_here(p)]
                    arrays = self._make(place, following)
                elif self._workers is not None:
                    self._workers.forget(self._job(place))
                tensors = [torch.from_numpy(arrays[name]).to(device) for name in Shard._fields]
            self._loaded[place, device] = Shard(*tensors)
        return self._loaded[place, device]

    def missing(self, *, whole: bool = False) -> list[Place]:
        """The shards of both splits that are not in the folder.

        :param whole: read those that are there to the last byte, not their headers alone: about a second a gigabyte.
        :raises EpisodesError: what is in the user's folder is damaged or holds other episodes.
        """
        assert self.folder is not None
        found = []
        for place in [*self.places("train"), *self.places("test")]:
            path = shards.shard_path(self.folder, *place)
            if not path.exists() or not self._is_sound(path, place, whole):
                found.append(place)
        return found

    def fill(self, wanted: list[Place] | None = None) -> Iterator[Place]:
        """Make the shards that are missing in the folder, and yield each when it is whole on the disk.

        :param wanted: those that ``missing(whole=True)`` found, which is asked by default.
        :raises EpisodesError: at once: the folder cannot be written to; later: a shard cannot be made or written.
        :raises MissingDependencyError: at once: vizdoom is needed and not installed.
        """
        assert self.folder is not None
        wanted = self.missing(whole=True) if wanted is None else wanted
        if wanted and self.recipe.engine == "vizdoom":
            check_vizdoom()
        shards.check_writable(self.folder)
        return self._filled(wanted)

    def _filled(self, wanted: list[Place]) -> Iterator[Place]:
        for i, place in enumerate(wanted):
            self._make(place, wanted[i + 1 :])
            yield place

    @property
    def worker_pids(self) -> list[int]:
        """Of the worker processes that run."""
        return self._workers.pids if self._workers is not None else []

    def close(self) -> None:
        """End the workers; otherwise they end with this object or with the interpreter."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _is_here(self, place: Place) -> bool:
        """Whether it needs not be made; a file that is damaged is found out when it is read."""
        if any(loaded == place for loaded, _ in self._loaded):
            return True
        return self.folder is not None and shards.shard_path(self.folder, *place).exists()

    def _read(self, place: Place) -> Arrays | None:
        if self.folder is None or not shards.shard_path(self.folder, *place).exists():
            return None
        try:
            return shards.load_shard(self.folder, self.recipe, *place)
        except EpisodesError as error:
            self._warn_or_raise(error)
        return None

    def _make(self, place: Place, following: list[Place]) -> Arrays:
        if self.recipe.engine == "vizdoom":
            check_vizdoom()
        keep = partial(_write, self.folder)
        if not self._num_workers:
            job = self._job(place)
            arrays = _tried(job)
            keep(job, arrays)
            return arrays
        if self._workers is None:
            # where a frame takes 10 ms, something is wrong
            self._workers = Workers(self._num_workers, 60 + SHARD_SIZE * self.recipe.num_steps / 100, keep)
        self._workers.prefetch(self._job(p) for p in [place, *following])
        return self._workers.result(self._job(place))

    def _job(self, place: Place) -> Job:
        label = f"{self.recipe.source}: shard {place[1]} for {'training' if place[0] == 'train' else 'testing'}"
        return Job(label, shards.make_shard, (self.recipe, *place))

    def _is_sound(self, path: Path, place: Place, whole: bool) -> bool:
        try:
            if whole:
                shards.load_shard(path.parent, self.recipe, *place)
            else:
                shards.check_header(path, self.recipe, *place)
        except EpisodesError as error:
            self._warn_or_raise(error)
            return False
        return True

    def _warn_or_raise(self, error: EpisodesError) -> None:
        """Only in the library's own folder may a file be replaced."""
        if self.is_users:
            raise error
        warnings.warn(f"{str(error).partition(';')[0]}; it is made again", stacklevel=2)


def _check_recipe(recipe: Recipe) -> None:
    check_choice(("raycaster", "vizdoom"), engine=recipe.engine)
    check_seed(seed=recipe.seed)  # a larger one would be two numbers to numpy, and share its worlds with another
    check_whole(1, num_steps=recipe.num_steps)


def _write(folder: Path | None, job: Job, arrays: Arrays) -> None:
    """Called by workers' threads, it must not hold the store."""
    if folder is not None:
        recipe, split, number = job.arguments
        shards.write_shard(folder, recipe, split, number, arrays)


def _tried(job: Job) -> Arrays:
    """Done in this process, where an engine may end or hang too."""
    reason: EngineError | None = None
    for _ in range(TRIES):
        try:
            return job.call(*job.arguments)
        except EngineError as error:
            reason = error
    raise EpisodesError(f"{job.label}: could not be made, {TRIES} tries failed; {reason}") from reason
