"""Episodes from NPZ shards: a user's own videos, or what ``save_shards`` wrote."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from gtm_pyro.data.base import Split, check_request, seeded_generator
from gtm_pyro.episodes import Episodes, episodes_from_arrays, find_shards, read_shard
from gtm_pyro.errors import ConfigError, EpisodesError


class SavedEpisodes:
    """Random windows of recorded episodes, the last of which are kept for testing.

    :param directory: a folder of NPZ shards (``Episodes.load`` says what is in one); shards may differ in their number
        of episodes and of steps. They are held in memory as stored, uint8 at a byte a value.
    :param test_fraction: share of the episodes, the last ones in the order of the shards' names, that are for testing,
        at least one on each side; with 1 all are.
    :param action_names: one name for each number of an action; by default "action 0", "action 1", ...
    :raises EpisodesError: a shard is damaged, holds a bad value, or disagrees with the first one; or there is but one
        episode. Names the file, the array, what was expected and what came.
    :raises ConfigError: test_fraction or action_names do not fit.
    """

    def __init__(
        self, directory: str, *, test_fraction: float = 0.2, action_names: Sequence[str] | None = None
    ) -> None:
        if not 0 < test_fraction <= 1:
            raise ConfigError(f"test_fraction: expected over 0 and at most 1, got {test_fraction}")
        self.directory = directory
        self.test_fraction = float(test_fraction)
        self._shards: list[dict[str, np.ndarray]] = []
        first: Episodes | None = None
        for path in find_shards(directory):
            arrays = read_shard(path)
            episodes = episodes_from_arrays(arrays, source=f"{path}: ")
            first = first or episodes[0]
            _check_alike(f"{path}: ", episodes, first)
            self._shards.append({name: array for name, array in arrays.items() if name != "num_observed"})
        assert first is not None  # find_shards never returns an empty list
        self.frame_shape = first.frame_shape
        self.action_dim = first.action_dim
        self.action_names = tuple(action_names or (f"action {i}" for i in range(self.action_dim)))
        if len(self.action_names) != self.action_dim:
            raise ConfigError(f"action_names: expected {self.action_dim} names, got {len(self.action_names)}")
        where = [(s, row) for s, arrays in enumerate(self._shards) for row in range(len(arrays["frames"]))]
        num_test = len(where)
        if test_fraction < 1:
            if len(where) < 2:
                raise EpisodesError(
                    f"{directory}: expected at least two episodes, one to train on and one to test on, "
                    "got one; test_fraction=1 makes it a test episode"
                )
            num_test = min(math.ceil(test_fraction * len(where)), len(where) - 1)
        first_test = len(where) - num_test
        self._episodes: dict[Split, list[tuple[int, int]]] = {
            "train": where[:first_test],
            "test": where[first_test:],
        }

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
        """Draw windows of num_observed + num_predicted steps, see ``EpisodeData.sample``.

        Every episode that is long enough is equally likely, and so is every window of it. A window may start
        in mid-episode; its first action is then ignored like any first one.

        :raises ConfigError: no episode of the split is long enough.
        """
        check_request(batch_size, num_observed, num_predicted, split)
        generator = seeded_generator(seed, split)
        length = num_observed + num_predicted
        lengths = {shard: self._shards[shard]["frames"].shape[1] for shard, _ in self._episodes[split]}
        fitting = [(shard, row) for shard, row in self._episodes[split] if lengths[shard] >= length]
        if not fitting:
            longest = max(lengths.values(), default=0)
            raise ConfigError(
                f"num_observed + num_predicted: expected at most {longest} steps, the longest {split} "
                f"episode of {self.directory}, got {length}"
            )
        windows: dict[str, list[np.ndarray]] = {name: [] for name in self._shards[0]}
        for choice in torch.randint(len(fitting), (batch_size,), generator=generator).tolist():
            shard, row = fitting[choice]
            offset = int(torch.randint(lengths[shard] - length + 1, (), generator=generator))
            for name, parts in windows.items():
                array = self._shards[shard][name][row]
                parts.append(array if name == "worlds" else array[offset : offset + length])
        stacked = {name: np.stack(parts) for name, parts in windows.items()}
        stacked["num_observed"] = np.asarray(num_observed)
        return episodes_from_arrays(stacked, validate=False).to(torch.get_default_dtype()).to(device)


def _check_alike(source: str, episodes: Episodes, first: Episodes) -> None:
    pairs = {
        "frames": (first.frame_shape, episodes.frame_shape),
        "actions": (first.action_dim, episodes.action_dim),
        "poses": tuple(None if e.poses is None else e.poses.shape[2] for e in (first, episodes)),
        "worlds": tuple(None if e.worlds is None else tuple(e.worlds.shape[1:]) for e in (first, episodes)),
    }
    for name, (expected, got) in pairs.items():
        if expected != got:
            raise EpisodesError(f"{source}{name}: expected {expected} for each step like the first shard, got {got}")
