"""Fitting: stochastic variational inference through the stages of a curriculum.

Every step is a function of the seed and the step's number only: its episodes and its noise are drawn from a
seed made of both. So a run that was killed needs no random state to go on, and on the CPU, with the same
number of threads, it ends in the same parameters, bit for bit.
"""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, DeviceError, check_whole
from gtm_pyro.inference.auxiliary import Auxiliary
from gtm_pyro.inference.losses import Loss
from gtm_pyro.inference.randomness import callers_random_state, module_parameters
from gtm_pyro.initialisation import Automatic
from gtm_pyro.networks.precision import Precision, check_precision
from gtm_pyro.storage.interrupts import StopSignals
from gtm_pyro.storage.limits import check_seed
from gtm_pyro.storage.progress import progress_shown
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.tasks.base import EpisodeData
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.loop import Training
from gtm_pyro.training.plan import make_plan
from gtm_pyro.training.preflight import Rehearsal, rehearse
from gtm_pyro.training.progress import Progress
from gtm_pyro.training.stages import LearningRates, Schedule, Stage

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """What ``fit`` hands back.

    :param out: the run folder, None if nothing was written.
    :param metrics: the lines of metrics.jsonl.
    :param steps: optimiser steps taken, those of abandoned attempts included.
    :param restarts: how often the run was stuck and started again.
    :param doubt: why the run seems not to have found the map, from frames and actions alone; None if it seems to have.
    """

    model: Any
    guide: Any
    data: EpisodeData
    out: Path | None
    metrics: list[dict[str, Any]]
    steps: int
    restarts: int
    doubt: str | None = None

    def posterior(self, episodes: Episodes, num_samples: int = 25, seed: int = 0) -> Any:
        """An ArviZ tree of posterior and predictive draws; see ``gtm_pyro.diagnostics.posterior.posterior``."""
        from gtm_pyro.diagnostics.posterior import posterior  # here, for training needs none of its packages

        names = self.data.action_names
        return posterior(self.model, self.guide, episodes, num_samples, seed=seed, action_names=names)


