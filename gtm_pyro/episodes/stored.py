"""Bytes and whole numbers, which episodes keep, as the floats that programs see."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def seen(name: str, see: Callable[[Any, Tensor], Tensor]) -> property:
    """A field that keeps a tensor as it was given, and gives it as programs see it.

    :param see: from the episodes and the tensor that they keep to the one that is seen.
    """

    def get(episodes: Any) -> Tensor:
        return see(episodes, vars(episodes)[name])

    def keep(episodes: Any, given: Tensor) -> None:
        vars(episodes)[name] = given

    return property(get, keep)


def seen_pixels(stored: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1], the same on every device; floats as they are."""
    if stored.dtype != torch.uint8:
        return stored
    # by a tensor, for a GPU multiplies by the inverse of a plain number, which rounds in another way
    return stored.to(torch.float32) / torch.full((), 255.0, device=stored.device)


def are_indices(actions: Tensor) -> bool:
    """Whether actions are numbers of actions, (batch, time), and not vectors."""
    return actions.ndim == 2 and actions.dtype in INTEGERS


def seen_actions(episodes: Any, stored: Tensor) -> Tensor:
    """One-hot vectors for the numbers of actions, vectors as they are."""
    if not are_indices(stored):
        return stored
    # kept, for programs tell by its identity that an episode is the same
    held = vars(episodes)
    if "_vectors" not in held:
        held["_vectors"] = one_hot(stored.long(), episodes.num_actions).to(episodes.dtype)
    made: Tensor = held["_vectors"]
    return made


def seen_dtype(frames: Tensor) -> torch.dtype:
    """Of what programs see, where frames are kept so."""
    return torch.float32 if frames.dtype == torch.uint8 else frames.dtype
