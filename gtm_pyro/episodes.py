"""Episodes: frames, the actions that led to them and, where known, true poses. Batch first, time second."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.poses.conventions import (
    HEADING,
    channels_last,
    check_pose_names,
    check_range,
    check_values,
    turned_back,
    wrapped,
)
from gtm_pyro.storage.atomic import write_arrays
from gtm_pyro.storage.shards import DECLARATIONS, SHARD_PATTERN, declared, fields_of, find_shards, read_shard


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of episodes of which the first ``num_observed`` steps (tau) are memorised and the rest predicted.

    :param frames: x_{1:T}, shape (batch, time, channels, height, width), float32 or float64, values in [0, 1].
    :param actions: a_{1:T}, shape (batch, time, action_dim), of the dtype of the frames; one-hot or continuous.
        actions[:, t] led to frames[:, t]; actions[:, 0] is ignored, for the first frame is the start.
    :param num_observed: tau, between 1 and time.
    :param poses: true poses, shape (batch, time, pose_dim), for evaluation, and as targets of displacement regression.
    :param worlds: the images walked on, shape (batch, channels, world height, world width), for figures only.
    :param pose_names: of the columns of poses; needed for three and more. ("x", "y", "heading") are a position and a
        heading in radians, which grows from the first axis to the second: 0 looks along x, pi / 2 along y. It may be
        wrapped or not. Other names are coordinates of a position; a third one is never taken for a heading.
    :param continuous_actions: True for numbers, False for one-hot vectors, which are then checked. None leaves it open,
        and refuses one column of whole numbers, for these look like indices.
    :param validate: also check every value (finite; frames and worlds in [0, 1]; headings not in degrees; actions).
        Shapes, dtypes and names are always checked.
    :raises EpisodesError: names the argument, what was expected and what came; for a bad value, its first index.
    """

    frames: Tensor
    actions: Tensor
    num_observed: int
    poses: Tensor | None = None
    worlds: Tensor | None = None
    pose_names: tuple[str, ...] | None = None
    continuous_actions: bool | None = None
    validate: InitVar[bool] = True

    def __post_init__(self, validate: bool) -> None:
        _check_shapes(self)
        pose_dim = None if self.poses is None else self.poses.shape[-1]
        object.__setattr__(self, "pose_names", check_pose_names(self.pose_names, pose_dim))
        if validate:
            check_values(self._tensors(), self.has_heading, self.continuous_actions)

    def check_finite(self) -> None:
        """Look at every frame and action, as ``validate`` does when episodes are made.

        :raises EpisodesError: one is NaN or infinite; names the first, ``frames[episode, step, ...]``.
        """
        for name in ("frames", "actions"):
            check_range(name, getattr(self, name), in_unit_interval=False)

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
    def has_heading(self) -> bool:
        """Whether poses are declared to be a position in a plane and a heading."""
        return self.pose_names is not None and self.pose_names[-1] == HEADING

    @property
    def displacements(self) -> Tensor:
        """True moves and turns in the agent's frame, R(-h_{t-1}) (p_t - p_{t-1}) and h_t - h_{t-1}: (batch, T - 1, 3).

        Turns go the short way round, (-pi, pi], whether or not headings are wrapped.

        :raises EpisodesError: poses are not known, or not declared to be a position and a heading.
        """
        if self.poses is None or not self.has_heading:
            got = "none" if self.poses is None else f"{tuple(self.poses.shape)} named {self.pose_names}"
            raise EpisodesError(
                f"poses: expected (batch, time, 3), a position and a heading as pose_names (x, y, heading), got {got}"
            )
        moves = self.poses.diff(dim=1)
        ahead = turned_back(moves[..., :2], self.poses[:, :-1, 2])
        return torch.cat([ahead, wrapped(moves[..., 2:])], -1)

    def to(self, target: torch.device | torch.dtype | str) -> "Episodes":
        """The same episodes on another device, or in another floating dtype (float32 or float64)."""
        return self._with({name: tensor.to(target) for name, tensor in self._tensors().items()})

    def split(self, num_observed: int) -> "Episodes":
        """The same steps with another number of memorised ones."""
        return self._with({}, num_observed)

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
        return self._with(parts, num_observed)

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int | slice | Tensor) -> "Episodes":
        """Some episodes of the batch; an int keeps the batch axis, of size 1."""
        if isinstance(index, int):
            if not -self.batch_size <= index < self.batch_size:
                raise IndexError(f"episode {index} of a batch of {self.batch_size}")
            index = slice(index, index + 1 or None)
        parts = {name: tensor[index] for name, tensor in self._tensors().items()}
        return self._with(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one NPZ shard, whole or not at all.

        :raises EpisodesError: the file cannot be written (no rights, a full disk); what stood there stays.
        """
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self._tensors().items()}
        said = {name: getattr(self, name) for name in DECLARATIONS}
        arrays |= {name: np.asarray(value) for name, value in said.items() if value is not None}
        write_arrays(path, arrays, EpisodesError)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        validate: bool = True,
        *,
        pose_names: Sequence[str] | None = None,
        continuous_actions: bool | None = None,
    ) -> "Episodes":
        """Read one NPZ shard, one's own or one that ``save`` wrote.

        Arrays ``frames`` (floats in [0, 1], or uint8, which are divided by 255) and ``actions`` (numbers or
        booleans) are required; ``poses``, ``worlds``, ``num_observed`` (by default every step), ``pose_names`` and
        ``continuous_actions`` are optional; others are ignored.

        :param pose_names: for a file that does not say.
        :param continuous_actions: likewise.
        :raises EpisodesError: names the file, the array, what was expected and what came.
        """
        arrays = declared(read_shard(path), f"{path}: ", pose_names, continuous_actions)
        return episodes_from_arrays(arrays, source=f"{path}: ", validate=validate)

    def _with(self, tensors: Mapping[str, Tensor], num_observed: int | None = None) -> "Episodes":
        """With other tensors, whose values are as good as these."""
        tau = self.num_observed if num_observed is None else num_observed
        # as a dict, for mypy knows no InitVar here
        changes: dict[str, Any] = {**tensors, "num_observed": tau, "validate": False}
        return replace(self, **changes)

    def _tensors(self) -> dict[str, Tensor]:
        fields = {"frames": self.frames, "actions": self.actions, "poses": self.poses, "worlds": self.worlds}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}


def concatenate(parts: Sequence[Episodes]) -> Episodes:
    """One batch out of several with the same number of steps, of memorised steps, and the same fields."""
    if not parts:
        raise EpisodesError("concatenate: expected at least one batch of episodes, got none")
    first = parts[0]._tensors()
    for number, part in enumerate(parts):
        for name in DECLARATIONS[1:]:
            expected, got = getattr(parts[0], name), getattr(part, name)
            if got != expected:
                raise EpisodesError(f"concatenate: {name}: expected {expected}, got {got} in part {number}")
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
    return parts[0]._with(joined)


def save_shards(episodes: Episodes, directory: str | os.PathLike[str], shard_size: int = 64) -> list[Path]:
    """Write episodes as NPZ shards of at most ``shard_size`` episodes each, and return their paths.

    :raises EpisodesError: the folder holds shards already (two data sets would mix), or cannot be written; then none of
        these shards stays.
    """
    directory = Path(directory)
    if shard_size < 1:
        raise EpisodesError(f"shard_size: expected at least 1, got {shard_size}")
    if directory.is_dir() and any(directory.glob(SHARD_PATTERN)):
        raise EpisodesError(f"{directory}: expected a folder without {SHARD_PATTERN} files, it holds some")
    paths: list[Path] = []
    try:
        for number, start in enumerate(range(0, episodes.batch_size, shard_size)):
            path = directory / f"episodes-{number:05d}.npz"
            episodes[start : start + shard_size].save(path)
            paths.append(path)
    except BaseException:  # a part of a data set would pass for the whole
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return paths


def load_shards(
    directory: str | os.PathLike[str],
    validate: bool = True,
    *,
    pose_names: Sequence[str] | None = None,
    continuous_actions: bool | None = None,
) -> Episodes:
    """Every shard of a folder, in the order of their names, as one batch; the rest is as of ``Episodes.load``."""
    given: dict[str, Any] = {"pose_names": pose_names, "continuous_actions": continuous_actions}
    return concatenate([Episodes.load(path, validate, **given) for path in find_shards(directory)])


def episodes_from_arrays(arrays: Mapping[str, np.ndarray], source: str = "", validate: bool = True) -> Episodes:
    """Episodes from stored arrays: uint8 frames become [0, 1], everything takes the dtype of the frames.

    :param source: put before an error's message, for instance the file's name and a colon.
    """
    try:
        return Episodes(validate=validate, **fields_of(arrays))
    except EpisodesError as error:
        raise EpisodesError(f"{source}{error}") from None


def _check_shapes(episodes: Episodes) -> None:
    tensors = {"frames": episodes.frames, "actions": episodes.actions} | episodes._tensors()
    axes = {"frames": "batch, time, channels, height, width", "actions": "batch, time, action_dim"}
    axes |= {"poses": "batch, time, pose_dim", "worlds": "batch, channels, height, width"}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise EpisodesError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
        if tensor.ndim != len(axes[name].split(",")) or 0 in tensor.shape:
            one_hot = name == "actions" and tensor.ndim == 2
            advice = "; torch.nn.functional.one_hot makes vectors of indices" if one_hot else ""
            raise EpisodesError(f"{name}: expected ({axes[name]}), none of them 0, got {tuple(tensor.shape)}{advice}")
    frames = episodes.frames
    if channels_last(episodes.frame_shape):
        raise EpisodesError(
            f"frames: expected ({axes['frames']}), got {tuple(frames.shape)}, which seems to have the channels last; "
            "permute the axes to (0, 1, 4, 2, 3)"
        )
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
