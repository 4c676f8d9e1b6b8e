"""Shapes, dtypes and numbers of actions that a batch of episodes may have."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gtm_pyro.episodes.stored import INTEGERS, are_indices, seen_dtype
from gtm_pyro.errors import EpisodesError, check_whole
from gtm_pyro.poses.conventions import channels_last

_AXES = {"frames": "batch, time, channels, height, width", "actions": "batch, time, action_dim"}
_AXES |= {"poses": "batch, time, pose_dim", "worlds": "batch, channels, height, width", "is_first": "batch, time"}
_INDICES = "batch, time"


def check_shapes(tensors: Mapping[str, Tensor], num_observed: int) -> None:
    """
    :param tensors: by the names of an episode's fields, as they are kept.
    :raises EpisodesError: names the tensor, what was expected and what came.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise EpisodesError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")
        axes = _INDICES if name == "actions" and are_indices(tensor) else _AXES[name]
        if tensor.ndim != len(axes.split(",")) or 0 in tensor.shape:
            flat = name == "actions" and tensor.ndim == 2
            advice = f"; numbers of actions are whole, got {tensor.dtype}: actions.long()" if flat else ""
            raise EpisodesError(f"{name}: expected ({axes}), none of them 0, got {tuple(tensor.shape)}{advice}")
    frames = tensors["frames"]
    if channels_last(frames.shape[2:]):
        raise EpisodesError(
            f"frames: expected ({_AXES['frames']}), got {tuple(frames.shape)}, which seems to have the channels last; "
            "permute the axes to (0, 1, 4, 2, 3)"
        )
    if frames.dtype not in (torch.float32, torch.float64, torch.uint8):
        raise EpisodesError(f"frames: expected dtype float32, float64 or uint8, got {frames.dtype}")
    for name, tensor in tensors.items():
        lead = frames.shape[:1] if name == "worlds" else frames.shape[:2]
        if tensor.shape[: len(lead)] != lead:
            rest = tuple(tensor.shape[len(lead) :])
            raise EpisodesError(f"{name}: expected {(*lead, *rest)}, got {tuple(tensor.shape)}")
        _check_kind(name, tensor, frames)
    steps = frames.shape[1]
    check_whole(1, steps, EpisodesError, num_observed=num_observed)


def _check_kind(name: str, tensor: Tensor, frames: Tensor) -> None:
    dtype = torch.bool if name == "is_first" else seen_dtype(frames)
    kept = name == "frames" or (name == "actions" and are_indices(tensor))
    if (tensor.dtype != dtype and not kept) or tensor.device != frames.device:
        like = "" if name == "is_first" else " like the frames"
        raise EpisodesError(f"{name}: expected {dtype} on {frames.device}{like}, got {tensor.dtype} on {tensor.device}")


def count_actions(actions: Tensor, said: int | None, continuous: bool | None, validate: bool) -> int | None:
    """How many actions there are, if they are whole numbers; otherwise what was said.

    :param said: by the user or the file.
    :param validate: also look at what was said.
    :raises EpisodesError: an action that cannot be, or a number that vectors have not.
    """
    if said is not None:
        check_whole(1, None, EpisodesError, num_actions=said)
    if not are_indices(actions):
        if said is not None and said != actions.shape[-1]:
            raise EpisodesError(f"num_actions: expected {actions.shape[-1]}, as vectors of actions have, got {said}")
        return said
    if continuous:
        raise EpisodesError("actions: expected (batch, time, action_dim) as continuous_actions says, got whole numbers")
    if said is not None and (not validate or actions.is_meta):
        return said
    largest, least = int(actions.max()), int(actions.min())
    if least < 0 or (said is not None and largest >= said):
        bad = ((actions < 0) | (actions >= (said or largest + 1))).nonzero()[0].tolist()
        most = "" if said is None else f" to {said - 1}"
        raise EpisodesError(f"actions{bad}: expected a whole number from 0{most}, got {int(actions[tuple(bad)])}")
    return said or largest + 1


def as_numbers(actions: Tensor, frames: Tensor) -> Tensor:
    """Vectors of whole numbers or booleans as the floats that they stand for."""
    if isinstance(actions, Tensor) and actions.ndim == 3 and actions.dtype in (*INTEGERS, torch.bool):
        return actions.to(seen_dtype(frames))
    return actions
