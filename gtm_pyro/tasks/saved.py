"""Episodes from NPZ shards: a user's own videos, or what ``save_shards`` wrote."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch

from gtm_pyro.episodes import Episodes, episodes_from_arrays
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.poses.conventions import check_readings
from gtm_pyro.storage.shards import declared, find_shards, read_shard
from gtm_pyro.tasks.base import Split, check_request, seeded_generator

logger = logging.getLogger(__name__)


class SavedEpisodes:
    """Random windows of recorded episodes, the last of which are kept for testing.

    A shard's ``num_observed`` says which steps are for memorising: no window memorises a later one. Without it all are.

    :param directory: a folder of NPZ shards (``Episodes.load`` says what is in one); shards may differ in their number
        of episodes and of steps. They are held in memory as stored, uint8 at a byte a value.
    :param test_fraction: share of the episodes, the last ones in the order of the shards' names, that are for testing,
        at least one on each side; with 1 all are.
    :param action_names: one name for each number of an action; by default "action 0", "action 1", ...
    :param pose_names: what the columns of poses are, as of :class:`Episodes`, for shards that do not say.
    :param continuous_actions: whether actions are numbers or one-hot, likewise.
    :param from_start: take windows from the beginnings of episodes alone. Models let every window start at the origin,
        so those from mid-episode are told to the log.
    :raises EpisodesError: a shard is damaged, holds a bad value, or disagrees with the first one; all actions are 0;
        headings are in degrees; or there is but one episode. Names the file, the array, what was expected and what
        came.
    :raises ConfigError: test_fraction or action_names do not fit.
    :ivar lengths: for each split, the steps of each of its episodes.
    :ivar pose_names: as the shards or the argument say; None without poses, or with poses that are positions alone.
    """

    def __init__(
        self,
        directory: str,
        *,
        test_fraction: float = 0.2,
        action_names: Sequence[str] | None = None,
        pose_names: Sequence[str] | None = None,
        continuous_actions: bool | None = None,
        from_start: bool = False,
    ) -> None:
        if not 0 < test_fraction <= 1:
            raise ConfigError(f"test_fraction: expected over 0 and at most 1, got {test_fraction}")
        self.directory = directory
        self.test_fraction, self.from_start = float(test_fraction), from_start
        self._shards: list[dict[str, np.ndarray]] = []
        self._observed: list[int] = []
        first: Episodes | None = None
        doubts: dict[str, str] = {}
        acting = False
        for path in find_shards(directory):
            source = f"{path}: "
            arrays = declared(read_shard(path), source, pose_names, continuous_actions)
            episodes = episodes_from_arrays(arrays, source=source)
            first = first or episodes[0]
            _check_alike(source, episodes, first)
            if len(self._shards) < _ASKED[0]:
                doubts = _doubt(source, episodes) | doubts
            acting = acting or bool(episodes.actions.any())
            self._observed.append(episodes.num_observed)
            self._shards.append({name: array for name, array in arrays.items() if name != "num_observed"})
        assert first is not None  # find_shards never returns an empty list
        for doubt, source in doubts.items():
            logger.warning("%s%s (docs/your_data.md says how)", source, doubt)
        if not acting:
            raise EpisodesError(f"{directory}: actions: expected some that are not 0, got zeros throughout")
        self._told = False
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
        self.lengths: dict[Split, tuple[int, ...]] = {
            split: tuple(self._shards[shard]["frames"].shape[1] for shard, _ in episodes)
            for split, episodes in self._episodes.items()
        }
        self.pose_names, self.has_heading = first.pose_names, first.has_heading

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

        :raises ConfigError: no episode of the split is long enough, or has as many steps for memorising.
        """
        check_request(batch_size, num_observed, num_predicted, split)
        generator = seeded_generator(seed, split)
        length = num_observed + num_predicted
        starts = self._starts(num_observed, num_predicted, split)
        if not self._told and any(count > 1 for count in starts.values()):
            self._told = True
            logger.warning(
                "%s: %.1f%% of windows of %d steps start in mid-episode, where positions do not begin at the origin; "
                "walls and maps that episodes share are blurred by that; --data.from_start true leaves them out",
                self.directory, 100 * self.mid_episode_share(num_observed, num_predicted, split), length,
            )  # fmt: skip
        fitting = [(shard, row) for shard, row in self._episodes[split] if starts[shard]]
        windows: dict[str, list[np.ndarray]] = {name: [] for name in self._shards[0] if name not in _OF_ALL}
        for choice in torch.randint(len(fitting), (batch_size,), generator=generator).tolist():
            shard, row = fitting[choice]
            offset = int(torch.randint(starts[shard], (), generator=generator))
            for name, parts in windows.items():
                array = self._shards[shard][name][row]
                parts.append(array if name == "worlds" else array[offset : offset + length])
        stacked = {name: np.stack(parts) for name, parts in windows.items()}
        stacked |= {name: self._shards[0][name] for name in _OF_ALL if name in self._shards[0]}
        stacked["num_observed"] = np.asarray(num_observed)
        return episodes_from_arrays(stacked, validate=False).to(torch.get_default_dtype()).to(device)

    def num_fitting(self, num_observed: int, num_predicted: int, split: Split = "train") -> int:
        """How many episodes of a split are long enough for such a window; the others are never drawn from.

        :raises ConfigError: none is.
        """
        starts = self._starts(num_observed, num_predicted, split)
        return sum(1 for shard, _ in self._episodes[split] if starts[shard])

    def mid_episode_share(self, num_observed: int, num_predicted: int, split: Split = "train") -> float:
        """The share of windows that do not start where their episode does.

        :raises ConfigError: as of :meth:`sample`.
        """
        starts = self._starts(num_observed, num_predicted, split)
        shares = [1 - 1 / starts[shard] for shard, _ in self._episodes[split] if starts[shard]]
        return sum(shares) / len(shares)

    def _starts(self, num_observed: int, num_predicted: int, split: Split) -> dict[int, int]:
        """For each shard of a split, how many windows an episode has.

        :raises ConfigError: none has any.
        """
        length = num_observed + num_predicted
        used = sorted({shard for shard, _ in self._episodes[split]})
        steps = {shard: self._shards[shard]["frames"].shape[1] for shard in used}
        longest = max(steps.values(), default=0)
        if longest < length:
            raise ConfigError(
                f"num_observed + num_predicted: expected at most {longest} steps, the longest {split} "
                f"episode of {self.directory}, got {length}"
            )
        last = {shard: min(steps[shard] - length, self._observed[shard] - num_observed) for shard in used}
        if max(last.values()) < 0:
            most = max(self._observed[shard] for shard in used if steps[shard] >= length)
            raise ConfigError(
                f"num_observed: expected at most {most}, for the shards of {self.directory} say num_observed={most}, "
                f"got {num_observed}; save them with a larger one, or none, to memorise more"
            )
        most_windows = 1 if self.from_start else max(steps.values())
        return {shard: min(max(place + 1, 0), most_windows) for shard, place in last.items()}


