"""What an experiment declares, once it is made: the objects of a training, and what they are measured on."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.storage.limits import check_episodes, check_seed

if TYPE_CHECKING:
    from pyro.infer import ELBO
    from torch import nn

    from gtm_pyro.episodes import Episodes
    from gtm_pyro.tasks import EpisodeData
    from gtm_pyro.training.stages import LearningRates, Stage


@dataclass(frozen=True)
class EvaluationSettings:
    """What a trained model is measured on.

    :param num_episodes: held-out episodes.
    :param num_observed: steps that are memorised.
    :param num_predicted: steps that are predicted from actions alone.
    :param seed: of the episodes and of all draws.
    :param posterior_episodes: episodes in posterior.nc, at most ``num_episodes``.
    :param posterior_samples: draws of each in posterior.nc.
    :param cell_size: a side of what counts as one place, in pose units; None: as the data says, else read off the
        poses (``gtm_pyro.poses.places.nearness``).
    :param view_tolerance: for poses with a heading, how near counts as the same view, in pose units and radians; None:
        likewise.
    :raises ConfigError: a number out of its range.
    """

    num_episodes: int = 64
    num_observed: int = 256
    num_predicted: int = 256
    seed: int = 0
    posterior_episodes: int = 4
    posterior_samples: int = 25
    cell_size: float | None = None
    view_tolerance: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("cell_size", "view_tolerance"):
                sizes = () if value is None else value if isinstance(value, tuple | list) else (value,)
                if not all(0 < size < math.inf for size in sizes):
                    raise ConfigError(f"evaluation.{name}: expected over 0 or null, got {value!r}")
            elif name == "seed":
                check_seed(**{"evaluation.seed": value})
            else:
                check_whole(1, **{f"evaluation.{name}": value})


@dataclass(frozen=True)
class Experiment:
    """The objects that an experiment declares, ready to train or to evaluate.

    :param yaml: gives the text of config.yaml.
    :param notes: what the data decided, a line each.
    """

    model: "nn.Module"
    guide: "nn.Module"
    data: "EpisodeData"
    loss: "ELBO"
    stages: "list[Stage]"
    learning_rates: "LearningRates"
    evaluation: EvaluationSettings
    fields: Mapping[str, Any]
    yaml: Callable[[], str]
    notes: tuple[str, ...] = ()

    @property
    def nearness(self) -> dict[str, Any]:
        """``cell_size`` and ``view_tolerance`` for measures: as asked for, else as the task has it, or None."""
        from gtm_pyro.tasks.base import task_of

        asked = {name: getattr(self.evaluation, name) for name in ("cell_size", "view_tolerance")}
        return task_of(self.data).nearness(self.data) | {n: size for n, size in asked.items() if size is not None}

    def held_out(self, device: Any = "cpu", num_episodes: int | None = None) -> "Episodes":
        """The test episodes that ``evaluation`` asks for, or another number of them.

        :raises ConfigError: they cannot fit into memory.
        """
        asked = self.evaluation
        number = num_episodes or asked.num_episodes
        check_episodes("evaluation.num_episodes", number, asked.num_observed + asked.num_predicted, self.data)
        return self.data.sample(
            number,
            num_observed=asked.num_observed,
            num_predicted=asked.num_predicted,
            seed=asked.seed,
            split="test",
            device=device,
        )
