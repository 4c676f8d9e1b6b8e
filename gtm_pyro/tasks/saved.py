"""Episodes from NPZ shards: a user's own videos, imported recordings, or what ``save_shards`` wrote."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from gtm_pyro.episodes import Episodes, episodes_from_arrays
from gtm_pyro.errors import ConfigError, EpisodesError, Together
from gtm_pyro.poses.conventions import check_readings
from gtm_pyro.storage.progress import watched
from gtm_pyro.storage.shards import declared, find_shards, read_layouts, read_shard
from gtm_pyro.tasks.base import Split, check_request, seeded_generator

logger = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where an episode is: steps start to stop - 1 of one recording, a row of a shard.

    :ivar number: of the episode in its shard.
    """

    shard: int
    row: int
    start: int
    stop: int
    number: int


class SavedEpisodes:
    """Random windows of recorded episodes, the last of which are kept for testing.

    A recording, one row of a shard, holds one episode or several: its ``is_first`` says where others start. No window
    crosses from one to the next. Episodes too short for a window are left out, and how many is told to the log.
    A shard's ``num_observed`` says which steps are for memorising: no window memorises a later one. Without it all are.

    :param directory: a folder of NPZ shards (``Episodes.load`` says what is in one); shards may differ in their number
        of recordings and of steps. They are held in memory as stored, uint8 at a byte a value.
    :param test_fraction: share of the episodes, the last ones in the order of the shards' names, that are for testing,
        at least one on each side; with 1 all are. A lone episode is cut in two.
    :param action_names: one name for each number of an action; by default "action 0", "action 1", ...
    :param pose_names: what the columns of poses are, as of :class:`Episodes`, for shards that do not say.
    :param continuous_actions: whether actions are numbers or one-hot, likewise.
    :param num_actions: how many actions there are where they are whole numbers, likewise; by default as many as the
        largest of all says.
    :param from_start: take windows from the beginnings of episodes alone. Models let every window start at the origin,
        so those from mid-episode are told to the log.
    :raises EpisodesError: a shard is damaged, holds a bad value, or disagrees with the first one; all actions are 0;
        headings are in degrees; or there is but one episode of one step. Names the file, the array, what was expected
        and what came.
    :raises ConfigError: test_fraction or action_names do not fit.
    :ivar lengths: for each split, the steps of each of its episodes.
    :ivar pose_names: as the shards or the argument say; None without poses, or with poses that are positions alone.
    :ivar num_actions: None if actions are vectors.
    """

    def __init__(
        self,
        directory: str,
        *,
        test_fraction: float = 0.2,
        action_names: Sequence[str] | None = None,
        pose_names: Sequence[str] | None = None,
        continuous_actions: bool | None = None,
        num_actions: int | None = None,
        from_start: bool = False,
    ) -> None:
        if not 0 < test_fraction <= 1:
            raise ConfigError(f"test_fraction: expected over 0 and at most 1, got {test_fraction}")
        self.directory = directory
        self.test_fraction, self.from_start = float(test_fraction), from_start
        self._shards: list[dict[str, np.ndarray]] = []
        self._observed: list[int] = []
        self._told: set[object] = set()
        places: list[_Place] = []
        first: Episodes | None = None
        doubts: dict[str, str] = {}
        acting, number = False, 0
        paths, problems = find_shards(directory), Together()
        self._paths = paths
        for path in watched(paths, "reading shards", "shard", len(paths)):
            with problems.one():
                source = f"{path}: "
                arrays = declared(
                    read_shard(path),
                    source,
                    pose_names=pose_names,
                    continuous_actions=continuous_actions,
                    num_actions=num_actions,
                )
                episodes = episodes_from_arrays(arrays, source=source)
                first = first or episodes[0]
                said = (arrays if not self._shards else self._shards[0]).get("num_actions")
                _check_alike(source, episodes, first, None if said is None else int(said))
                if len(self._shards) < _ASKED[0]:
                    doubts = _doubt(source, episodes) | doubts
                acting = acting or bool(episodes.actions.any())
                number = max(number, episodes.num_actions or 0)
                places += [_Place(len(self._shards), *where, i) for i, where in enumerate(_segments(episodes))]
                self._observed.append(episodes.num_observed)
                self._shards.append({name: array for name, array in arrays.items() if name != "num_observed"})
        problems.tell()
        assert first is not None  # find_shards never returns an empty list, and problems were told
        for doubt, source in doubts.items():
            logger.warning("%s%s (docs/your_data.md says how)", source, doubt)
        if not acting:
            raise EpisodesError(f"{directory}: actions: expected some that are not 0, got zeros throughout")
        self.pose_names, self.has_heading = first.pose_names, first.has_heading
        self.frame_shape = first.frame_shape
        self.num_actions = number or None
        self.action_dim = number or first.action_dim
        self.action_names = tuple(action_names or (f"action {i}" for i in range(self.action_dim)))
        if len(self.action_names) != self.action_dim:
            raise ConfigError(f"action_names: expected {self.action_dim} names, got {len(self.action_names)}")
        if len(places) == 1 and test_fraction < 1:
            places = _cut_in_two(directory, places[0], test_fraction)
        # with a fraction under 1, at least one on each side
        num_test = min(math.ceil(test_fraction * len(places)), len(places) - (test_fraction < 1))
        first_test = len(places) - num_test
        self._places: dict[Split, list[_Place]] = {"train": places[:first_test], "test": places[first_test:]}
        self.lengths: dict[Split, tuple[int, ...]] = {
            split: tuple(place.stop - place.start for place in of_split) for split, of_split in self._places.items()
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

        :raises ConfigError: no episode of the split is long enough, or has as many steps for memorising.
        """
        length = num_observed + num_predicted
        windows: dict[str, list[np.ndarray]] = {name: [] for name in self._shards[0] if name not in _OF_ALL}
        for place, start in self._drawn(batch_size, num_observed, num_predicted, seed, split):
            for name, parts in windows.items():
                array = self._shards[place.shard][name][place.row]
                parts.append(array if name == "worlds" else array[start : start + length])
        stacked = {name: np.stack(_of_one_kind(name, parts)) for name, parts in windows.items()}
        stacked |= {name: self._shards[0][name] for name in _DECLARED if name in self._shards[0]}
        if self.num_actions is not None:
            stacked["num_actions"] = np.asarray(self.num_actions)
        stacked["num_observed"] = np.asarray(num_observed)
        # as bytes to the device, and floats there
        return episodes_from_arrays(stacked, validate=False).to(device).to(torch.get_default_dtype())

    def layouts(
        self, batch_size: int, *, num_observed: int, num_predicted: int, seed: int, split: Split = "train"
    ) -> list[np.ndarray | None]:
        """Which cells are free in the worlds of the episodes that :meth:`sample` draws with the same arguments.

        :returns: ``(rows, columns)`` each, as ``gtm-pyro data import`` keeps them; None where a shard has none.
        """
        drawn = [place for place, _ in self._drawn(batch_size, num_observed, num_predicted, seed, split)]
        known = {shard: read_layouts(self._paths[shard]) for shard in {place.shard for place in drawn}}
        found: list[np.ndarray | None] = []
        for place in drawn:
            of_shard = known[place.shard]
            inside = of_shard is not None and place.number < len(of_shard)
            found.append(of_shard[place.number] if of_shard is not None and inside else None)
        return found

    def _drawn(
        self, batch_size: int, num_observed: int, num_predicted: int, seed: int, split: Split
    ) -> Iterator[tuple[_Place, int]]:
        """The episodes and the first steps of windows."""
        check_request(batch_size, num_observed, num_predicted, split)
        generator = seeded_generator(seed, split)
        counts = self._windows(num_observed, num_predicted, split)
        self._tell(counts, num_observed + num_predicted, split, batch_size)
        fitting = counts.nonzero()[0]
        for choice in torch.randint(len(fitting), (batch_size,), generator=generator).tolist():
            place = self._places[split][fitting[choice]]
            yield place, place.start + int(torch.randint(int(counts[fitting[choice]]), (), generator=generator))

    def num_fitting(self, num_observed: int, num_predicted: int, split: Split = "train") -> int:
        """How many episodes of a split are long enough for such a window; the others are never drawn from.

        :raises ConfigError: none is.
        """
        return int(np.count_nonzero(self._windows(num_observed, num_predicted, split)))

    def mid_episode_share(self, num_observed: int, num_predicted: int, split: Split = "train") -> float:
        """The share of windows that do not start where their episode does.

        :raises ConfigError: as of :meth:`sample`.
        """
        counts = self._windows(num_observed, num_predicted, split)
        return float((1 - 1 / counts[counts > 0]).mean())

    def _windows(self, num_observed: int, num_predicted: int, split: Split) -> np.ndarray:
        """For each episode of a split, how many windows it has.

        :raises ConfigError: none has any.
        """
        length = num_observed + num_predicted
        steps = np.asarray(self.lengths[split], dtype=np.int64)
        # of each episode, the steps that are for memorising
        kept = np.asarray([self._observed[p.shard] - p.start for p in self._places[split]], dtype=np.int64)
        longest = max(self.lengths[split], default=0)
        if longest < length:
            raise ConfigError(
                f"num_observed + num_predicted: expected at most {longest} steps, the longest {split} "
                f"episode of {self.directory}, got {length}"
            )
        last = np.minimum(steps - length, kept - num_observed)
        if last.max() < 0:
            most = np.minimum(kept, steps)[steps >= length].max()
            raise ConfigError(
                f"num_observed: expected at most {most}, for the shards of {self.directory} say num_observed={most}, "
                f"got {num_observed}; save them with a larger one, or none, to memorise more"
            )
        return (last + 1).clip(0, 1 if self.from_start else None)

    def _tell(self, counts: np.ndarray, length: int, split: Split, drawn: int) -> None:
        """What is not as one may think of the windows that are drawn, once."""
        if split == "test" and drawn > (number := int(counts.sum())) and ("drawn again", number) not in self._told:
            self._told.add(("drawn again", number))
            logger.warning(
                "%s: %d windows are drawn to test on, of %d that there are, of %d steps each in %d episodes: "
                "some more than once, which makes no number more certain",
                self.directory, drawn, number, length, (counts > 0).sum(),
            )  # fmt: skip
        short = int((counts == 0).sum())
        if short and (split, short) not in self._told:
            self._told.add((split, short))
            logger.warning(
                "%s: %d of %d %s episodes are left out, they are too short for %d steps",
                self.directory, short, len(counts), split, length,
            )  # fmt: skip
        if (counts > 1).any() and "mid-episode" not in self._told:
            self._told.add("mid-episode")
            share = float((1 - 1 / counts[counts > 0]).mean())
            logger.warning(
                "%s: %.1f%% of windows of %d steps start in mid-episode, where positions do not begin at the origin; "
                "walls and maps that episodes share are blurred by that; --data.from_start true leaves them out",
                self.directory, 100 * share, length,
            )  # fmt: skip


_ASKED = (8, 16, 500)  # shards, episodes of each and their steps that tell how poses and actions are meant
_DECLARED = ("pose_names", "continuous_actions")  # one for all episodes
_OF_ALL = (*_DECLARED, "num_actions", "is_first")  # in no window


def _of_one_kind(name: str, windows: list[np.ndarray]) -> list[np.ndarray]:
    """Bytes as floats where other shards hold floats."""
    if name in ("frames", "worlds") and len({window.dtype for window in windows}) > 1:
        return [window / np.float32(255) if window.dtype == np.uint8 else window for window in windows]
    return windows


def _cut_in_two(directory: str, place: _Place, test_fraction: float) -> list[_Place]:
    """The beginning of a lone episode, to train on, and its end, to test on."""
    steps = place.stop - place.start
    if steps < 2:
        raise EpisodesError(
            f"{directory}: expected at least two steps, one to train on and one to test on, "
            "got one; test_fraction=1 makes it a test episode"
        )
    cut = place.stop - min(math.ceil(test_fraction * steps), steps - 1)
    logger.warning("%s: the last %d steps of the only episode are for testing", directory, place.stop - cut)
    return [place._replace(stop=cut), place._replace(start=cut)]


def _segments(episodes: Episodes) -> Iterator[tuple[int, int, int]]:
    """Row, start and stop of each episode of some recordings."""
    for row in range(episodes.batch_size):
        inner = [] if episodes.is_first is None else episodes.is_first[row, 1:].nonzero().flatten().add(1).tolist()
        bounds = [0, *inner, episodes.num_steps]
        yield from ((row, *pair) for pair in zip(bounds, bounds[1:], strict=False))


def _doubt(source: str, episodes: Episodes) -> dict[str, str]:
    """What seems to be meant in another way, and the shard; each doubt is said of the first shard alone."""
    if episodes.poses is None:
        return {}
    _, most, steps = _ASKED
    segments = list(_segments(episodes))
    # half of the episodes, as far as all of these go
    steps = min(steps, sorted(stop - start for _, start, stop in segments)[len(segments) // 2])
    some = [(row, start) for row, start, stop in segments if stop - start >= steps][:most]
    poses, actions = (
        torch.stack([x[row, t : t + steps] for row, t in some]) for x in (episodes.poses, episodes.actions)
    )
    try:
        doubt = check_readings(poses, actions, episodes.has_heading)
    except EpisodesError as error:
        raise EpisodesError(f"{source}{error}") from None
    return {} if doubt is None else {doubt: source}


def _check_alike(source: str, episodes: Episodes, first: Episodes, num_actions: int | None) -> None:
    """
    :param num_actions: that the first shard says; without it, whole numbers may go up to any.
    """
    free = num_actions is None and episodes.num_actions is not None and first.num_actions is not None
    pairs = {
        "frames": (first.frame_shape, episodes.frame_shape),
        "actions": (0, 0) if free else (first.action_dim, episodes.action_dim),
        "num_actions": (None, None) if free else (first.num_actions, episodes.num_actions),
        "poses": tuple(None if e.poses is None else e.poses.shape[2] for e in (first, episodes)),
        "worlds": tuple(None if e.worlds is None else tuple(e.worlds.shape[1:]) for e in (first, episodes)),
        "pose_names": (first.pose_names, episodes.pose_names),
        "continuous_actions": (first.continuous_actions, episodes.continuous_actions),
    }
    for name, (expected, got) in pairs.items():
        if expected != got:
            raise EpisodesError(f"{source}{name}: expected {expected} like the first shard, got {got}")
