"""What a source of episodes is, what a task says of its episodes, and how a seed becomes random draws.

A source gives episodes and knows no measure. The task beside it says what is measured, drawn and said of them: a class
attribute ``task`` of the source names it, "my_module.MyTask", or else ``gtm_pyro.tasks.general.GeneralTask`` serves it.
"""

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_whole

Split = Literal["train", "test"]
Source = Callable[[str], torch.Generator]  # a stream of its own for each purpose


@runtime_checkable
class EpisodeData(Protocol):
    """A source of episodes. Anything with these members can be trained on; no base class is needed.

    A source may also say what counts as one place when predictions are measured: ``cell_size``, in pose units, or for
    poses with a heading ``view_tolerance``, in pose units and radians. Otherwise it is read off the poses. Where
    episodes have an end, ``lengths`` may hold their numbers of steps by split, which windows are then chosen by.

    :ivar action_names: one name for each action, or for each number of a continuous action.
    :ivar action_dim: the last axis of an episode's actions.
    :ivar frame_shape: (channels, height, width).
    """

    @property
    def action_names(self) -> tuple[str, ...]: ...

    @property
    def action_dim(self) -> int: ...

    @property
    def frame_shape(self) -> tuple[int, int, int]: ...

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
        """Draw episodes of num_observed + num_predicted steps, at least one of them observed.

        Where they have poses, ``pose_names`` says what these are.

        Stateless: the same arguments give the same episodes bit for bit, and the global random state is
        neither read nor changed, so a resumed training sees the batches that it would have seen.
        """
        ...


class Truth(StrEnum):
    """What episodes may tell besides frames and actions."""

    POSES = "poses"
    HEADINGS = "headings"


@dataclass(frozen=True)
class Measure:
    """A number, described once: tables, captions, comparisons and documents read it from here.

    Label and meaning are templates: ``{place}``, ``{visited}`` and ``{new}`` become "place", "at visited places" and
    "at new places", or the same of views.

    :param name: in evaluation.json.
    :param label: one that begins with "..." goes on from the one before it.
    :param better: which way, if one is.
    :param needs: truths and capabilities without which it is left out.
    :param form: how it is written.
    :param column: its heading where runs are compared; "" for a measure that is no column.
    :param command: what measures it.
    """

    name: str
    label: str
    meaning: str
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    needs: tuple[StrEnum, ...] = ()
    form: str = ".4g"
    column: str = ""
    command: str = "report"

    def written(self, value: float) -> str:
        """The value in words; what is less than 1 does not read as 1."""
        text = f"{value:{self.form}}"
        digits = int(self.form[1:-1])
        if value < 1 and float(text) == 1:
            return f"{1 - 10.0**-digits:.{digits}f}"
        return text


class Measures(NamedTuple):
    """What a task alone can measure of predictions on its episodes.

    :ivar metrics: numbers for evaluation.json, by names of their own.
    :ivar by_horizon: arrays ``(num_predicted,)``, entry h-1 for step tau + h.
    """

    metrics: dict[str, float]
    by_horizon: dict[str, np.ndarray]


class Caption(NamedTuple):
    """A figure of the run folder: its file's name, its heading, and what a reader sees in it."""

    file: str
    title: str
    caption: str


class Bar(NamedTuple):
    """An error to be compared with others: the measure's name, what stands beside it, and a class of colour."""

    name: str
    label: str
    colour: str


class Words(NamedTuple):
    """What a report says of an evaluation.

    :ivar measures: those that it may hold, in the order of a table.
    :ivar terms: what fills the templates of labels and meanings.
    :ivar sentences: what the numbers say.
    :ivar captions: of figures, in the order in which a reader wants them.
    :ivar bars: errors side by side, and ``bars_note`` what to look for in them.
    """

    measures: Sequence[Measure]
    terms: Mapping[str, str]
    sentences: Sequence[str]
    captions: Sequence[Caption]
    bars: Sequence[Bar]
    bars_note: str


class Task(Protocol):
    """What is measured, drawn and said of a source's episodes."""

    @property
    def measures(self) -> Sequence[Measure]:
        """All that its evaluations may hold, in the order of a table."""

    def nearness(self, data: Any) -> dict[str, Any]:
        """What counts as one place unless somebody says: ``cell_size`` and ``view_tolerance``, None for what is usual
        in the poses."""

    def measure(self, data: Any, evaluation: Any, *, seed: int) -> Measures:
        """What only this task can measure.

        :param evaluation: of episodes that ``data.sample`` draws with this seed from the test split.
        :param seed: also of what the measures draw.
        """

    def ground(self, data: Any, evaluation: Any, *, seed: int, episode: int) -> Any:
        """What the agent of an episode walks on, a ``gtm_pyro.report.ground.Ground``; None where it is not known."""

    def figures(self, evaluation: Any, episode: int, ground: Any) -> Mapping[str, Any]:
        """Figures of its own by the names of their files, None for one that the evaluation has nothing for."""

    def words(self, metrics: Mapping[str, float]) -> Words:
        """
        :param metrics: of any evaluation on its episodes, also by an earlier version.
        """


GENERAL_TASK = "gtm_pyro.tasks.general.GeneralTask"
"""The task of episodes that name none."""


def task_of(data: Any) -> Task:
    """The task of a source of episodes.

    :raises ConfigError: it names one that cannot be imported.
    """
    return _made(getattr(data, "task", GENERAL_TASK))


def task_of_config(config: Mapping[str, Any]) -> Task:
    """The task of a run's source of episodes, as its config.yaml names the class; nothing is built.

    A class of a user's own is looked up only where its module is loaded already, for to load it is to run it.
    """
    node: Any = config.get("data")
    while node is not None:
        path = node.get("class_path") if isinstance(node, Mapping) else node
        module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
        if module.startswith("gtm_pyro."):
            importlib.import_module(module)
        named = getattr(getattr(sys.modules.get(module), name, None), "task", None)
        if isinstance(named, str):
            return _made(named)
        # a source of another one's episodes has their task
        node = (node.get("init_args") or {}).get("data") if isinstance(node, Mapping) else None
    return _made(GENERAL_TASK)


def general_task() -> Task:
    """The task of any episodes."""
    return _made(GENERAL_TASK)


def _made(path: str) -> Task:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"task: expected the import path of a class (module.Class), got {path!r} ({error})") from None
    task: Task = kind()
    return task


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """A generator on the CPU whose stream is unrelated to that of every other seed and purpose."""
    check_whole(0, seed=seed)
    # Neighbouring seeds give related Mersenne Twister streams unless they are mixed first.
    mixed = np.random.SeedSequence([seed, crc32(purpose.encode())]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def check_split(split: str) -> None:
    """Raise ConfigError unless the split is "train" or "test"."""
    if split not in ("train", "test"):
        raise ConfigError(f"split: expected 'train' or 'test', got {split!r}")


def check_number(name: str, value: float) -> float:
    """The value; raise ConfigError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")
    return value


def check_choice(choices: Sequence[str], **values: str) -> None:
    """Raise ConfigError for the first of these that is none of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ConfigError(f"{name}: expected {' or '.join(map(repr, choices))}, got {value!r}")


def check_request(batch_size: int, num_observed: int, num_predicted: int, split: str) -> None:
    """Raise ConfigError for the first argument of ``EpisodeData.sample`` that no source can answer."""
    check_whole(1, batch_size=batch_size, num_observed=num_observed)
    check_whole(0, num_predicted=num_predicted)
    check_split(split)
