"""Bytes and whole numbers, which episodes keep, as the floats that programs see."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import one_hot

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Seen:
    """A field that keeps a tensor as it was given, and gives it as programs see it.

    :param see: from the episodes and the tensor that they keep to the one that is seen.
    """

    def __init__(self, see: Callable[[Any, Tensor], Tensor]) -> None:
        self._see = see

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, episodes: None, owner: type) -> "Seen": ...
    @overload
    def __get__(self, episodes: object, owner: type | None = None) -> Tensor: ...
    def __get__(self, episodes: object | None, owner: type | None = None) -> "Seen | Tensor":
        if episodes is None:
            raise AttributeError(self._name)  # so that dataclass finds no default
        return self._see(episodes, vars(episodes)[self._name])

    def __set__(self, episodes: object, value: Tensor) -> None:
        vars(episodes)[self._name] = value


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
