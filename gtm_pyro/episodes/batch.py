"""A batch of episodes: what is in it, what is checked of it, and its parts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.episodes.checks import as_numbers, check_shapes, count_actions
from gtm_pyro.episodes.stored import are_indices, seen, seen_actions, seen_dtype, seen_pixels
from gtm_pyro.errors import EpisodesError
from gtm_pyro.poses.conventions import HEADING, check_pose_names, check_range, check_values
from gtm_pyro.poses.planar import displacements
from gtm_pyro.storage.atomic import write_arrays
from gtm_pyro.storage.shards import ARRAYS, DECLARATIONS, declared, fields_of, read_shard


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of episodes of which the first ``num_observed`` steps (tau) are memorised and the rest predicted.

    Frames that are given as bytes and actions that are given as whole numbers are kept so; ``frames`` and ``actions``
    are what programs see of them, floats.

    :param frames: x_{1:T}, shape (batch, time, channels, height, width), float32 or float64, values in [0, 1]; or
        uint8, 0 to 255, seen as float32.
    :param actions: a_{1:T}, shape (batch, time, action_dim), of the dtype of the frames; one-hot or continuous. Or
        whole numbers from 0, of shape (batch, time) and an integer dtype, seen as one-hot vectors.
        actions[:, t] led to frames[:, t]; actions[:, 0] is ignored, for the first frame is the start.
    :param num_observed: tau, between 1 and time.
    :param poses: true poses, shape (batch, time, pose_dim), for evaluation, and as targets of displacement regression.
    :param worlds: the images walked on, shape (batch, channels, world height, world width), for figures only.
    :param pose_names: of the columns of poses; needed for three and more. ("x", "y", "heading") are a position and a
        heading in radians, which grows from the first axis to the second: 0 looks along x, pi / 2 along y. It may be
        wrapped or not. Other names are coordinates of a position; a third one is never taken for a heading.
    :param continuous_actions: True for numbers, False for one-hot vectors, which are then checked. None leaves it open,
        and refuses one column of whole numbers, for these look like indices. Whole numbers make it False.
    :param num_actions: how many actions there are where they are whole numbers; by default as many as the largest says.
    :param is_first: shape (batch, time), bool: where within a recording another episode starts. It is for recordings
        that are saved; windows of them cross no start, and programs see none.
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
    num_actions: int | None = None
    is_first: Tensor | None = None

    def __post_init__(self, validate: bool) -> None:
        held = vars(self)
        held["actions"] = as_numbers(held["actions"], held["frames"])
        check_shapes(self.stored, self.num_observed)
        pose_dim = None if self.poses is None else self.poses.shape[-1]
        object.__setattr__(self, "pose_names", check_pose_names(self.pose_names, pose_dim))
        held["num_actions"] = count_actions(held["actions"], self.num_actions, self.continuous_actions, validate)
        if are_indices(held["actions"]):
            held["continuous_actions"] = False
        if validate:
            floats = {name: tensor for name, tensor in self.stored.items() if tensor.is_floating_point()}
            check_values(floats, self.has_heading, self.continuous_actions, self.is_first)

    @property
    def stored(self) -> dict[str, Tensor]:
        """The tensors that there are, as they are kept: bytes and whole numbers where these were given."""
        held = vars(self)
        return {name: held[name] for name in ARRAYS if held.get(name) is not None}

    @property
    def dtype(self) -> torch.dtype:
        """Of what programs see: that of the frames, float32 where they are bytes."""
        return seen_dtype(self.stored["frames"])

    def check_finite(self) -> None:
        """Look at every frame and action, as ``validate`` does when episodes are made.

        :raises EpisodesError: one is NaN or infinite; names the first, ``frames[episode, step, ...]``.
        """
        for name, tensor in self.stored.items():
            if name in ("frames", "actions") and tensor.is_floating_point():
                check_range(name, tensor, in_unit_interval=False)

    @property
    def batch_size(self) -> int:
        return len(self.stored["frames"])

    @property
    def num_steps(self) -> int:
        """T, the memorised and the predicted steps together."""
        return self.stored["frames"].shape[1]

    @property
    def num_predicted(self) -> int:
        return self.num_steps - self.num_observed

    @property
    def action_dim(self) -> int:
        return self.num_actions or self.stored["actions"].shape[-1]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        channels, height, width = self.stored["frames"].shape[2:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.stored["frames"].device

    @property
    def observed(self) -> "Episodes":
        """The memorised steps alone, as episodes of their own."""
        return self.steps(0, self.num_observed)

    @property
    def observed_frames(self) -> Tensor:
        """x_{1:tau}, shape (batch, num_observed, channels, height, width)."""
        return seen_pixels(self.stored["frames"][:, : self.num_observed])

    @property
    def predicted_frames(self) -> Tensor:
        """x_{tau+1:T}, shape (batch, num_predicted, channels, height, width)."""
        return seen_pixels(self.stored["frames"][:, self.num_observed :])

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
        return displacements(self.poses)

    def to(self, target: torch.device | torch.dtype | str) -> "Episodes":
        """The same episodes on another device, or as floats of a dtype (float32 or float64), bytes too."""
        if not isinstance(target, torch.dtype):
            return self._with({name: tensor.to(target) for name, tensor in self.stored.items()})
        seen = {name: getattr(self, name) for name in self.stored if name != "is_first"}
        return self._with({name: tensor.to(target) for name, tensor in seen.items()})

    def steps(self, start: int, stop: int, num_observed: int | None = None) -> "Episodes":
        """Steps start to stop - 1 of every episode.

        :param num_observed: how many of them are memorised; by default those that were, and if none was it must be
            given.
        """
        if not 0 <= start < stop <= self.num_steps:
            raise EpisodesError(f"steps: expected 0 <= start < stop <= {self.num_steps}, got {start} and {stop}")
        if num_observed is None:
            num_observed = min(self.num_observed, stop) - start
        parts = {name: t if name == "worlds" else t[:, start:stop] for name, t in self.stored.items()}
        return self._with(parts, num_observed)

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int | slice | Tensor) -> "Episodes":
        """Some episodes of the batch; an int keeps the batch axis, of size 1."""
        if isinstance(index, int):
            if not -self.batch_size <= index < self.batch_size:
                raise IndexError(f"episode {index} of a batch of {self.batch_size}")
            index = slice(index, index + 1 or None)
        parts = {name: tensor[index] for name, tensor in self.stored.items()}
        return self._with(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one NPZ shard, whole or not at all.

        :raises EpisodesError: the file cannot be written (no rights, a full disk); what stood there stays.
        """
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.stored.items()}
        said = {name: getattr(self, name) for name in DECLARATIONS}
        arrays |= {name: np.asarray(value) for name, value in said.items() if value is not None}
        write_arrays(path, arrays, EpisodesError, compressed=arrays["frames"].dtype == np.uint8)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        validate: bool = True,
        *,
        pose_names: Sequence[str] | None = None,
        continuous_actions: bool | None = None,
        num_actions: int | None = None,
    ) -> "Episodes":
        """Read one NPZ shard, one's own or one that ``save`` wrote.

        Arrays ``frames`` (floats in [0, 1], or uint8) and ``actions`` (vectors of numbers or booleans, or whole
        numbers of shape (batch, time)) are required; ``poses``, ``worlds``, ``is_first``, ``num_observed`` (by default
        every step), ``pose_names``, ``continuous_actions`` and ``num_actions`` are optional; others are ignored.

        :param pose_names: for a file that does not say.
        :param continuous_actions: likewise.
        :param num_actions: likewise.
        :raises EpisodesError: names the file, the array, what was expected and what came.
        """
        said = {"pose_names": pose_names, "continuous_actions": continuous_actions, "num_actions": num_actions}
        arrays = declared(read_shard(path), f"{path}: ", **said)
        return episodes_from_arrays(arrays, source=f"{path}: ", validate=validate)

    def _with(self, tensors: Mapping[str, Tensor], num_observed: int | None = None) -> "Episodes":
        """With other tensors, whose values are as good as these."""
        tau = self.num_observed if num_observed is None else num_observed
        # as a dict, for mypy knows no InitVar here
        changes: dict[str, Any] = {**self.stored, **tensors, "num_observed": tau, "validate": False}
        return replace(self, **changes)


