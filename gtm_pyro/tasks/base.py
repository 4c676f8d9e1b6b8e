"""What a source of episodes is, and how it turns a seed into random draws."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError

if TYPE_CHECKING:
    from gtm_pyro.evaluation.evaluation import Evaluation

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


class Measures(NamedTuple):
    """What a source alone can measure of predictions on its episodes.

    :ivar metrics: numbers for evaluation.json, by names of their own.
    :ivar by_horizon: arrays ``(num_predicted,)``, entry h-1 for step tau + h.
    """

    metrics: dict[str, float]
    by_horizon: dict[str, np.ndarray]


@runtime_checkable
class MeasuringData(EpisodeData, Protocol):
    """A source of episodes that adds measures of its own to every evaluation."""

    def measures(self, evaluation: "Evaluation", *, seed: int) -> Measures:
        """
        :param evaluation: of episodes that ``sample`` draws with this seed from the test split.
        :param seed: also of what the measures draw.
        """
        ...


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


def check_whole(minimum: int, **numbers: int) -> None:
    """Raise ConfigError for the first of these that is not a whole number of at least ``minimum``."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ConfigError(f"{name}: expected a whole number of at least {minimum}, got {value!r}")


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
