"""The curriculum: what each stage of a training looks like, how long it lasts and at which learning rates."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from torch import Tensor

from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.reading import Reading


@dataclass(frozen=True)
class Stage:
    """Some optimiser steps on episodes of one length, read in one way.

    :param steps: optimiser steps.
    :param batch_size: episodes a step.
    :param num_observed: tau, the memorised steps of an episode.
    :param num_predicted: the steps after them.
    :param reading: which steps are scored, and against which memory entries.
    :param max_regret: in nats a frame. When the stage is over, the run is stuck if the median of the regret
        (``gtm_pyro.inference.regret``) on fresh training episodes is above it, and starts again from fresh values; None
        never looks.
    :param frozen: beginnings of the names of parameters that this stage leaves as they are, "encoder" for instance.
    :param data: arguments of the source of episodes that this stage changes, ``{"walls": False}`` for instance.
    :param auxiliary: fields of the auxiliary objective that this stage changes, a weight that is 0 for instance.
    :raises ConfigError: a number out of its range.
    """

    steps: int
    batch_size: int = 16
    num_observed: int = 256
    num_predicted: int = 32
    reading: Reading = field(default_factory=Reading)
    max_regret: float | None = None
    frozen: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    auxiliary: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.frozen, str):
            raise ConfigError(f"frozen: expected a list of names, got {self.frozen!r}")
        for name in ("steps", "batch_size", "num_observed", "num_predicted"):
            check_whole(1, **{name: getattr(self, name)})
        if self.max_regret is not None and not self.max_regret > 0:
            raise ConfigError(f"max_regret: expected a number over 0 or null, got {self.max_regret}")

    @property
    def changes(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Of the data and of the auxiliary objective."""
        return self.data, self.auxiliary


@dataclass(frozen=True)
class LearningRates:
    """Adam's learning rates before decay.

    :param default: for every parameter that no prefix matches.
    :param by_prefix: rates for the parameters whose name begins so; the longest prefix wins. Names are those of the
        model ("transition.displacement"), or begin with "model." or "guide.".
    :raises ConfigError: a rate that is not over 0.
    """

    default: float = 1e-3
    by_prefix: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rate in {"default": self.default, **self.by_prefix}.items():
            if not (math.isfinite(rate) and rate > 0):
                raise ConfigError(f"learning_rates: {name}: expected a number over 0, got {rate}")

    def groups(self, parameters: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Parameter groups for a torch optimiser, one a rate; ``base_rate`` keeps the rate before decay.

        :param parameters: by full name, "model.transition.displacement" for instance.
        :raises ConfigError: a prefix that no parameter has.
        """
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in parameters.items():
            matches = [prefix for prefix in self.by_prefix if matches_prefix(prefix, name)]
            rate = self.by_prefix[max(matches, key=len)] if matches else self.default
            groups.setdefault(rate, []).append(parameter)
        check_prefixes("learning_rates", self.by_prefix, parameters)
        return [{"params": members, "lr": rate, "base_rate": rate} for rate, members in groups.items()]


class Schedule:
    """Stages laid end to end, and one cosine decay of the learning rates from 1 to 0 over all of them.

    :param stages: as declared.
    :param steps: the total; the stages keep their shares of it. None keeps the declared steps.
    :ivar stages: as declared.
    :ivar ends: for each stage, the number of steps after which it is over.
    :ivar total: the last of them.
    :raises ConfigError: no stage, or ``steps`` below 1.
    """

    def __init__(self, stages: Sequence[Stage], steps: int | None = None) -> None:
        if not stages:
            raise ConfigError("stages: expected at least one stage, got none")
        self.stages = tuple(stages)
        declared = list(accumulate(stage.steps for stage in stages))
        if steps is not None:
            check_whole(1, steps=steps)
        self.total = declared[-1] if steps is None else steps
        self.ends = tuple(round(end * self.total / declared[-1]) for end in declared)

    def index(self, position: int) -> int:
        """The number, from 0, of the stage that holds the step after ``position`` steps."""
        return min(bisect_right(self.ends, position), len(self.stages) - 1)

    def ended(self, position: int) -> Stage | None:
        """The stage that is over after exactly ``position`` steps.

        A stage that was cut to less than half is not returned: it cannot be expected to have got anywhere.
        """
        starts = (0, *self.ends[:-1])
        for stage, start, end in zip(self.stages, starts, self.ends, strict=True):
            if position == end and 2 * (end - start) >= stage.steps:
                return stage
        return None

    def decay(self, position: int) -> float:
        """The factor on every learning rate in the step after ``position`` steps."""
        return 0.5 * (1 + math.cos(math.pi * position / self.total))


def matches_prefix(prefix: str, name: str) -> bool:
    """Whether a parameter's full name begins so, with or without "model."."""
    return name.startswith(prefix) or name.removeprefix("model.").startswith(prefix)


def check_prefixes(setting: str, prefixes: Iterable[str], names: Iterable[str]) -> None:
    """Raise ConfigError for a prefix that no parameter has."""
    names = list(names)
    for prefix in prefixes:
        if not any(matches_prefix(prefix, name) for name in names):
            known = ", ".join(name.removeprefix("model.") for name in names)
            raise ConfigError(f"{setting}: expected the beginning of one of {known}; got {prefix!r}")
