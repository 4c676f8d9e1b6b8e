"""Files of actions, in the forms that people have them in."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.tasks.base import EpisodeData


def read_actions(path: str | os.PathLike[str], data: EpisodeData) -> Tensor:
    """Actions from a file, one a step.

    A text or CSV file holds one action a line: its name ("up"), its number from 0, or ``action_dim`` numbers. An NPY
    file, or the array "actions" (or the only one) of an NPZ file holds numbers (steps,) or vectors (steps, action_dim).

    :return: shape (steps, action_dim), float32; numbers of actions become one-hot.
    :raises EpisodesError: names the file, the line or index, what was expected and what came.
    """
    path = Path(path)
    try:
        values = _read_text(path, data) if path.suffix.lower() not in (".npy", ".npz") else _read_numpy(path)
    except OSError as error:
        raise EpisodesError(f"{path}: expected a file of actions ({error.strerror or error})") from None
    dim = data.action_dim
    if values.ndim == 2 and values.shape[1] == 1 and dim > 1:
        values = values[:, 0]
    if values.dtype.kind not in "fiub" or not values.size:
        raise EpisodesError(f"{path}: expected numbers, got {values.dtype} of shape {values.shape}")
    if values.ndim == 1 and dim > 1:
        bad = np.flatnonzero((values != np.floor(values)) | (values < 0) | (values >= dim))
        if len(bad):
            got = values[bad[0]]
            raise EpisodesError(f"{path}: action {bad[0]}: expected a whole number from 0 to {dim - 1}, got {got}")
        return torch.eye(dim)[torch.from_numpy(values.astype(np.int64))]
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != dim:
        raise EpisodesError(f"{path}: expected (steps,) or (steps, {dim}), got {values.shape}")
    return torch.from_numpy(values.astype(np.float32))


def _read_numpy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            if "actions" not in names and len(names) != 1:
                raise EpisodesError(f"{path}: expected an array actions, got {', '.join(names) or 'none'}")
            array: np.ndarray = loaded["actions" if "actions" in names else names[0]]
            return array
    except EpisodesError:
        raise
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise EpisodesError(f"{path}: expected a whole NPY or NPZ file of numbers ({reason})") from None


def _read_text(path: Path, data: EpisodeData) -> np.ndarray:
    numbers = {name: str(i) for i, name in enumerate(data.action_names)}
    rows: list[list[float]] = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise EpisodesError(f"{path}: expected actions as text, .npy or .npz, got a file of another kind") from None
    for number, line in enumerate(text.splitlines(), start=1):
        words = [line.strip()] if line.strip() in numbers else line.replace(",", " ").split()
        try:
            row = [float(numbers.get(word, word)) for word in words]
        except ValueError:
            known = ", ".join(data.action_names)
            got = repr(line.strip())
            raise EpisodesError(f"{path}: line {number}: expected one of {known}, or numbers, got {got}") from None
        if rows and row and len(row) != len(rows[0]):
            raise EpisodesError(f"{path}: line {number}: expected {len(rows[0])} numbers, got {len(row)}")
        if row:
            rows.append(row)
    return np.asarray(rows, dtype=np.float64)
