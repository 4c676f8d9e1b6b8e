"""Episodes: frames, the actions that led to them and, where known, true poses. Batch first, time second."""

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.atomic import write_atomically
from gtm_pyro.errors import EpisodesError

SHARD_PATTERN = "*.npz"
_REQUIRED_ARRAYS = ("frames", "actions")
_OPTIONAL_ARRAYS = ("num_observed", "poses", "worlds")


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of episodes of which the first ``num_observed`` steps (tau) are memorised and the rest predicted.

    :param frames: x_{1:T}, shape (batch, time, channels, height, width), float32 or float64, values in [0, 1].
    :param actions: a_{1:T}, shape (batch, time, action_dim), of the dtype of the frames; one-hot or continuous.
        actions[:, t] led to frames[:, t]; actions[:, 0] is ignored, for the first frame is the start.
    :param num_observed: tau, between 1 and time.
    :param poses: true poses, shape (batch, time, pose_dim), for evaluation, and as targets of displacement regression.
    :param worlds: the images walked on, shape (batch, channels, world height, world width), for figures only.
    :param validate: also check every value (finite; frames and worlds in [0, 1]). Shapes and dtypes are always checked.
    :raises EpisodesError: names the argument, what was expected and what came; for a bad value, its first index.
    """

    frames: Tensor
    actions: Tensor
    num_observed: int
    poses: Tensor | None = None
    worlds: Tensor | None = None
    validate: InitVar[bool] = True

    def __post_init__(self, validate: bool) -> None:
        _check_shapes(self)
        if validate:
            for name, tensor in self._tensors().items():
                _check_values(name, tensor, in_unit_interval=name in ("frames", "worlds"))

    @property
    def batch_size(self) -> int:
        return self.frames.shape[0]

    @property
    def num_steps(self) -> int:
        """T, the memorised and the predicted steps together."""
        return self.frames.shape[1]

    @property
    def num_predicted(self) -> int:
        return self.num_steps - self.num_observed

    @property
    def action_dim(self) -> int:
        return self.actions.shape[-1]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        channels, height, width = self.frames.shape[2:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.frames.device

    @property
    def observed(self) -> "Episodes":
        """The memorised steps alone, as episodes of their own."""
        return self.steps(0, self.num_observed)

    @property
    def observed_frames(self) -> Tensor:
        """x_{1:tau}, shape (batch, num_observed, channels, height, width)."""
        return self.frames[:, : self.num_observed]

    @property
    def predicted_frames(self) -> Tensor:
        """x_{tau+1:T}, shape (batch, num_predicted, channels, height, width)."""
        return self.frames[:, self.num_observed :]

    @property
    def observed_actions(self) -> Tensor:
        """a_{1:tau}, shape (batch, num_observed, action_dim)."""
        return self.actions[:, : self.num_observed]

    @property
    def predicted_actions(self) -> Tensor:
        """a_{tau+1:T}, shape (batch, num_predicted, action_dim)."""
        return self.actions[:, self.num_observed :]

    @property
    def observed_poses(self) -> Tensor | None:
        return None if self.poses is None else self.poses[:, : self.num_observed]

    @property
    def predicted_poses(self) -> Tensor | None:
        return None if self.poses is None else self.poses[:, self.num_observed :]

    @property
    def displacements(self) -> Tensor:
        """True moves and turns in the agent's frame, R(-h_{t-1}) (p_t - p_{t-1}) and h_t - h_{t-1}: (batch, T - 1, 3).

        :raises EpisodesError: poses are not known, or are no position and heading (x, y, radians).
        """
        if self.poses is None or self.poses.shape[-1] != 3:
            got = "none" if self.poses is None else tuple(self.poses.shape)
            raise EpisodesError(f"poses: expected (batch, time, 3), a position and a heading, got {got}")
        dx, dy, turn = self.poses.diff(dim=1).unbind(-1)
        cos, sin = self.poses[:, :-1, 2].cos(), self.poses[:, :-1, 2].sin()
        return torch.stack([cos * dx + sin * dy, cos * dy - sin * dx, turn], -1)

    def to(self, target: torch.device | torch.dtype | str) -> "Episodes":
        """The same episodes on another device, or in another floating dtype (float32 or float64)."""
        moved = {name: tensor.to(target) for name, tensor in self._tensors().items()}
        return Episodes(num_observed=self.num_observed, validate=False, **moved)

    def split(self, num_observed: int) -> "Episodes":
        """The same steps with another number of memorised ones."""
        return Episodes(num_observed=num_observed, validate=False, **self._tensors())

    def steps(self, start: int, stop: int, num_observed: int | None = None) -> "Episodes":
        """Steps start to stop - 1 of every episode.

        :param num_observed: how many of them are memorised; by default those that were, and if none was it must be
            given.
        """
        if not 0 <= start < stop <= self.num_steps:
            raise EpisodesError(f"steps: expected 0 <= start < stop <= {self.num_steps}, got {start} and {stop}")
        if num_observed is None:
            num_observed = min(self.num_observed, stop) - start
        parts = {name: t if name == "worlds" else t[:, start:stop] for name, t in self._tensors().items()}
        return Episodes(num_observed=num_observed, validate=False, **parts)

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int | slice | Tensor) -> "Episodes":
        """Some episodes of the batch; an int keeps the batch axis, of size 1."""
        if isinstance(index, int):
            if not -self.batch_size <= index < self.batch_size:
                raise IndexError(f"episode {index} of a batch of {self.batch_size}")
            index = slice(index, index + 1 or None)
        parts = {name: tensor[index] for name, tensor in self._tensors().items()}
        return Episodes(num_observed=self.num_observed, validate=False, **parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one NPZ shard, whole or not at all.

        :raises EpisodesError: the file cannot be written (no rights, a full disk); what stood there stays.
        """
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self._tensors().items()}
        _write_arrays(Path(path), arrays | {"num_observed": np.asarray(self.num_observed)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], validate: bool = True) -> "Episodes":
        """Read one NPZ shard, one's own or one that ``save`` wrote.

        Arrays ``frames`` (floats in [0, 1], or uint8, which are divided by 255) and ``actions`` (numbers or
        booleans) are required; ``poses``, ``worlds`` and ``num_observed`` (by default every step) are optional;
        others are ignored.

        :raises EpisodesError: names the file, the array, what was expected and what came.
        """
        return episodes_from_arrays(read_shard(path), source=f"{path}: ", validate=validate)

    def _tensors(self) -> dict[str, Tensor]:
        fields = {"frames": self.frames, "actions": self.actions, "poses": self.poses, "worlds": self.worlds}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}


