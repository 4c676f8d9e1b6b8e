"""Recordings become shards that ``SavedEpisodes`` reads; what is there already is kept."""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.storage.atomic import write_arrays, write_result
from gtm_pyro.storage.shards import SHARD_PATTERN
from gtm_pyro.tasks.recordings.base import Recorded, Recordings

PER_SHARD = 16
RECIPE = "import.json"
_MOST_BAD = 10  # that an error names


class Import:
    """An import of recordings into a folder.

    :param source: of the episodes.
    :param folder: a new or an empty one, or one that the same recipe has filled in part.
    :raises ConfigError: the folder holds something else.
    """

    def __init__(self, source: Recordings, folder: Path) -> None:
        self.source, self.folder = source, folder
        self._check_folder()
        self.missing = [number for number in range(-(-len(source) // PER_SHARD)) if not self._is_there(number)]
        self._like: tuple[Any, str] | None = None

    @property
    def num_kept(self) -> int:
        """Episodes that are there already."""
        return len(self.source) - sum(len(self._episodes_of(number)) for number in self.missing)

    def run(self, progress: Callable[[int], object]) -> None:
        """Write the shards that are missing.

        :param progress: is told how many more episodes were looked at.
        :raises EpisodesError: some episodes cannot be carried: names the first ten and says how many there are. The
            shards without any of them are written.
        """
        bad: list[str] = []
        if self.missing:
            content = json.dumps({"recipe": dict(self.source.recipe)}, indent=2) + "\n"
            write_result(self.folder / RECIPE, content.encode(), EpisodesError)
        for number in self.missing:
            before = len(bad)
            episodes = list(self._carried(number, bad, progress))
            if len(bad) == before:
                write_arrays(self._path(number), _arrays(episodes, self.source), EpisodesError, compressed=True)
        if len(bad) == 1:
            raise EpisodesError(bad[0])
        if bad:
            some = "" if len(bad) <= _MOST_BAD else ", the first ten of which are"
            raise EpisodesError(f"{len(bad)} episodes cannot be carried{some}: {'; '.join(bad[:_MOST_BAD])}")

    def _carried(self, number: int, bad: list[str], progress: Callable[[int], object]) -> Iterator[Recorded]:
        for episode in self._episodes_of(number):
            try:
                recorded = self.source.episode(episode)
                self._check_alike(recorded, self.source.name(episode))
                yield recorded
            except EpisodesError as error:
                name = self.source.name(episode)
                bad.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
            progress(1)

    def _check_alike(self, recorded: Recorded, name: str) -> None:
        poses = recorded.poses
        if poses is not None and not np.isfinite(poses).all():
            step = int(np.argwhere(~np.isfinite(poses))[0][0])
            raise EpisodesError(f"{name}, step {step}: expected a pose of finite numbers, got {poses[step].tolist()}")
        actions = "whole numbers" if recorded.actions.ndim == 1 else f"vectors of {recorded.actions.shape[1]}"
        kind = {"frames": recorded.frames.shape[1:], "actions": actions}
        self._like = self._like or (kind, name)
        expected, first = self._like
        for field, got in kind.items():
            if got != expected[field]:
                raise EpisodesError(f"{name}: {field}: expected {expected[field]} like {first}, got {got}")

    def _episodes_of(self, number: int) -> range:
        return range(number * PER_SHARD, min((number + 1) * PER_SHARD, len(self.source)))

    def _path(self, number: int) -> Path:
        return self.folder / f"episodes-{number:05d}.npz"

    def _is_there(self, number: int) -> bool:
        """Whether a shard is there with all of its episodes: fewer were asked for before, or it is damaged."""
        path = self._path(number)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return (
                    int(archive["is_first"].sum()) >= len(self._episodes_of(number)) and archive.zip.testzip() is None
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return False

    def _check_folder(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{self.folder}: expected a folder for shards, got a file")
        path = self.folder / RECIPE
        if not any(self.folder.glob(SHARD_PATTERN)):
            return  # what an import leaves of which nothing could be carried is written anew
        if not path.exists():
            raise ConfigError(f"{self.folder}: expected an empty folder, it holds shards of no import")
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: expected the recipe of an import ({error}); delete the folder") from None
        mine = json.loads(json.dumps(dict(self.source.recipe)))
        for name in {**theirs, **mine}:
            if theirs.get(name) != mine.get(name):
                raise ConfigError(
                    f"{self.folder}: expected another folder, for this one holds an import with {name} "
                    f"{theirs.get(name)}, not {mine.get(name)}"
                )


def _arrays(episodes: Sequence[Recorded], source: Recordings) -> dict[str, np.ndarray]:
    """Episodes one after another as one recording, as a shard holds it."""
    frames = np.concatenate([episode.frames for episode in episodes]).transpose(0, 3, 1, 2)
    actions = np.concatenate([episode.actions for episode in episodes])
    starts = np.cumsum([0, *(len(episode.frames) for episode in episodes[:-1])])
    is_first = np.zeros(len(frames), dtype=bool)
    is_first[starts] = True
    arrays = {"frames": frames[None], "is_first": is_first[None]}
    if actions.ndim == 1:
        arrays["actions"] = actions[None].astype(np.uint8 if actions.max() < 256 else np.int64)
        if source.num_actions is not None:
            arrays["num_actions"] = np.asarray(source.num_actions)
    else:
        arrays |= {"actions": actions[None], "continuous_actions": np.asarray(True)}
    if source.pose_names is not None:
        poses = [episode.poses for episode in episodes if episode.poses is not None]
        arrays["poses"] = np.concatenate(poses)[None].astype(np.float32)
        arrays["pose_names"] = np.asarray(source.pose_names)
    layouts = [episode.layout for episode in episodes if episode.layout is not None]
    if len(layouts) == len(episodes):  # in the order of is_first; reading ignores them
        arrays["layouts"] = np.stack(layouts)
    return arrays