# as properties they would be no fields; what is given still goes through them
setattr(Episodes, "frames", seen("frames", lambda _, kept: seen_pixels(kept)))  # noqa: B010
setattr(Episodes, "actions", seen("actions", seen_actions))  # noqa: B010


def concatenate(parts: Sequence[Episodes]) -> Episodes:
    """One batch out of several with the same number of steps, of memorised steps, and the same fields."""
    if not parts:
        raise EpisodesError("concatenate: expected at least one batch of episodes, got none")
    first = parts[0].stored
    for number, part in enumerate(parts):
        for name in DECLARATIONS[1:]:
            expected, got = getattr(parts[0], name), getattr(part, name)
            if got != expected:
                raise EpisodesError(f"concatenate: {name}: expected {expected}, got {got} in part {number}")
        if part.stored.keys() != first.keys() or part.num_observed != parts[0].num_observed:
            raise EpisodesError(
                f"concatenate: expected {sorted(first)} with num_observed={parts[0].num_observed}, "
                f"got {sorted(part.stored)} with num_observed={part.num_observed} in part {number}"
            )
        for name, tensor in part.stored.items():
            if tensor.shape[1:] != first[name].shape[1:]:
                raise EpisodesError(
                    f"concatenate: {name}: expected (batch, *{tuple(first[name].shape[1:])}), "
                    f"got {tuple(tensor.shape)} in part {number}"
                )
    joined = {name: torch.cat([part.stored[name] for part in parts]) for name in first}
    return parts[0]._with(joined)


def episodes_from_arrays(arrays: Mapping[str, np.ndarray], source: str = "", validate: bool = True) -> Episodes:
    """Episodes from stored arrays.

    :param source: put before an error's message, for instance the file's name and a colon.
    """
    try:
        return Episodes(validate=validate, **fields_of(arrays))
    except EpisodesError as error:
        raise EpisodesError(f"{source}{error}") from None
