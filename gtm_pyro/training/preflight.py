"""What a training looks at before it starts: everything that it will ask of its programs, once, on real episodes.

Mistakes then show before hours of work, and before anything is written.
"""

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import nn

from gtm_pyro.errors import ConfigError, GTMPyroError, first_line, kind_and_line
from gtm_pyro.inference.auxiliary import Auxiliary
from gtm_pyro.inference.checks import check_programs
from gtm_pyro.inference.losses import check_combination, loss_value
from gtm_pyro.inference.randomness import callers_random_state, module_parameters, set_seed
from gtm_pyro.networks.precision import Precision, networks_in
from gtm_pyro.storage.limits import LARGEST_PARTICLES, check_episodes, check_range
from gtm_pyro.storage.progress import phase
from gtm_pyro.tasks.base import EpisodeData
from gtm_pyro.training.changes import stage_parts
from gtm_pyro.training.plan import checksum
from gtm_pyro.training.restarts import check_has_regret
from gtm_pyro.training.stages import Stage


@dataclass(frozen=True)
class Rehearsal:
    """That a training was rehearsed: with the same arguments, :func:`gtm_pyro.fit` need not do it again.

    :ivar checksum: of the episodes with which it begins.
    """

    checksum: str


def rehearse(
    model: nn.Module,
    guide: nn.Module,
    data: EpisodeData,
    loss: Any,
    stages: Sequence[Stage],
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    auxiliary: Auxiliary | None = None,
    evaluation: Callable[[Any, Any], object] | None = None,
) -> Rehearsal:
    """Evaluate the loss once for each kind of stage, with all of Pyro's checks.

    In the first stage, also look whether loss, guide and model fit each other. A guide that makes its parameters on its
    first call makes them here. The random state is left as it was.

    :param model: on the device; likewise the guide.
    :param evaluation: what will be done with both after the training; called with copies, whose parameters may be
        those of other episodes.
    :raises ConfigError: a stage has no room in memory or cannot be restarted; a program fails, or torch or Pyro refuses
        a value or a shape. Errors of this library pass unchanged, but for those of the evaluation, which say so.
    """
    device = torch.device(device)
    for number, stage in enumerate(stages, 1):
        check_episodes(f"stage {number}: batch_size", stage.batch_size, stage.num_observed + stage.num_predicted, data)
    check_particles(loss)
    check_has_regret(model, guide, tuple(stages))
    with callers_random_state(device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered NaN")  # an error that says more follows
        if evaluation is not None:
            _rehearse_evaluation(*deepcopy((model, guide)), evaluation)
        with module_parameters(model, guide), phase("rehearsing the training"):
            return _rehearse_stages(model, guide, data, loss, stages, seed, device, precision, auxiliary)


def check_particles(loss: Any) -> None:
    """Raise ConfigError for a loss of so many particles that a step would not end."""
    check_range("loss.num_particles", getattr(loss, "num_particles", 1), 1, LARGEST_PARTICLES)


def _rehearse_evaluation(model: Any, guide: Any, evaluation: Callable[[Any, Any], object]) -> None:
    try:
        evaluation(model, guide)
    except (GTMPyroError, ValueError, RuntimeError) as error:
        raise ConfigError(f"evaluation: {first_line(error)}") from error
    except Exception as error:  # of a part of a user's own, for instance
        raise ConfigError(f"evaluation: {kind_and_line(error)}") from error


def _rehearse_stages(
    model: nn.Module,
    guide: nn.Module,
    data: EpisodeData,
    loss: Any,
    stages: Sequence[Stage],
    seed: int,
    device: torch.device,
    precision: Precision,
    auxiliary: Auxiliary | None,
) -> Rehearsal:
    begin, done = "", set()
    for number, (stage, parts) in enumerate(stage_parts(data, auxiliary, stages), 1):
        kind = (stage.batch_size, stage.num_observed, stage.num_predicted, stage.reading, *map(repr, stage.changes))
        if kind in done:
            continue
        done.add(kind)
        episodes = parts.data.sample(
            stage.batch_size, num_observed=stage.num_observed, num_predicted=stage.num_predicted, seed=seed
        )
        begin = begin or checksum(episodes)
        episodes = episodes.to(device)
        set_seed(seed, device)
        try:
            if number == 1:
                check_combination(model, guide, loss, episodes, stage.reading)
            with pyro.validation_enabled(True), torch.no_grad(), networks_in(precision):
                loss_value(loss, model, guide, episodes, stage.reading)
                if parts.auxiliary is not None:
                    parts.auxiliary(model, guide, episodes, stage.reading)
            if number == 1:
                check_programs(model, guide, episodes, stage.reading)
        except GTMPyroError:
            raise
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"stage {number}: {first_line(error)}") from error
        except Exception as error:  # of a part of a user's own, for instance
            raise ConfigError(f"stage {number}: {kind_and_line(error)}") from error
    return Rehearsal(begin)