def concatenate(parts: Sequence[Episodes]) -> Episodes:
    """One batch out of several with the same number of steps, of memorised steps, and the same fields."""
    if not parts:
        raise EpisodesError("concatenate: expected at least one batch of episodes, got none")
    first = parts[0]._tensors()
    for number, part in enumerate(parts):
        if part._tensors().keys() != first.keys() or part.num_observed != parts[0].num_observed:
            raise EpisodesError(
                f"concatenate: expected {sorted(first)} with num_observed={parts[0].num_observed}, "
                f"got {sorted(part._tensors())} with num_observed={part.num_observed} in part {number}"
            )
        for name, tensor in part._tensors().items():
            if tensor.shape[1:] != first[name].shape[1:]:
                raise EpisodesError(
                    f"concatenate: {name}: expected (batch, *{tuple(first[name].shape[1:])}), "
                    f"got {tuple(tensor.shape)} in part {number}"
                )
    joined = {name: torch.cat([part._tensors()[name] for part in parts]) for name in first}
    return Episodes(num_observed=parts[0].num_observed, validate=False, **joined)


def save_shards(episodes: Episodes, directory: str | os.PathLike[str], shard_size: int = 64) -> list[Path]:
    """Write episodes as NPZ shards of at most ``shard_size`` episodes each, and return their paths.

    :raises EpisodesError: the folder holds shards already (two data sets would mix), or cannot be written.
    """
    directory = Path(directory)
    if shard_size < 1:
        raise EpisodesError(f"shard_size: expected at least 1, got {shard_size}")
    if directory.is_dir() and any(directory.glob(SHARD_PATTERN)):
        raise EpisodesError(f"{directory}: expected a folder without {SHARD_PATTERN} files, it holds some")
    paths = []
    for number, start in enumerate(range(0, episodes.batch_size, shard_size)):
        paths.append(directory / f"episodes-{number:05d}.npz")
        episodes[start : start + shard_size].save(paths[-1])
    return paths


