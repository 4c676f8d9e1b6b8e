"""Folders of episodes."""

import os
from pathlib import Path

from gtm_pyro.episodes.batch import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.storage.shards import SHARD_PATTERN


def save_shards(episodes: Episodes, directory: str | os.PathLike[str], shard_size: int = 64) -> list[Path]:
    """Write episodes as NPZ shards of at most ``shard_size`` episodes each, and return their paths.

    :raises EpisodesError: the folder holds shards already (two data sets would mix), or cannot be written; then none of
        these shards stays.
    """
    directory = Path(directory)
    if shard_size < 1:
        raise EpisodesError(f"shard_size: expected at least 1, got {shard_size}")
    if directory.is_dir() and any(directory.glob(SHARD_PATTERN)):
        raise EpisodesError(f"{directory}: expected a folder without {SHARD_PATTERN} files, it holds some")
    paths: list[Path] = []
    try:
        for number, start in enumerate(range(0, episodes.batch_size, shard_size)):
            path = directory / f"episodes-{number:05d}.npz"
            episodes[start : start + shard_size].save(path)
            paths.append(path)
    except BaseException:  # a part of a data set would pass for the whole
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return paths
