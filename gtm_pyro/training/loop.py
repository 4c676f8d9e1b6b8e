"""The training loop: steps, log lines, checkpoints, restarts."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, GTMPyroError, NonFiniteLossError
from gtm_pyro.evaluation.map_verdict import doubt, map_measures
from gtm_pyro.inference.randomness import Purpose, derived_seed, set_seed
from gtm_pyro.initialisation import Automatic
from gtm_pyro.storage import checkpoints
from gtm_pyro.storage.checkpoints import Checkpoint
from gtm_pyro.storage.interrupts import Interrupted, StopSignals
from gtm_pyro.storage.progress import phase
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.tasks.base import EpisodeData
from gtm_pyro.training.changes import stage_parts
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.plan import check_plan
from gtm_pyro.training.progress import Progress, elbo_terms
from gtm_pyro.training.restarts import median_regret, redraw_weights
from gtm_pyro.training.stages import Schedule, Stage

logger = logging.getLogger(__name__)

INITIAL_EPISODES = 64
VERDICT_EPISODES = 16


@dataclass
class State:
    """Where a run stands; with the tensors, all that a checkpoint holds.

    :param step: optimiser steps taken, those of abandoned attempts included.
    :param start: the step at which the current attempt began.
    :param restarts: how often the run was stuck and started again.
    :param seconds: of training, over all resumes.
    :param regret: nats a frame that the last check for being stuck found.
    """

    step: int = 0
    start: int = 0
    restarts: int = 0
    seconds: float = 0.0
    regret: float | None = None

    @property
    def position(self) -> int:
        """How far the current attempt is in the schedule."""
        return self.step - self.start


@dataclass
class Training:
    """A run.

    :param plan: the settings that decide what a step does, as JSON values; a run is resumed only with the same.
    :param folder: where to write; None writes nothing.
    :param checkpoint_every: in steps.
    :param log_every: in steps.
    :param initialisation: sets starting values; None leaves them.
    """

    learner: Learner
    data: EpisodeData
    schedule: Schedule
    seed: int
    device: torch.device
    max_restarts: int
    plan: Mapping[str, Any]
    folder: RunFolder | None
    checkpoint_every: int
    log_every: int
    initialisation: Callable[[Any, Episodes], object] | None = Automatic()  # noqa: RUF009 (it cannot change)

    def __post_init__(self) -> None:
        self.state = State()
        self._start_values = {name: t.detach().clone() for name, t in self.learner.tensors().items()}
        self._unchecked: list[tuple[int, Tensor]] = []
        self._parts = stage_parts(self.data, self.learner.auxiliary, self.schedule.stages)
        for number, stage in enumerate(self.schedule.stages, 1):
            self.learner.check_frozen(f"stage {number}: frozen", stage.frozen)

    @property
    def total(self) -> int:
        """Optimiser steps in all, if there is no further restart."""
        return self.state.start + self.schedule.total

    def episodes(self, stage: Stage, seed: int) -> Episodes:
        """Training episodes of a stage."""
        data = next(parts.data for theirs, parts in self._parts if theirs.data == stage.data)
        return data.sample(
            stage.batch_size,
            num_observed=stage.num_observed,
            num_predicted=stage.num_predicted,
            seed=seed,
            split="train",
            device=self.device,
        )

    def load(self) -> None:
        """Go on from the newest checkpoint; without one, write the starting values as the first.

        :raises RunFolderError: it is of another model, or of a run with other settings.
        """
        if self.folder is None:
            return
        checkpoint = checkpoints.load_latest(self.folder.checkpoints)
        if checkpoint is None:
            self.save()
            return
        checkpoints.check_signature(checkpoint, self.learner.program, self.folder.path)
        check_plan(checkpoint.state.get("plan"), self.plan, self.folder.path)
        self.state = State(**checkpoint.state["run"])
        self.learner.load(checkpoint.tensors)

    def save(self) -> None:
        """Write a checkpoint.

        :raises NonFiniteLossError: a loss, a gradient or a tensor is not finite; nothing is written.
        """
        self._check_finite()
        tensors = self.learner.tensors()
        for name, tensor in tensors.items():
            # a constant that is infinite on purpose, a mask for instance, was so from the start
            if not _is_finite(tensor) and _is_finite(self._start_values.get(name)):
                raise self._failure(self.state.step, f"{name} is not finite after the update")
        if self.folder is not None:
            stage = self.schedule.index(self.state.position) + 1
            state = {"stage": stage, "run": asdict(self.state), "plan": self.plan}
            checkpoints.save(self.folder.checkpoints, Checkpoint(self.state.step, tensors, state))

    def run(self, progress: Progress, signals: StopSignals) -> None:
        """Take all steps that are left."""
        try:
            self._run(progress, signals)
        finally:
            self.learner.freeze(())

    def _run(self, progress: Progress, signals: StopSignals) -> None:
        began = time.perf_counter() - self.state.seconds
        while True:
            if self._is_stuck():
                self.state.start = self.state.step
                self.state.restarts += 1
            if self.state.position == self.schedule.total:
                return
            if self.state.position == 0:
                self._begin_attempt()
            line = self._step()
            self.state.seconds = time.perf_counter() - began
            if line is not None:
                progress.log({**line, "seconds": round(self.state.seconds, 3)}, len(self.schedule.stages))
            stop, done = signals.received, self.state.position == self.schedule.total
            if stop is not None or done or self.state.step % self.checkpoint_every == 0:
                self.save()
            progress.advance(self.total)
            if stop is not None:
                kept = f"to continue, resume {self.folder.path}" if self.folder else "nothing was saved"
                raise Interrupted(f"stopped at step {self.state.step}; {kept}", stop)

    def _begin_attempt(self) -> None:
        """Set an attempt's first values: the caller's; after a restart, with the weights drawn anew."""
        # a restart may come out of a stage that freezes what is fitted here
        self.learner.freeze(())
        # from the folder, for a resumed run's caller has no other way to know them
        start = checkpoints.load(self.folder.checkpoints, 0).tensors if self.folder else self._start_values
        self.learner.start_from(start)
        seed = self._seed(Purpose.INITIALISE)
        set_seed(seed, self.device)
        if self.state.restarts:
            redraw_weights(self.learner.program)
        if self.initialisation is not None:
            # long episodes tell more of how often actions fail
            stage = max(self.schedule.stages, key=lambda stage: stage.num_observed + stage.num_predicted)
            episodes = self.episodes(replace(stage, batch_size=max(stage.batch_size, INITIAL_EPISODES)), seed)
            own = getattr(self.learner.auxiliary, "initialise", None)
            initialise = own if own and isinstance(self.initialisation, Automatic) else self.initialisation
            with phase("searching for starting values"):
                initialise(self.learner.model, episodes)
        prepare = getattr(self.learner.guide, "initialise", None)
        if prepare is not None:
            stage = self.schedule.stages[0]
            prepare(self.episodes(stage, seed), stage.reading)

    def _step(self) -> dict[str, Any] | None:
        """One step; returns a line of metrics where one is due."""
        position = self.state.position
        number, decay = self.schedule.index(position), self.schedule.decay(position)
        stage = self.schedule.stages[number]
        seed = self._seed(Purpose.STEP)
        episodes = self.episodes(stage, seed)
        set_seed(seed, self.device)
        self.learner.freeze(stage.frozen)
        self.learner.auxiliary = self._parts[number][1].auxiliary
        self.learner.at_step(position, self.schedule.total)
        loss, norm = self.learner.gradients(episodes, stage.reading)
        self.state.step += 1
        due = self.state.step % self.log_every == 0 or self.state.position == self.schedule.total
        self._unchecked.append((self.state.step, torch.stack([loss, norm])))
        if due or self.device.type == "cpu":  # elsewhere a look at the loss makes the device wait
            self._check_finite()
        line = None
        if due:
            set_seed(self._seed(Purpose.TERMS), self.device)
            line = {
                "step": self.state.step,
                "stage": number + 1,
                "loss": float(loss),
                **elbo_terms(self.learner.model, self.learner.guide, episodes, stage.reading, self.learner.auxiliary),
                "learning_rate": self.learner.default_rate * decay,
                "grad_norm": float(norm),
                "restarts": self.state.restarts,
                "regret": self.state.regret,
            }
        self.learner.update(decay)
        return line

    def doubt(self) -> str | None:
        """Why the run seems not to have found the map, told on fresh training episodes of the last stage.

        None where the programs cannot tell: a guide may be made for a batch of its own, a model imagine nothing.
        """
        seed = self._seed(Purpose.VERDICT)
        stage = self.schedule.stages[-1]
        episodes = self.episodes(replace(stage, batch_size=max(stage.batch_size, VERDICT_EPISODES)), seed)
        try:
            return doubt(map_measures(self.learner.model, self.learner.guide, episodes, seed))
        except (GTMPyroError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            logger.info("nothing tells whether the map was found (%s)", error)
            return None

    def _is_stuck(self) -> bool:
        """Whether the stage that has just ended failed. Asked before a step: a resumed run asks again."""
        stage = self.schedule.ended(self.state.position)
        if stage is None or stage.max_regret is None:
            return False
        learner, seed = self.learner, self._seed(Purpose.REGRET)
        episodes = self.episodes(stage, seed)
        set_seed(seed, self.device)
        self.state.regret = median_regret(learner.model, learner.guide, episodes, stage.reading)
        if self.state.regret <= stage.max_regret:
            return False
        may_restart = self.state.restarts < self.max_restarts
        logger.warning(
            "step %d: stuck: %.3g nats of regret a frame, expected at most %g; %s after %d of %d restarts",
            self.state.step,
            self.state.regret,
            stage.max_regret,
            "starting again" if may_restart else "going on",
            self.state.restarts,
            self.max_restarts,
        )
        return may_restart

    def _seed(self, purpose: Purpose) -> int:
        return derived_seed(self.seed, self.state.step, purpose)

    def _check_finite(self) -> None:
        """Look at every loss and gradient norm since the last look.

        :raises NonFiniteLossError: names the first bad step and the last good state.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        values = torch.stack([pair for _, pair in unchecked]).tolist()
        for (step, _), (loss, norm) in zip(unchecked, values, strict=True):
            if math.isfinite(loss) and math.isfinite(norm):
                continue
            what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
            raise self._failure(step, what)

    def _failure(self, step: int, what: str) -> NonFiniteLossError:
        good = "nothing was saved"
        if self.folder is not None:
            last = checkpoints.load_latest(self.folder.checkpoints)
            good = f"the last good state is step {last.step if last else 0} in {self.folder.checkpoints}"
        if step > self.state.start:
            stage = self.schedule.stages[self.schedule.index(step - 1 - self.state.start)]
            try:
                self.episodes(stage, derived_seed(self.seed, step - 1, Purpose.STEP)).check_finite()
            except EpisodesError as error:
                return NonFiniteLossError(f"step {step}: {what}; {good}; {error}")
        # a resumed run keeps its rates
        return NonFiniteLossError(f"step {step}: {what}; {good}; a new run with lower learning rates may help")


def _is_finite(tensor: Tensor | None) -> bool:
    return tensor is None or not tensor.is_floating_point() or bool(tensor.isfinite().all())
