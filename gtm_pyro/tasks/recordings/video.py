"""Videos with a file of actions beside each."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from gtm_pyro.errors import EpisodesError, first_line
from gtm_pyro.tasks.recordings.action_log import SUFFIXES, ActionLog, read_log
from gtm_pyro.tasks.recordings.actions import after_taken, as_actions, check_lengths
from gtm_pyro.tasks.recordings.base import Recorded, crc_of, need
from gtm_pyro.tasks.recordings.frames import Reshaping

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
_LATE = 1e-3  # seconds; times are written with few digits


class VideoRecordings:
    """Each video is one episode, with a step at each row of its log (``read_log`` says what is in one).

    The frame of a row is the one that is shown at its time, whatever the rate, turned upright as the file says. The
    row's action was taken then, and leads to the frame of the next row.

    :param files: videos, in their order; the log of each has its name and ends in .csv or .jsonl.
    :param log: of the only video, if it has another name.
    :param led: the action of a row led to its frame instead.
    :raises MissingDependencyError: PyAV is not installed.
    :raises EpisodesError: a video has no log, or it cannot be read.
    """

    def __init__(
        self, files: Sequence[Path], reshape: Reshaping, *, log: Path | None = None, led: bool = False
    ) -> None:
        need("av", "video", "reading videos")
        self._files, self._reshape, self._led = files, reshape, led
        self._logs = [read_log(log or _log_of(path)) for path in files]
        spelt = [entry.actions for entry in self._logs if not isinstance(entry.actions, np.ndarray)]
        self._names = sorted({name for names in spelt for name in names})
        if spelt and len(spelt) < len(self._logs):
            raise EpisodesError(f"{files[0].parent}: expected names of actions in all logs or in none")
        self.num_actions = len(self._names) or None
        known = {entry.pose_names for entry in self._logs}
        self.pose_names = known.pop() if len(known) == 1 else None
        logs = [entry.path for entry in self._logs]
        self.recipe: Mapping[str, Any] = {
            "source": str(files[0] if log else files[0].parent),
            "files": crc_of([*files, *logs]),
            "led": led,
            **reshape.recipe,
        }

    def __len__(self) -> int:
        return len(self._files)

    def name(self, number: int) -> str:
        return str(self._files[number])

    def episode(self, number: int) -> Recorded:
        where, log = self.name(number), self._logs[number]
        frames = np.stack(list(tqdm(_steps(where, log, self._reshape), desc=where, leave=False, disable=None)))
        actions = as_actions(str(log.path), log.numbered(self._names))
        check_lengths(where, len(frames), len(actions))
        if not self._led:
            actions = after_taken(actions)[:-1]  # the last one led to a frame of no row
        return Recorded(frames, actions, log.poses if self.pose_names else None)


def _log_of(path: Path) -> Path:
    found = [path.with_suffix(suffix) for suffix in SUFFIXES if path.with_suffix(suffix).is_file()]
    if not found:
        raise EpisodesError(f"{path}: expected its actions in {path.stem}.csv or {path.stem}.jsonl beside it")
    return found[0]


def _steps(where: str, log: ActionLog, reshape: Reshaping) -> Iterator[np.ndarray]:
    """The frame of each row: the last one that began by its time."""
    frames = _decoded(where)
    if log.times is None:
        yield from (reshape(pixels) for _, pixels in frames)
        return
    shown: tuple[float, np.ndarray] | None = None
    length = 0.0  # of a frame, in seconds or frames
    coming = next(frames, None)
    begin = coming[0] if coming and log.in_seconds else 0.0
    count = 0
    for step, time in enumerate(log.times):
        while coming is not None and (coming[0] - begin if log.in_seconds else count) <= time + _LATE:
            now = coming[0] - begin if log.in_seconds else float(count)
            length = max(length, now - shown[0]) if shown else 0.0
            shown, count, coming = (now, coming[1]), count + 1, next(frames, None)
        if shown is None or (coming is None and time > shown[0] + (1.5 * length if log.in_seconds else _LATE)):
            unit = f"{time:g} s" if log.in_seconds else f"number {time:g}"
            end = f"it ends at {shown[0]:g}" if shown else "it begins later"
            raise EpisodesError(f"{where}, step {step}: expected a frame at {unit}, {end}")
        yield reshape(shown[1])


def _decoded(where: str) -> Iterator[tuple[float, np.ndarray]]:
    """Time and pixels of each frame, as they are shown."""
    import av

    number = 0
    try:
        with av.open(where) as container:
            if not container.streams.video:
                raise EpisodesError(f"{where}: expected a video, got a file without one")
            stream = container.streams.video[0]
            for number, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt:
                    raise EpisodesError(f"{where}, frame {number}: expected a whole frame, got a damaged one")
                if frame.rotation % 90:
                    raise EpisodesError(
                        f"{where}: expected a rotation by quarters of a turn, got {frame.rotation} degrees"
                    )
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield float(frame.time or 0.0), pixels
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise EpisodesError(f"{where}, frame {number}: could not be read ({reason})") from None
