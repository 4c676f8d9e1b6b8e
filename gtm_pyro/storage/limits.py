"""What seeds may be, and what a machine has room for: told before any work begins."""

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from gtm_pyro.errors import ConfigError, check_whole

LARGEST_SEED = 2**32 - 1
"""NumPy's global generator takes no larger one."""
LARGEST_WORKERS = 256
LARGEST_THREADS = 1024
LARGEST_EPISODES = 3_200_000
"""A hundred thousand shards, whose names have five digits."""
LARGEST_DRAWS = 1_000_000
LARGEST_PARTICLES = 10_000

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB", "EB")


def check_seed(**seeds: int) -> None:
    """Raise ConfigError for the first of these, given by name, that cannot seed every generator."""
    for name, seed in seeds.items():
        check_range(name, seed, 0, LARGEST_SEED)


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raise ConfigError unless the value is a whole number between two, these included."""
    check_whole(least, most, ConfigError, **{name: value})


def check_memory(name: str, number: int, bytes_each: float) -> None:
    """Raise ConfigError if so many of something cannot fit into this machine's memory, by far the least they need.

    :param name: of the argument that says how many.
    """
    _check_room(name, number, bytes_each, _memory(), "the memory of this machine")


class Sized(Protocol):
    """What has frames and actions of one size."""

    @property
    def frame_shape(self) -> Sequence[int]: ...
    @property
    def action_dim(self) -> int: ...


def check_episodes(name: str, number: int, steps: int, data: Sized) -> None:
    """Raise ConfigError if so many episodes of so many steps cannot fit into memory."""
    check_memory(f"{name} * steps", number * steps, 4 * (math.prod(data.frame_shape) + data.action_dim))


def check_disk(name: str, number: int, bytes_each: float, folder: Path) -> None:
    """Raise ConfigError if so many of something cannot fit onto the disk of a folder, which may not be there yet."""
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), None)
    room = None
    if there is not None:
        with suppress(OSError):
            room = shutil.disk_usage(there).free
    _check_room(name, number, bytes_each, room, f"the room that is left at {there}")


def _check_room(name: str, number: int, bytes_each: float, room: int | None, what: str) -> None:
    if room is not None and number * bytes_each > room:
        raise ConfigError(
            f"{name}: expected what fits into {what} ({_in_units(room)}), got {number}, which takes at least "
            f"{_in_units(number * bytes_each)}"
        )


def _memory() -> int | None:
    """In bytes: of the machine, or what a container may use of it; None where the system does not tell."""
    sizes = []
    with suppress(OSError, ValueError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min(sizes, default=None)


def _in_units(size: float) -> str:
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError
