"""How long the windows of a training and of its evaluation are, where nobody says it: as the data's episodes allow.

What an experiment says is kept while it fits. Windows of a preset are shortened where another source of episodes was
asked for, in their proportion; those that were asked for themselves are left to be refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.said import Said
from gtm_pyro.storage.yaml import Raw
from gtm_pyro.tasks.base import EpisodeData, Split

LONGEST_OBSERVED, LONGEST_PREDICTED = 256, 64
WINDOW = ("num_observed", "num_predicted")
USUAL_STAGE, USUAL_EVALUATION = (256, 32), (256, 256)


class Room:
    """What lengths the episodes of a split have.

    :ivar longest: steps of the longest one.
    :ivar usual: steps that three quarters of them have.
    """

    def __init__(self, data: EpisodeData, split: Split, lengths: Sequence[int]) -> None:
        self.data, self.split = data, split
        ordered = sorted(lengths)
        self.longest, self.usual = ordered[-1], ordered[len(ordered) // 4]

    def __str__(self) -> str:
        length = f"{self.longest}" if self.usual == self.longest else f"{self.usual} to {self.longest}"
        return f"episodes to {self.split} on have {length} steps"

    @classmethod
    def of(cls, data: EpisodeData, split: Split) -> "Room | None":
        """None for a source that makes episodes of any length."""
        lengths = getattr(data, "lengths", None)
        found = lengths.get(split) if isinstance(lengths, Mapping) else None
        return cls(data, split, found) if found else None

    def fits(self, num_observed: int, num_predicted: int) -> bool:
        """Whether an episode is long enough, and may be memorised so far."""
        if num_observed + num_predicted > self.longest:
            return False
        count = getattr(self.data, "num_fitting", None)
        if count is None:
            return True
        try:
            return bool(count(num_observed, num_predicted, self.split))
        except ConfigError:
            return False

    def window(self, num_observed: int | None = None, num_predicted: int | None = None) -> tuple[int, int]:
        """A window of usual episodes: what is given stays, the rest is two parts memorised and one predicted."""
        predicted = num_predicted or max(1, min(LONGEST_PREDICTED, self.usual // 3))
        if num_observed is not None:
            return num_observed, num_predicted or max(1, min(predicted, self.longest - num_observed))
        room = self.usual if self.usual > predicted else self.longest
        observed = max(1, min(LONGEST_OBSERVED, room - predicted))
        while observed > 1 and not self.fits(observed, predicted):  # shards may say how far to memorise
            observed -= 1
        return observed, predicted

    def shortened(self, num_observed: int, num_predicted: int) -> tuple[int, int]:
        """A window that does not fit, in its proportion."""
        observed = max(1, round(num_observed * self.usual / (num_observed + num_predicted)))
        return self.window(None, max(1, self.usual - observed))


def stages_on(
    said: Said, raw: Raw, overrides: Mapping[str, str], data: EpisodeData
) -> tuple[list[Any] | None, list[str]]:
    """The stages with windows that the data has, None where they are as they should be; and what was done, in lines."""
    room, stages = Room.of(data, "train"), given_stages(raw, overrides)
    if room is None or not stages or not all(isinstance(stage, dict) for stage in stages):
        return None, []
    notes, changed = [], []
    for number, stage in enumerate(stages, 1):
        asked = [stage.get(name) for name in WINDOW]
        got = _fitted(room, asked, USUAL_STAGE, swapped=said.swaps("data") and "stages" not in said.asked)
        changed.append(stage if got is None else stage | dict(zip(WINDOW, got, strict=True)))
        if got is not None:
            notes.append(_note(f"stage {number}", room, asked, got))
    return (changed if notes else None), notes


def evaluation_on(said: Said, last: tuple[int, int] | None, data: EpisodeData) -> tuple[dict[str, str], list[str]]:
    """The window of the evaluation, where it is not said or the data has no such episodes.

    :param last: the window of the last stage, whose memorised steps an evaluation takes over.
    """
    room = Room.of(data, "test")
    if room is None:
        return {}, []
    names = [f"evaluation.{name}" for name in WINDOW]
    asked = [said.values.get(name) for name in names]
    swapped = said.swaps("data") and not said.asked & set(names)
    got = _fitted(room, asked, USUAL_EVALUATION, swapped)
    if got is None:
        return {}, []
    if asked == [None, None] and last is not None and last[0] < room.usual:
        got = last[0], min(LONGEST_OBSERVED, room.usual - last[0])
    chosen = {name: str(value) for name, value in zip(names, got, strict=True)}
    return chosen, [_note("evaluation", room, asked, got)]


def given_stages(raw: Raw, overrides: Mapping[str, str]) -> Any:
    """The stages as they are declared: a list of mappings, if they are sound; None if there are none."""
    text = overrides.get("stages")
    if text is None:
        return raw.get("stages")
    try:
        found = yaml.safe_load(text)
        return yaml.safe_load(Path(found).read_text(encoding="utf-8")) if isinstance(found, str) else found
    except (OSError, ValueError, yaml.YAMLError):
        return []


def _fitted(room: Room, asked: Sequence[Any], usual: tuple[int, int], swapped: bool) -> tuple[int, int] | None:
    """Another window, where one is needed.

    :param usual: what stands for a number that is not said, where that fits.
    """
    if not all(type(number) in (int, type(None)) for number in asked):  # jsonargparse tells
        return None
    filled = tuple(mine or theirs for mine, theirs in zip(asked, usual, strict=True))
    if room.fits(*filled):
        return None
    if None in asked:
        return room.window(*asked)
    return room.shortened(*filled) if swapped else None


def _note(what: str, room: Room, asked: Sequence[Any], got: tuple[int, int]) -> str:
    was = "" if None in asked else f", not {asked[0]} + {asked[1]}"
    return f"{what}: {got[0]} steps memorised and {got[1]} predicted{was}, for {room}"
