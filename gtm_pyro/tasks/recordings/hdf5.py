"""HDF5 files in the layout of D4RL, and Minari data sets: actions are those taken at an observation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gtm_pyro.errors import EpisodesError, first_line
from gtm_pyro.tasks.recordings.actions import after_taken, as_actions, check_lengths, width
from gtm_pyro.tasks.recordings.base import Recorded, crc_of
from gtm_pyro.tasks.recordings.frames import Reshaping, as_bytes

_ENDS = ("terminals", "timeouts")
_IMAGES = ("pixels", "image", "rgb", "frame")


class Hdf5Recordings:
    """A file with ``observations``, ``actions``, ``terminals`` and ``timeouts``, each with one entry a step.

    ``actions[t]`` was taken at ``observations[t]`` and leads to the next one. An episode ends with a step at which
    ``terminals`` or ``timeouts`` say so; its last action led to an observation that was not kept.

    :param key: of the images, where ``observations`` holds several things.
    :raises EpisodesError: the file cannot be read, or lacks something.
    """

    pose_names: tuple[str, ...] | None = None

    def __init__(self, path: Path, reshape: Reshaping, key: str | None = None) -> None:
        import h5py

        self._path, self._reshape = path, reshape
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise EpisodesError(f"{path}: expected an HDF5 file ({first_line(error)})") from None
        self._frames = _images(path, self._dataset("observations"), key)
        self._actions = self._dataset("actions")
        steps = len(self._actions)
        check_lengths(str(path), len(self._frames), steps)
        self._bounds = _split(self._ends(steps))
        self.num_actions = width(self._actions[: self._bounds[0][1]])
        self.recipe: Mapping[str, Any] = {"source": str(path), "files": crc_of([path]), "key": key, **reshape.recipe}

    def __len__(self) -> int:
        return len(self._bounds)

    def name(self, number: int) -> str:
        return f"{self._path}, episode {number}"

    def episode(self, number: int) -> Recorded:
        start, stop = self._bounds[number]
        where = self.name(number)
        try:
            frames, taken = self._frames[start:stop], self._actions[start:stop]
        except OSError as error:
            raise EpisodesError(f"{where}: could not be read ({first_line(error)})") from None
        # the last action led to nothing that is here
        actions = after_taken(as_actions(where, taken))[:-1]
        return Recorded(self._reshape(as_bytes(where, frames)), actions)

    def _dataset(self, name: str) -> Any:
        if name not in self._file:
            raise EpisodesError(f"{self._path}: expected {name}, got {', '.join(self._file) or 'nothing'}")
        found = self._file[name]
        if 0 in getattr(found, "shape", (1,))[:1] or getattr(found, "shape", (1,)) == ():
            raise EpisodesError(f"{self._path}: {name}: expected an entry for each step, got none")
        return found

    def _ends(self, steps: int) -> np.ndarray:
        ends = np.zeros(steps, dtype=bool)
        found = [name for name in _ENDS if name in self._file]
        if not found:
            self._dataset(_ENDS[0])
        for name in found:
            marks = np.asarray(self._file[name]).reshape(-1).astype(bool)
            check_lengths(f"{self._path}, {name}", len(marks), steps)
            ends |= marks
        return ends


class MinariRecordings:
    """A Minari data set: each episode has one observation more than actions, and ``actions[t]`` leads to the next one.

    :param name: an id that is here or can be downloaded, or the folder of a data set.
    :param key: of the images, where an observation holds several things.
    :raises EpisodesError: there is no such data set, or its observations are no images.
    """

    pose_names: tuple[str, ...] | None = None

    def __init__(self, name: str, reshape: Reshaping, key: str | None = None) -> None:
        import minari

        self._name, self._reshape, self._key = name, reshape, key
        try:
            self._data = (
                minari.MinariDataset(Path(name) / "data") if Path(name).is_dir() else minari.load_dataset(name, True)
            )
        except Exception as error:  # of the file, of the network, of Minari
            raise EpisodesError(f"{name}: expected a Minari data set ({first_line(error)})") from error
        space = self._data.action_space
        self._first, count = int(getattr(space, "start", 0)), int(getattr(space, "n", 0))
        self.num_actions = count or None
        self.recipe: Mapping[str, Any] = {
            "source": name,
            "steps": int(self._data.total_steps),
            "key": key,
            **reshape.recipe,
        }

    def __len__(self) -> int:
        return int(self._data.total_episodes)

    def name(self, number: int) -> str:
        return f"{self._name}, episode {number}"

    def episode(self, number: int) -> Recorded:
        where = self.name(number)
        try:
            episode = self._data[number]
        except (OSError, KeyError, ValueError) as error:
            raise EpisodesError(f"{where}: could not be read ({first_line(error)})") from None
        frames = as_bytes(where, np.asarray(_images(where, episode.observations, self._key)))
        taken = np.asarray(episode.actions) - (self._first if self.num_actions else 0)
        actions = after_taken(as_actions(where, taken))
        check_lengths(where, len(frames), len(actions))
        return Recorded(self._reshape(frames), actions)


def _images(where: object, observations: Any, key: str | None) -> Any:
    """Of observations that hold several things, the images."""
    if not isinstance(observations, Mapping):
        return observations
    known = list(observations)
    found = [name for name in ([key] if key else _IMAGES) if name in known]
    if not found:
        expected = f"{key} in the observations" if key else "--key, which says where in the observations images are"
        raise EpisodesError(f"{where}: expected {expected}, got {', '.join(map(str, known))}")
    return observations[found[0]]


def _split(ends: np.ndarray) -> Sequence[tuple[int, int]]:
    edges = sorted({0, *(np.flatnonzero(ends) + 1).tolist(), len(ends)})
    return list(zip(edges, edges[1:], strict=False))