def fit(
    model: nn.Module,
    guide: nn.Module,
    data: EpisodeData,
    *,
    stages: Sequence[Stage] | None = None,
    steps: int | None = None,
    loss: ELBO | Loss | None = None,
    initialisation: Callable[[Any, Episodes], object] | None = Automatic(),  # noqa: B008 (it cannot change)
    auxiliary: Auxiliary | None = None,
    learning_rates: LearningRates | None = None,
    clip_norm: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    out: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 200,
    log_every: int = 20,
    resume: bool = False,
    max_restarts: int = 3,
    progress: bool = True,
    rehearsed: Rehearsal | None = None,
) -> Run:
    """Train a model and a guide together, in place, with Adam and one cosine decay over all stages.

    Before its first step an attempt calls ``initialisation(model, episodes)``, with at least 64 episodes of the stage
    with the longest. A run that does not find the map says so when it ends
    (``gtm_pyro.evaluation.map_verdict``). The global random state and Pyro's parameter store are left as they were.

    :param model: a Pyro program, called as ``model(episodes, reading)``.
    :param guide: likewise.
    :param data: where episodes come from.
    :param stages: the curriculum; by default one stage, the paper's task.
    :param steps: the total of all stages, which keep their shares of it; by default as declared.
    :param loss: one of Pyro's losses, by default ``Trace_ELBO()``, or any ``gtm_pyro.inference.losses.Loss``.
    :param initialisation: sets starting values: a strategy of ``gtm_pyro.initialisation`` or a function; None leaves
        the caller's.
    :param auxiliary: an objective besides the bound: see ``gtm_pyro.inference.auxiliary``.
    :param clip_norm: the gradient of the loss in nats a frame is scaled down to this norm; None leaves it.
    :param seed: of the episodes and the noise of every step. The starting values are the caller's.
    :param device: where to train; the model and the guide are moved there.
    :param precision: of the networks in a step; bfloat16 is for GPUs. All else, and all of evaluation, is in float32.
    :param out: the run folder, for checkpoints, metrics.jsonl and TensorBoard; None writes nothing.
    :param checkpoint_every: in steps. A checkpoint is also written after the last step.
    :param log_every: in steps.
    :param resume: go on from the newest checkpoint in ``out``; from the beginning if the run was killed before.
    :param max_restarts: how often a run may start again after a stage left it stuck (``Stage.max_regret``).
    :param rehearsed: what ``gtm_pyro.training.preflight.rehearse`` gave for the same arguments, if it was called; it is
        otherwise called here.
    :raises ConfigError: an argument out of its range, or a stage on which the loss cannot be evaluated.
    :raises DeviceError: a device that is not there.
    :raises RunFolderError: ``out`` is in use, missing, or holds a run of another model, on other data or with other
        settings; or another process is training in it.
    :raises CheckpointError: a checkpoint could not be written or read; the last good one stays.
    :raises NonFiniteLossError: the loss, its gradient or a parameter is not finite; no checkpoint is written of it.
    :raises Interrupted: SIGINT or SIGTERM came; the step was finished and saved first.
    """
    check_seed(seed=seed)
    check_whole(1, checkpoint_every=checkpoint_every, log_every=log_every)
    check_whole(0, max_restarts=max_restarts)
    check_precision(precision)
    if clip_norm is not None and not clip_norm > 0:
        raise ConfigError(f"clip_norm: expected a number over 0 or null, got {clip_norm}")
    if resume and out is None:
        raise ConfigError("resume: expected the run folder as out, got none")
    schedule = Schedule([Stage(steps or 1500)] if stages is None else stages, steps)
    rates, loss = learning_rates or LearningRates(), loss or Trace_ELBO()
    if hasattr(guide, "training_note"):
        logger.warning("guide: %s %s", type(guide).__name__, guide.training_note)
    device = resolve_device(device)
    model.to(device)
    guide.to(device)
    if rehearsed is None:
        rehearsed = rehearse(model, guide, data, loss, schedule.stages, seed, device, precision, auxiliary)
    folder = None if out is None else RunFolder.open(out) if resume else RunFolder.create(out)
    with (
        folder.held() if folder else nullcontext(),
        callers_random_state(device),
        module_parameters(model, guide),
        warnings.catch_warnings(),
        StopSignals() as signals,
        progress_shown(progress),
    ):
        warnings.filterwarnings("ignore", "Encountered NaN")  # an error that says more follows
        objects = {"loss": loss, "initialisation": initialisation, "auxiliary": auxiliary}
        begin = rehearsed.checksum
        plan = make_plan(model, guide, data, begin, objects, schedule, rates, seed, clip_norm, max_restarts, precision)
        learner = Learner(model, guide, loss, rates, clip_norm, precision, auxiliary)
        training = Training(
            learner,
            data,
            schedule,
            seed,
            device,
            max_restarts,
            plan,
            folder,
            checkpoint_every,
            log_every,
            initialisation,
        )
        training.load()
        lines = folder.truncate_metrics(training.state.step) if folder else []
        with Progress(folder, lines, training.state.step, training.total, show=progress) as reporter:
            training.run(reporter, signals)
        doubt = training.doubt()
    if doubt is not None:
        logger.warning("%s More steps, another seed or other starting values may help: docs/training.md.", doubt)
    state = training.state
    return Run(model, guide, data, folder.path if folder else None, lines, state.step, state.restarts, doubt)


def resolve_device(device: str | torch.device) -> torch.device:
    """A device that this machine has.

    :raises DeviceError: it has not, or the name is none.
    """
    try:
        resolved = torch.device(device)
        torch.zeros((), device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device: expected one that this machine has, got {device!s} ({reason})") from None
    return resolved
