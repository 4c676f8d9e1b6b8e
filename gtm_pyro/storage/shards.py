"""NPZ files of episodes: which there are, what is in them, and what they say of themselves."""

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError, first_line

SHARD_PATTERN = "*.npz"
DECLARATIONS = ("num_observed", "pose_names", "continuous_actions")
"""Arrays that say what the others mean."""
_REQUIRED_ARRAYS = ("frames", "actions")
_OPTIONAL_ARRAYS = ("poses", "worlds", *DECLARATIONS)


def find_shards(directory: str | os.PathLike[str]) -> list[Path]:
    """The NPZ files of a folder, sorted by name.

    :raises EpisodesError: the folder is missing, is no folder, or holds no NPZ file.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise EpisodesError(f"{directory}: expected a folder of NPZ shards, {_what_stands_at(directory)}")
    paths = sorted(directory.glob(SHARD_PATTERN))
    if not paths:
        raise EpisodesError(f"{directory}: expected a folder of NPZ shards, it holds no {SHARD_PATTERN} file")
    return paths


def read_shard(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of one shard as they are stored; nothing is unpickled and no value is looked at."""
    path = Path(path)
    if not path.is_file():
        raise EpisodesError(f"{path}: expected an NPZ shard, {_what_stands_at(path)}")
    if not zipfile.is_zipfile(path):
        raise EpisodesError(f"{path}: expected an NPZ shard, got a file that is cut short or of another kind")
    arrays = {}
    name = "the archive"
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _REQUIRED_ARRAYS if name not in archive.files]
            if missing:
                held = ", ".join(sorted(archive.files)) or "none"
                raise EpisodesError(f"{path}: expected an array {missing[0]}, got the arrays {held}")
            for name in _REQUIRED_ARRAYS + _OPTIONAL_ARRAYS:
                if name in archive.files:
                    arrays[name] = archive[name]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, EpisodesError):
            raise
        reason = first_line(error)
        raise EpisodesError(f"{path}: {name}: expected a whole array of numbers ({reason})") from error
    return arrays


def declared(
    arrays: dict[str, np.ndarray], source: str, pose_names: Sequence[str] | None, continuous_actions: bool | None
) -> dict[str, np.ndarray]:
    """The arrays of a shard, with declarations that it lacks.

    :raises EpisodesError: it says something else.
    """
    for name, value in (("pose_names", pose_names), ("continuous_actions", continuous_actions)):
        if value is None:
            continue
        if name in arrays and arrays[name].tolist() != np.asarray(value).tolist():
            got = arrays[name].tolist()
            raise EpisodesError(f"{source}{name}: expected {np.asarray(value).tolist()}, the file says {got}")
        arrays = arrays | {name: np.asarray(value)}
    return arrays


def fields_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of ``Episodes`` by name: uint8 frames become [0, 1], everything takes the dtype of the frames.

    :raises EpisodesError: an array of another kind.
    """
    tensors = {name: _to_tensor(name, array) for name, array in arrays.items() if name not in DECLARATIONS}
    dtype = tensors["frames"].dtype
    steps = arrays["frames"].shape[1] if arrays["frames"].ndim > 1 else 1
    tau = arrays.get("num_observed", np.asarray(steps))
    if tau.ndim or tau.dtype.kind not in "iu":
        raise EpisodesError(f"num_observed: expected one whole number, got {tau.dtype}, shape {tau.shape}")
    fields: dict[str, Any] = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    said = {name: _declaration(name, arrays[name]) for name in DECLARATIONS[1:] if name in arrays}
    return fields | said | {"num_observed": int(tau)}


def _declaration(name: str, array: np.ndarray) -> tuple[str, ...] | bool:
    if name == "pose_names" and array.ndim == 1 and array.dtype.kind == "U":
        return tuple(array.tolist())
    if name == "continuous_actions" and array.ndim == 0 and array.dtype.kind == "b":
        return bool(array)
    kind = "a list of names" if name == "pose_names" else "true or false"
    raise EpisodesError(f"{name}: expected {kind}, got {array.dtype}, shape {array.shape}")


def _to_tensor(name: str, array: np.ndarray) -> Tensor:
    if name in ("frames", "worlds") and array.dtype == np.uint8:
        return torch.from_numpy(array).to(torch.float32) / 255
    allowed = "f" if name in ("frames", "worlds") else "fiub"
    if array.dtype.kind not in allowed:
        kinds = "floats in [0, 1] or uint8" if allowed == "f" else "numbers"
        raise EpisodesError(f"{name}: expected {kinds}, got dtype {array.dtype}")
    return torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))


def _what_stands_at(path: Path) -> str:
    if path.is_dir():
        return "got a folder"
    return "got a file" if path.exists() else "there is nothing"
