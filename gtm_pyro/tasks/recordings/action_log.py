"""A CSV or JSON Lines file of actions beside a video: one row a step."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gtm_pyro.errors import EpisodesError, first_line

SUFFIXES = (".csv", ".jsonl")
_POSE_NAMES = ("x", "y", "heading")


@dataclass(frozen=True)
class ActionLog:
    """What was done at each step.

    :param times: seconds since the first frame, or numbers of frames, one a row; None where rows are frames.
    :param in_seconds: whether these are seconds.
    :param actions: names, or numbers as of ``as_actions``, one a row.
    :param poses: columns x, y and perhaps heading, where the rows have them.
    """

    path: Path
    times: np.ndarray | None
    in_seconds: bool
    actions: Sequence[str] | np.ndarray
    poses: np.ndarray | None

    @property
    def pose_names(self) -> tuple[str, ...] | None:
        return None if self.poses is None else _POSE_NAMES[: self.poses.shape[1]]

    def numbered(self, names: Sequence[str]) -> np.ndarray:
        """The actions, names as their places in a list."""
        if isinstance(self.actions, np.ndarray):
            return self.actions
        return np.asarray([names.index(name) for name in self.actions])


def read_log(path: Path) -> ActionLog:
    """Columns ``action``, a number, a name or in JSON a vector, or several of ``action_...``, the numbers of a vector;
    ``time`` in seconds or ``frame``, which frame a row is at; and ``x``, ``y``, ``heading``, where the agent was.

    :raises EpisodesError: the file cannot be read, or lacks something; names the row, from 0.
    """
    rows = _rows(path)
    if len(rows) < 2:
        raise EpisodesError(f"{path}: expected at least 2 rows of actions, got {len(rows)}")
    columns = list(rows[0])
    parts = [name for name in columns if name.startswith("action_")]
    if "action" not in columns and not parts:
        raise EpisodesError(
            f"{path}: expected a column action, or several action_..., got {', '.join(map(str, columns))}"
        )
    clock = next((name for name in ("time", "frame") if name in columns), None)
    times = None if clock is None else _numbers(path, rows, [clock])[:, 0]
    if times is not None and (np.diff(times) <= 0).any():
        row = int(np.argmax(np.diff(times) <= 0)) + 1
        raise EpisodesError(f"{path}, row {row}: expected a {clock} over {times[row - 1]:g}, got {times[row]:g}")
    known = [name for name in _POSE_NAMES if name in columns]
    poses = _numbers(path, rows, known) if known in (["x", "y"], list(_POSE_NAMES)) else None
    actions = _actions(path, rows) if "action" in columns else _numbers(path, rows, parts)
    return ActionLog(path, times, clock == "time", actions, poses)


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                return list(csv.DictReader(file, skipinitialspace=True))
            rows = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise EpisodesError(f"{path}: expected rows of actions as CSV or JSON Lines ({first_line(error)})") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise EpisodesError(f"{path}, row {number}: expected an object, got {type(row).__name__}")
    return rows


def _numbers(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> np.ndarray:
    made = np.empty((len(rows), len(columns)))
    for number, row in enumerate(rows):
        for column, name in enumerate(columns):
            made[number, column] = value = _number(row.get(name))
            if not math.isfinite(value):
                raise EpisodesError(f"{path}, row {number}: {name}: expected a number, got {row.get(name)!r}")
    return made


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _actions(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str] | np.ndarray:
    values = [row.get("action") for row in rows]
    for number, value in enumerate(values):
        if value is None or value == "":
            raise EpisodesError(f"{path}, row {number}: action: expected a number, a name or a vector, got {value!r}")
    if isinstance(values[0], list):
        try:
            return np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise EpisodesError(f"{path}: action: expected vectors of {len(values[0])} numbers in each row") from None
    if any(not math.isfinite(_number(value)) for value in values):
        return [str(value) for value in values]
    numbers = _numbers(path, rows, ["action"])[:, 0]
    return numbers.astype(np.int64) if (numbers == numbers.round()).all() else numbers