def load_shards(directory: str | os.PathLike[str], validate: bool = True) -> Episodes:
    """Every shard of a folder, in the order of their names, as one batch."""
    return concatenate([Episodes.load(path, validate) for path in find_shards(directory)])


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
        reason = _first_line(error)
        raise EpisodesError(f"{path}: {name}: expected a whole array of numbers ({reason})") from error
    return arrays


def episodes_from_arrays(arrays: Mapping[str, np.ndarray], source: str = "", validate: bool = True) -> Episodes:
    """Episodes from stored arrays: uint8 frames become [0, 1], everything takes the dtype of the frames.

    :param source: put before an error's message, for instance the file's name and a colon.
    """
    try:
        tensors = {name: _to_tensor(name, array) for name, array in arrays.items() if name != "num_observed"}
        dtype = tensors["frames"].dtype
        steps = arrays["frames"].shape[1] if arrays["frames"].ndim > 1 else 1
        tau = arrays.get("num_observed", np.asarray(steps))
        if tau.ndim or tau.dtype.kind not in "iu":
            raise EpisodesError(f"num_observed: expected one whole number, got {tau.dtype}, shape {tau.shape}")
        moved = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        return Episodes(num_observed=int(tau), validate=validate, **moved)
    except EpisodesError as error:
        raise EpisodesError(f"{source}{error}") from None


def _to_tensor(name: str, array: np.ndarray) -> Tensor:
    if name in ("frames", "worlds") and array.dtype == np.uint8:
        return torch.from_numpy(array).to(torch.float32) / 255
    allowed = "f" if name in ("frames", "worlds") else "fiub"
    if array.dtype.kind not in allowed:
        kinds = "floats in [0, 1] or uint8" if allowed == "f" else "numbers"
        raise EpisodesError(f"{name}: expected {kinds}, got dtype {array.dtype}")
    return torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    content = BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise EpisodesError(f"{path}: could not be written ({error.strerror or error})") from error


def _check_shapes(episodes: Episodes) -> None:
    tensors = {"frames": episodes.frames, "actions": episodes.actions} | episodes._tensors()
    axes = {"frames": "batch, time, channels, height, width", "actions": "batch, time, action_dim"}
    axes |= {"poses": "batch, time, pose_dim", "worlds": "batch, channels, height, width"}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise EpisodesError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
        if tensor.ndim != len(axes[name].split(",")) or 0 in tensor.shape:
            raise EpisodesError(f"{name}: expected ({axes[name]}), none of them 0, got {tuple(tensor.shape)}")
    frames = episodes.frames
    if frames.dtype not in (torch.float32, torch.float64):
        raise EpisodesError(f"frames: expected dtype float32 or float64, got {frames.dtype}")
    for name, tensor in tensors.items():
        lead = frames.shape[:1] if name == "worlds" else frames.shape[:2]
        if tensor.shape[: len(lead)] != lead:
            rest = tuple(tensor.shape[len(lead) :])
            raise EpisodesError(f"{name}: expected {(*lead, *rest)}, got {tuple(tensor.shape)}")
        if tensor.dtype != frames.dtype or tensor.device != frames.device:
            raise EpisodesError(
                f"{name}: expected {frames.dtype} on {frames.device} like the frames, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    tau = episodes.num_observed
    if isinstance(tau, bool) or not isinstance(tau, int) or not 1 <= tau <= frames.shape[1]:
        raise EpisodesError(f"num_observed: expected a whole number from 1 to {frames.shape[1]}, got {tau!r}")


def _check_values(name: str, tensor: Tensor, in_unit_interval: bool) -> None:
    # NaN compares as false, so it counts as bad in both cases.
    good = (tensor >= 0) & (tensor <= 1) if in_unit_interval else tensor.isfinite()
    if not bool(good.all()):
        index = (~good).nonzero()[0].tolist()
        expected = "a value in [0, 1]" if in_unit_interval else "a finite value"
        raise EpisodesError(f"{name}{index}: expected {expected}, got {tensor[tuple(index)].item():g}")


def _what_stands_at(path: Path) -> str:
    if path.is_dir():
        return "got a folder"
    return "got a file" if path.exists() else "there is nothing"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
