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
ARRAYS = ("frames", "actions", "poses", "worlds", "is_first")
DECLARATIONS = ("num_observed", "pose_names", "continuous_actions", "num_actions")
"""Arrays that say what the others mean."""
_REQUIRED_ARRAYS = ("frames", "actions")
_OPTIONAL_ARRAYS = (*ARRAYS[2:], *DECLARATIONS)


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


def read_layouts(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The free cells of the worlds of a shard's episodes, ``(episodes, rows, columns)``; None where it has none."""
    try:
        with np.load(Path(path), allow_pickle=False) as archive:
            layouts = archive["layouts"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    return layouts if layouts.ndim == 3 else None


def declared(arrays: dict[str, np.ndarray], source: str, **said: Sequence[str] | int | None) -> dict[str, np.ndarray]:
    """The arrays of a shard, with declarations that it lacks.

    :param said: declarations by name; None says nothing.
    :raises EpisodesError: it says something else.
    """
    for name, value in said.items():
        if value is None:
            continue
        if name in arrays and arrays[name].tolist() != np.asarray(value).tolist():
            got = arrays[name].tolist()
            raise EpisodesError(f"{source}{name}: expected {np.asarray(value).tolist()}, the file says {got}")
        arrays = arrays | {name: np.asarray(value)}
    return arrays


def fields_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of ``Episodes`` by name: frames and actions as they are stored, other numbers of the dtype seen.

    :raises EpisodesError: an array of another kind.
    """
    tensors = {name: _to_tensor(name, array) for name, array in arrays.items() if name not in DECLARATIONS}
    dtype = torch.float64 if tensors["frames"].dtype == torch.float64 else torch.float32
    steps = arrays["frames"].shape[1] if arrays["frames"].ndim > 1 else 1
    fields: dict[str, Any] = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    said = {name: _declaration(name, arrays[name]) for name in DECLARATIONS if name in arrays}
    return fields | {"num_observed": steps} | said


def _declaration(name: str, array: np.ndarray) -> tuple[str, ...] | bool | int:
    if name.startswith("num_"):
        if array.ndim or array.dtype.kind not in "iu":
            raise EpisodesError(f"{name}: expected one whole number, got {array.dtype}, shape {array.shape}")
        return int(array)
    if name == "pose_names" and array.ndim == 1 and array.dtype.kind == "U":
        return tuple(array.tolist())
    if name == "continuous_actions" and array.ndim == 0 and array.dtype.kind == "b":
        return bool(array)
    kind = "a list of names" if name == "pose_names" else "true or false"
    raise EpisodesError(f"{name}: expected {kind}, got {array.dtype}, shape {array.shape}")


def _to_tensor(name: str, array: np.ndarray) -> Tensor:
    if name == "frames" and array.dtype == np.uint8:
        return torch.from_numpy(array)
    if name == "worlds" and array.dtype == np.uint8:
        return torch.from_numpy(array).to(torch.float32) / 255
    if name == "is_first" and array.dtype == np.bool_:
        return torch.from_numpy(array)
    if name == "actions" and array.ndim == 2 and array.dtype.kind in "iu":
        return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.int64))
    allowed = {"frames": "f", "worlds": "f", "is_first": ""}.get(name, "fiub")
    if array.dtype.kind not in allowed:
        kinds = {"f": "floats in [0, 1] or uint8", "": "true and false"}.get(allowed, "numbers")
        raise EpisodesError(f"{name}: expected {kinds}, got dtype {array.dtype}")
    return torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))


def _what_stands_at(path: Path) -> str:
    if path.is_dir():
        return "got a folder"
    return "got a file" if path.exists() else "there is nothing"
