"""What a recording is: one interface for whatever episodes are imported from."""

import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gtm_pyro.errors import MissingDependencyError


@dataclass(frozen=True)
class Recorded:
    """One episode.

    :param frames: ``(steps, height, width, channels)``, uint8.
    :param actions: ``actions[t]`` led to ``frames[t]``, and the first says nothing: whole numbers ``(steps,)``, or
        vectors of floats ``(steps, action_dim)``.
    :param poses: ``(steps, pose_dim)``, where they are known.
    :param layout: ``(rows, columns)``, which cells of the world are free, where that is known.
    """

    frames: np.ndarray
    actions: np.ndarray
    poses: np.ndarray | None = None
    layout: np.ndarray | None = None


class Recordings(Protocol):
    """Episodes that can be imported, one at a time and in any order.

    :ivar recipe: what was asked for, in words and numbers: the same recipe gives the same episodes, however many.
    :ivar pose_names: of the columns of poses; None where there are none.
    :ivar num_actions: how many actions there are; None for vectors, and where only the episodes tell.
    """

    recipe: Mapping[str, Any]
    pose_names: tuple[str, ...] | None
    num_actions: int | None

    def __len__(self) -> int:
        """How many episodes there are."""
        ...

    def name(self, number: int) -> str:
        """What errors call an episode."""
        ...

    def episode(self, number: int) -> Recorded:
        """
        :raises EpisodesError: it cannot be carried; names the episode, and the step where there is one.
        """
        ...


def need(package: str, extra: str, purpose: str) -> None:
    """Find out, without importing it, whether a package is there.

    :raises MissingDependencyError: it is not; the message holds the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(f'{purpose} needs {package}: pip install "gtm-pyro[{extra}]"')


def crc_of(files: Sequence[Path]) -> str:
    """Tells files from others by their names and sizes."""
    return f"{zlib.crc32(repr([(path.name, path.stat().st_size) for path in files]).encode()):08x}"
