"""What decides the steps of a run, as JSON values: a run is resumed only with the same."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import RunFolderError
from gtm_pyro.networks.precision import Precision
from gtm_pyro.tasks.base import EpisodeData
from gtm_pyro.training.stages import LearningRates, Schedule

# runs that began before it was written down do not say it, nor all arguments of the model
_MAY_BE_UNSAID = ("initialisation", "auxiliary")
_UNSAID_OF_STAGES: dict[str, Any] = {"frozen": [], "data": {}, "auxiliary": {}}


def make_plan(
    model: Any,
    guide: Any,
    data: EpisodeData,
    checksum: str,
    objects: Mapping[str, Any],
    schedule: Schedule,
    rates: LearningRates,
    seed: int,
    clip_norm: float | None,
    max_restarts: int,
    precision: Precision,
) -> dict[str, Any]:
    """The settings of a run, its classes, and the checksum of the episodes with which it begins.

    :param objects: the loss, the initialisation and the auxiliary objective.
    """
    loss = objects["loss"]
    # Pyro guesses max_plate_nesting on a first use and keeps the guess
    settings = {name: value for name, value in vars(loss).items() if name != "max_plate_nesting"}
    return {
        "seed": seed,
        "steps": schedule.total,
        "stages": [asdict(stage) for stage in schedule.stages],
        "learning_rates": {"default": rates.default, **rates.by_prefix},
        "clip_norm": clip_norm,
        "precision": precision,
        "loss": type(loss).__name__,
        **{f"loss.{name}": value for name, value in settings.items() if isinstance(value, bool | int | float | str)},
        "max_restarts": max_restarts,
        "model": type(model).__name__,
        **{f"model.{name}": _described(part) for name, part in _kept_arguments(model).items()},
        "initialisation": _described(objects["initialisation"]),
        "auxiliary": _described(objects["auxiliary"]),
        "guide": type(guide).__name__,
        "data": f"{type(data).__name__}, checksum {checksum}",
    }


def check_plan(theirs: Any, mine: Mapping[str, Any], source: Path) -> None:
    """Compare the plan in a checkpoint with that of the run that goes on from it.

    :raises RunFolderError: names the first setting that is not as the run was started with.
    """
    theirs = {"precision": "float32", **theirs} if isinstance(theirs, dict) else {}
    if "stages" in theirs:
        theirs["stages"] = [{**_UNSAID_OF_STAGES, **stage} for stage in theirs["stages"]]
    mine = json.loads(json.dumps(mine))
    for name in mine:
        if name not in theirs and (name in _MAY_BE_UNSAID or name.startswith("model.")):
            continue
        if theirs.get(name) != mine.get(name):
            raise RunFolderError(
                f"{source}: {name}: expected {theirs.get(name)}, with which the run began, got {mine.get(name)}"
            )


def _kept_arguments(model: Any) -> dict[str, Any]:
    """What the model was made of: its constructor's arguments, where it keeps them by their names."""
    parameters = signature(type(model).__init__).parameters
    found = {name: getattr(model, name) for name in parameters if name != "self" and hasattr(model, name)}
    # what was learnt of them is in the checkpoint
    return {name: value for name, value in found.items() if not isinstance(value, torch.Tensor)}


def _described(value: Any) -> str:
    """The repr, without addresses, which differ in every process."""
    return re.sub(r" at 0x\w+", "", repr(value))


def checksum(episodes: Episodes) -> str:
    """Of mean frames and actions at each step of a batch.

    :param episodes: drawn on the CPU, wherever the run computes.
    """
    means = [x.cpu().double().flatten(2).mean(0) for x in (episodes.frames, episodes.actions)]
    # rounded, for another processor may render the same frames with other last bits
    rounded = torch.cat([means[0].mean(-1), means[1].flatten()]).mul(1000).round().long()
    return f"{crc32(rounded.numpy().tobytes()):08x}"
