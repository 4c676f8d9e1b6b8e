"""Shards: a few dozen labyrinth episodes at a time, made from numbers alone and kept as NPZ files."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import torch

from gtm_pyro.errors import EpisodesError
from gtm_pyro.poses.conventions import check_values
from gtm_pyro.storage.atomic import write_arrays
from gtm_pyro.storage.shards import read_shard
from gtm_pyro.tasks.base import Split
from gtm_pyro.tasks.labyrinth.motion import ROTATION_ACTIONS, WALK_ACTIONS

if TYPE_CHECKING:
    from gtm_pyro.tasks.labyrinth.recording import Task

SHARD_SIZE = 32
"""Episodes in a shard."""
PIXELS_VERSION = 1
"""To be raised with every change after which the same seed gives other worlds, walks or pixels."""

POSE_NAMES = ("x", "y", "heading")
_MADE_AGAIN = "delete it to have it made again"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in the shards of a source.

    :param source: "labyrinth-rotation", "labyrinth-walk" or "labyrinth-rooms".
    :param engine: what renders it, "raycaster" or "vizdoom".
    :param seed: of the worlds and of what happens in them.
    :param num_steps: of every episode.
    :param from_rest: whether a rotating agent stands still at first; other sources have True.
    """

    source: str
    engine: str
    seed: int
    num_steps: int
    from_rest: bool = True

    @property
    def digest(self) -> str:
        """Of the recipe and of the code's version: other pixels have another one."""
        text = json.dumps(asdict(self) | {"version": PIXELS_VERSION, "shard_size": SHARD_SIZE}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def header(self, split: Split, number: int) -> dict[str, Any]:
        """What stands in a shard's file beside its arrays."""
        return asdict(self) | {
            "split": split, "number": number, "version": PIXELS_VERSION, "shard_size": SHARD_SIZE,
            "digest": self.digest,
        }  # fmt: skip

    def tasks(self, split: Split, number: int) -> "list[Task]":
        """The worlds of a shard, and what an agent will do in each.

        World i of a split comes from its own seed, unrelated to those of the other worlds and of the other split.
        """
        from gtm_pyro.tasks.labyrinth.tasks import rooms_task, rotation_task, walk_task

        made = []
        for i in range(number * SHARD_SIZE, (number + 1) * SHARD_SIZE):
            seed = np.random.SeedSequence([self.seed, crc32(split.encode()), i])
            if self.source == "labyrinth-rotation":
                made.append(rotation_task(seed, self.num_steps, self.from_rest))
            else:
                task = walk_task if self.source == "labyrinth-walk" else rooms_task
                made.append(task(seed, self.num_steps))
        return made


def make_shard(recipe: Recipe, split: Split, number: int) -> Arrays:
    """Record the episodes of a shard: the same arguments give the same arrays, whoever calls.

    :returns: frames ``(32, time, 3, 32, 32)`` uint8; actions ``(32, time, action_dim)`` uint8, one-hot; poses
        ``(32, time, 3)`` float64.
    :raises MissingDependencyError: the engine is not installed.
    """
    tasks = recipe.tasks(split, number)
    if recipe.engine == "vizdoom":
        from gtm_pyro.tasks.labyrinth.doom import record
    else:
        from gtm_pyro.tasks.labyrinth.recording import record
    recordings = record(tasks)
    one_hot = np.eye(len(tasks[0].actions), dtype=np.uint8)
    return {
        "frames": np.stack([r.frames for r in recordings]),
        "actions": one_hot[np.stack([r.actions for r in recordings])],
        "poses": np.stack([r.poses for r in recordings]),
    }


def shard_path(folder: Path, split: Split, number: int) -> Path:
    """Where a shard lies in its folder."""
    return folder / f"{split}-{number:05d}.npz"


def automatic_folder(recipe: Recipe) -> Path:
    """The folder of the user's caches where these shards and no others lie."""
    from platformdirs import user_cache_path

    name = f"{recipe.source}-{recipe.engine}-{recipe.digest}"
    if recipe.engine == "vizdoom":  # another release may move and draw differently
        try:
            name += f"-{version('vizdoom')}"
        except PackageNotFoundError:
            pass
    return user_cache_path("gtm-pyro", appauthor=False) / name


def write_shard(folder: Path, recipe: Recipe, split: Split, number: int, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a shard, whole or not at all; it is also one that ``SavedEpisodes`` reads.

    :raises EpisodesError: no rights, a full disk.
    """
    header = np.array(json.dumps(recipe.header(split, number)))
    said = {"header": header, "pose_names": np.array(POSE_NAMES), "continuous_actions": np.array(False)}
    return write_arrays(shard_path(folder, split, number), {**said, **arrays}, EpisodesError)


def check_header(path: Path, recipe: Recipe, split: Split, number: int) -> None:
    """Tell whether a file is this shard, without reading its episodes.

    :raises EpisodesError: it is cut short, of another kind, or holds other episodes; says which.
    """
    expected = recipe.header(split, number)
    got = _read_header(path)
    other = f"a shard of {recipe.source}"
    if got is None:
        raise EpisodesError(f"{path}: expected {other}, got episodes of another kind; name another folder")
    for name, value in expected.items():
        if got.get(name) != value:
            raise EpisodesError(
                f"{path}: expected {other} with {name} {value}, got {name} {got.get(name)}; "
                "name another folder, or delete the file to have it made again"
            )


def load_shard(folder: Path, recipe: Recipe, split: Split, number: int) -> Arrays:
    """The arrays of a shard, as :func:`make_shard` gives them; every value is checked.

    :raises EpisodesError: the file is damaged, of another kind, or holds other episodes or values; names the array
        and the index, and says what to do.
    """
    path = shard_path(folder, split, number)
    check_header(path, recipe, split, number)
    try:
        arrays = read_shard(path)
    except EpisodesError as error:
        raise EpisodesError(f"{error}; {_MADE_AGAIN}") from error.__cause__
    try:
        return _checked(arrays, recipe)
    except EpisodesError as error:
        raise EpisodesError(f"{path}: {error}; {_MADE_AGAIN}") from None


def _checked(arrays: Mapping[str, np.ndarray], recipe: Recipe) -> Arrays:
    num_actions = len(ROTATION_ACTIONS if recipe.source == "labyrinth-rotation" else WALK_ACTIONS)
    expected = {"frames": (np.uint8, (3, 32, 32)), "actions": (np.uint8, (num_actions,)), "poses": (np.float64, (3,))}
    for name, (dtype, rest) in expected.items():
        shape = (SHARD_SIZE, recipe.num_steps, *rest)
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            got = "none" if array is None else f"{array.shape} of {array.dtype}"
            raise EpisodesError(f"{name}: expected {shape} of {np.dtype(dtype)}, got {got}")
    # any byte is a good pixel
    small = {name: torch.from_numpy(arrays[name]) for name in ("actions", "poses")}
    check_values(small, has_heading=True, continuous_actions=False)
    return {name: arrays[name] for name in expected}


def check_writable(folder: Path) -> None:
    """Make the folder where it is missing, and remove what killed processes left half written in it.

    :raises EpisodesError: it cannot be made, or nothing can be written there.
    """
    probe = folder / f".probe.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
        for path in folder.glob(".*.npz.*.tmp"):
            writer = path.name.split(".")[-2]
            if writer.isdecimal() and not _is_running(int(writer)):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise EpisodesError(
            f"{folder}: expected a folder that can be written to ({error.strerror or error})"
        ) from error


def _read_header(path: Path) -> dict[str, Any] | None:
    """None for NPZ files of others."""
    damaged = f"{path}: expected a whole shard, got a file that is cut short or of another kind"
    try:
        # numpy leaves a file open that it cannot read
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "header" not in archive.files:
                return None
            header = json.loads(str(archive["header"]))
    except OSError as error:
        if error.strerror is None:
            raise EpisodesError(f"{damaged}; {_MADE_AGAIN}") from error
        raise EpisodesError(f"{path}: could not be read ({error.strerror})") from error
    except Exception as error:  # whatever zip, zlib, numpy and json make of garbage
        raise EpisodesError(f"{damaged}; {_MADE_AGAIN}") from error
    return header if isinstance(header, dict) else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
