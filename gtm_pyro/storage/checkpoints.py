"""Checkpoints: tensors in safetensors, the rest in JSON, and no moment at which a crash can spoil them.

A checkpoint is ``step-00000400.safetensors`` and ``step-00000400.json``. The JSON is written last and holds
the checksum of the tensors: a checkpoint exists when its JSON can be read and matches. Nothing is unpickled.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from gtm_pyro.errors import CheckpointError, RunFolderError
from gtm_pyro.storage.atomic import write_atomically
from gtm_pyro.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

_FORMAT = 1
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``step`` optimiser steps.

    :param step: optimiser steps taken.
    :param tensors: parameters, buffers and optimiser state by name: "model.*", "guide.*", "optimizer.*".
    :param state: what else the run needs, as plain JSON values.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def program(model: nn.Module, guide: nn.Module) -> nn.Module:
    """Model and guide as one module, whose parameters are named "model.*" and "guide.*"."""
    return nn.ModuleDict({"model": model, "guide": guide})


def save(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, then remove all older ones but the last and the starting values (step 0).

    :raises CheckpointError: it could not be written (a full disk, no rights); the earlier ones stay.
    """
    # copies: safetensors refuses tensors that share memory
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.tensors.items()}
    content = safetensors.torch.save(tensors)
    record = {
        "format": _FORMAT,
        "step": checkpoint.step,
        **checkpoint.state,
        "sha256": hashlib.sha256(content).hexdigest(),
        "signature": _signature(tensors),
        "torch": torch.__version__,
    }
    weights, description = _paths(directory, checkpoint.step)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(weights, content)
        write_atomically(description, json.dumps(record, indent=1).encode())
        _remove_older(directory, checkpoint.step)
    except OSError as error:
        if not description.exists():
            with suppress(OSError):  # half a checkpoint is no use, and takes the room that a full disk lacks
                weights.unlink(missing_ok=True)
        earlier = [step for step in _steps(directory) if step != checkpoint.step]
        kept = f"the last good checkpoint is step {max(earlier)}" if earlier else "there is no earlier one"
        reason = error.strerror or error
        raise CheckpointError(f"{weights}: could not be written ({reason}); {kept}") from error


def load(directory: Path, step: int) -> Checkpoint:
    """Read one checkpoint.

    :raises CheckpointError: it is missing, cut short or of another kind.
    """
    weights, description = _paths(directory, step)
    try:
        record = json.loads(description.read_bytes())
        content = weights.read_bytes()
        if record["format"] != _FORMAT:
            raise CheckpointError(f"{description}: expected format {_FORMAT}, got {record['format']!r}")
        if hashlib.sha256(content).hexdigest() != record["sha256"] or record["step"] != step:
            raise CheckpointError(f"{weights}: expected what {description.name} describes, got other bytes")
        return Checkpoint(step, safetensors.torch.load(content), record)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: could not be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{description}: expected a checkpoint, got damage ({error!r})") from error


def load_latest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if none was ever completed.

    :raises CheckpointError: there are some, and all are damaged.
    """
    problem: CheckpointError | None = None
    for step in reversed(_steps(directory)):
        try:
            checkpoint = load(directory, step)
        except CheckpointError as error:
            problem = problem or error
        else:
            if problem:
                logger.warning("%s; going back to step %d", problem, step)
            return checkpoint
    if problem:
        raise problem
    return None


def check_signature(checkpoint: Checkpoint, module: nn.Module, source: Path) -> None:
    """Whether a checkpoint holds exactly the parameters and buffers of ``program(model, guide)``.

    :raises RunFolderError: names the first that differs.
    """
    expected = _signature(module.state_dict())
    found = {k: v for k, v in _signature(checkpoint.tensors).items() if not k.startswith("optimizer.")}
    for name in {**expected, **found}:
        if name.endswith(".action_unit") and name not in found:
            continue  # from before actions had units: they are 1
        mine, theirs = expected.get(name, "nothing"), found.get(name, "nothing")
        if mine != theirs:
            raise RunFolderError(
                f"{source}: the checkpoint is from another model: {name}: expected {mine}, got {theirs}"
            )


def restore(path: str | os.PathLike[str], model: nn.Module, guide: nn.Module) -> int:
    """Load the newest parameters of a run into a model and a guide, and return the step they are from.

    Into a guide without parameters, which need not be the one that was trained, none is loaded.

    :raises RunFolderError: the folder is missing, holds no checkpoint, or one from another model.
    :raises CheckpointError: every checkpoint in it is damaged.
    """
    folder = RunFolder.open(path)
    checkpoint = load_latest(folder.checkpoints)
    if checkpoint is None:
        raise RunFolderError(f"{path}: expected a trained run, it holds no checkpoint yet")
    if not guide.state_dict():
        own = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("guide.")}
        checkpoint = replace(checkpoint, tensors=own)
    module = program(model, guide)
    check_signature(checkpoint, module, folder.path)
    load_tensors(module, checkpoint.tensors)
    return checkpoint.step


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the parameters and buffers of ``program(model, guide)``; optimiser state is left out."""
    module.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("optimizer.")})


def _signature(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()}


def _paths(directory: Path, step: int) -> tuple[Path, Path]:
    stem = directory / f"step-{step:08d}"
    return stem.with_suffix(".safetensors"), stem.with_suffix(".json")


def _steps(directory: Path) -> list[int]:
    names = [path.stem.removeprefix("step-") for path in directory.glob("step-*.json")]
    return sorted(int(name) for name in names if name.isdecimal())


def _remove_older(directory: Path, step: int) -> None:
    last = [s for s in _steps(directory) if s < step][-(_KEPT - 1) :]
    kept = {_paths(directory, s)[1].stem for s in (0, *last, step)}
    for path in sorted(directory.glob("step-*")):  # a JSON first: without it there is no checkpoint
        if path.stem not in kept:
            path.unlink(missing_ok=True)
    for path in directory.glob(".*.tmp"):  # left by a run that was killed while it wrote
        path.unlink(missing_ok=True)