_ASKED = (8, 16, 500)  # shards, episodes of each and their steps that tell how poses and actions are meant
_OF_ALL = ("pose_names", "continuous_actions")  # one for all episodes


def _doubt(source: str, episodes: Episodes) -> dict[str, str]:
    """What seems to be meant in another way, and the shard; each doubt is said of the first shard alone."""
    if episodes.poses is None:
        return {}
    _, most, steps = _ASKED
    some = episodes[:most].steps(0, min(steps, episodes.num_steps), num_observed=1)
    assert some.poses is not None
    try:
        doubt = check_readings(some.poses, some.actions, some.has_heading)
    except EpisodesError as error:
        raise EpisodesError(f"{source}{error}") from None
    return {} if doubt is None else {doubt: source}


def _check_alike(source: str, episodes: Episodes, first: Episodes) -> None:
    pairs = {
        "frames": (first.frame_shape, episodes.frame_shape),
        "actions": (first.action_dim, episodes.action_dim),
        "poses": tuple(None if e.poses is None else e.poses.shape[2] for e in (first, episodes)),
        "worlds": tuple(None if e.worlds is None else tuple(e.worlds.shape[1:]) for e in (first, episodes)),
        "pose_names": (first.pose_names, episodes.pose_names),
        "continuous_actions": (first.continuous_actions, episodes.continuous_actions),
    }
    for name, (expected, got) in pairs.items():
        if expected != got:
            raise EpisodesError(f"{source}{name}: expected {expected} like the first shard, got {got}")
