"""NPZ files in the style of world-model code: what Memory Maze and forks of Dreamer write."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gtm_pyro.errors import EpisodesError, first_line
from gtm_pyro.tasks.recordings.actions import as_actions, check_lengths, width
from gtm_pyro.tasks.recordings.base import Recorded, crc_of
from gtm_pyro.tasks.recordings.frames import Reshaping, as_bytes

_STARTS = ("is_first", "reset")
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_MOST_BAD = 10


class NpzRecordings:
    """Files with ``image`` (steps, height, width, channels) and ``action`` (steps,) or (steps, action_dim).

    ``action[t]`` led to ``image[t]``, and the first says nothing. ``is_first`` or ``reset`` say where episodes start;
    without them a file is one. ``agent_pos`` (steps, 2) and ``agent_dir``, a direction (steps, 2) or an angle (steps,),
    are poses.

    :param files: in their order.
    :raises EpisodesError: files that cannot be read or lack an array; names the first ten.
    """

    def __init__(self, files: Sequence[Path], reshape: Reshaping) -> None:
        self._reshape = reshape
        self._episodes: list[tuple[Path, int, int]] = []
        bad: list[str] = []
        pose_names: set[tuple[str, ...] | None] = set()
        for path in files:
            try:
                with _opened(path) as archive:
                    self._episodes += [(path, *bounds) for bounds in _bounds(path, archive)]
                    pose_names.add(_pose_names(archive))
            except EpisodesError as error:
                bad.append(str(error))
        if bad:
            more = f"{len(bad)} files cannot be read: " if len(bad) > 1 else ""
            raise EpisodesError(more + "; ".join(bad[:_MOST_BAD]))
        # poses that only some files have are of no use
        self.pose_names = pose_names.pop() if len(pose_names) == 1 else None
        self.num_actions = self._width()
        self.recipe: Mapping[str, Any] = {"source": str(files[0].parent), "files": crc_of(files), **reshape.recipe}

    def __len__(self) -> int:
        return len(self._episodes)

    def name(self, number: int) -> str:
        path, start, _ = self._episodes[number]
        return f"{path}, episode {number}" + (f" from step {start}" if start else "")

    def episode(self, number: int) -> Recorded:
        path, start, stop = self._episodes[number]
        where = self.name(number)
        with _opened(path) as archive:
            frames = as_bytes(where, _array(path, archive, "image")[start:stop])
            actions = as_actions(where, _array(path, archive, "action")[start:stop])
            check_lengths(where, len(frames), len(actions))
            if self.num_actions is not None and not actions.any():
                actions = np.zeros(len(actions), dtype=np.int64)  # of one step, which says nothing
            poses = _poses(path, archive)[start:stop] if self.pose_names else None
        return Recorded(self._reshape(frames), actions, poses)

    def _width(self) -> int | None:
        path, start, stop = max(self._episodes, key=lambda episode: episode[2] - episode[1])
        with _opened(path) as archive:
            return width(_array(path, archive, "action")[start:stop])


def _opened(path: Path) -> Any:
    try:
        if not zipfile.is_zipfile(path):  # numpy leaves a file open that it cannot read
            raise ValueError("it is cut short or of another kind")
        return np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise EpisodesError(f"{path}: expected an NPZ file ({first_line(error)})") from None


def _array(path: Path, archive: Any, name: str) -> np.ndarray:
    if name not in archive.files:
        raise EpisodesError(f"{path}: expected an array {name}, got {', '.join(sorted(archive.files)) or 'none'}")
    try:
        array: np.ndarray = archive[name]
    except _UNREADABLE as error:
        raise EpisodesError(f"{path}: {name}: expected a whole array ({first_line(error)})") from None
    if not array.ndim or not len(array):
        got = "none" if array.ndim else "a single one"
        raise EpisodesError(f"{path}: {name}: expected one entry a step, got {got}")
    return array


def _bounds(path: Path, archive: Any) -> list[tuple[int, int]]:
    """Where episodes start and stop; read without the frames."""
    for name in ("image", "action"):
        if name not in archive.files:
            _array(path, archive, name)
    steps = len(_array(path, archive, "action"))
    marked = next((name for name in _STARTS if name in archive.files), None)
    starts = {0}
    if marked is not None:
        marks = _array(path, archive, marked)
        check_lengths(f"{path}, {marked}", len(marks), steps)
        starts |= set(np.flatnonzero(marks.reshape(steps, -1).any(1)).tolist())
    edges = [*sorted(starts), steps]
    return list(zip(edges, edges[1:], strict=False))


def _pose_names(archive: Any) -> tuple[str, ...] | None:
    if "agent_pos" not in archive.files:
        return None
    return ("x", "y", "heading") if "agent_dir" in archive.files else ("x", "y")


def _poses(path: Path, archive: Any) -> np.ndarray:
    position = _array(path, archive, "agent_pos")
    if position.ndim != 2 or position.shape[1] != 2:
        raise EpisodesError(f"{path}: agent_pos: expected (steps, 2), got {position.shape}")
    if "agent_dir" not in archive.files:
        return position
    direction = _array(path, archive, "agent_dir")
    if direction.shape[1:] not in ((2,), (1,), ()):
        raise EpisodesError(f"{path}: agent_dir: expected (steps, 2) or (steps,), got {direction.shape}")
    heading = np.arctan2(direction[:, 1], direction[:, 0]) if direction.shape[1:] == (2,) else direction.reshape(-1)
    return np.concatenate([position, heading[:, None]], 1)
