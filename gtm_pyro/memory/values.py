"""What a memory holds under its keys: sufficient statistics, stored, or computed for what is read.

Section 3 of Fraccaro et al. 2018 stores the sufficient statistics of q(z | x), not samples of z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gtm_pyro.errors import MemoryReadError

Encode = Callable[[Tensor], Mapping[str, Tensor]]


@runtime_checkable
class Values(Protocol):
    """The value half of a memory: N entries of named statistics, for a batch of memories."""

    @property
    def num_entries(self) -> int:
        """N, the entries of each memory."""
        ...

    def gather(self, index: Tensor | None) -> dict[str, Tensor]:
        """Statistics (*batch, Q, K, ...) of entries ``index`` (*batch, Q, K); (*batch, 1, N, ...) for None."""
        ...

    def concat(self, other: Values) -> Values:
        """These entries followed by the other's."""
        ...


class StoredValues:
    """Statistics held as tensors.

    :param stats: tensors (*batch, N, ...) by name, all with the same leading (*batch, N).
    :param batch_dims: how many dimensions ``*batch`` has.

    An index may have more leading dimensions than the values (vectorised particles), which then share the
    values.
    """

    def __init__(self, stats: Mapping[str, Tensor], batch_dims: int = 1) -> None:
        if not stats:
            raise MemoryReadError("values: expected at least one statistic, got an empty mapping")
        leading = next(iter(stats.values())).shape[: batch_dims + 1]
        for name, stat in stats.items():
            if stat.dim() < batch_dims + 1 or stat.shape[: batch_dims + 1] != leading:
                raise MemoryReadError(
                    f"values: expected every statistic to begin with (*batch, N) = {tuple(leading)}, "
                    f"{batch_dims} batch dimension(s), got {name} {tuple(stat.shape)}"
                )
        self.stats = dict(stats)
        self.batch_shape = leading[:-1]

    @property
    def num_entries(self) -> int:
        return self._leading[-1]

    @property
    def _leading(self) -> torch.Size:
        return next(iter(self.stats.values())).shape[: len(self.batch_shape) + 1]

    def gather(self, index: Tensor | None) -> dict[str, Tensor]:
        depth = len(self.batch_shape)
        if index is None:
            return {name: stat.unsqueeze(depth) for name, stat in self.stats.items()}
        rows = _flat_rows(index, self.batch_shape, self.num_entries)
        return {name: _take_rows(stat.flatten(0, depth), rows) for name, stat in self.stats.items()}

    def concat(self, other: Values) -> StoredValues:
        if not isinstance(other, StoredValues) or other.stats.keys() != self.stats.keys():
            came = sorted(other.stats) if isinstance(other, StoredValues) else type(other).__name__
            raise MemoryReadError(f"values: expected StoredValues of {sorted(self.stats)} to append, got {came}")
        first, second, batch = _on_one_batch(self.stats, self.batch_shape, other.stats, other.batch_shape)
        joined = {name: torch.cat([first[name], second[name]], len(batch)) for name in first}
        return StoredValues(joined, len(batch))


class DeferredValues:
    """Frames whose statistics are computed when they are read: a frame that nobody retrieves costs nothing.

    :param encode: q(z | x): frames (n, C, H, W) -> statistics (n, ...) by name; each frame by itself (no
        batch norm).
    :param frames: (*batch, N, C, H, W).
    :param known: statistics that need no encoding, (*other batch, N, ...) by name, read beside those that do.

    On a CPU a read encodes each frame that it names once. On other devices it encodes them all, since to know
    how many different frames were named would make the host wait for the device.
    """

    def __init__(self, encode: Encode, frames: Tensor, known: StoredValues | None = None) -> None:
        if frames.dim() < 4:
            raise MemoryReadError(f"frames: expected (*batch, N, C, H, W), got {tuple(frames.shape)}")
        if known is not None and known.num_entries != frames.shape[-4]:
            raise MemoryReadError(f"known: expected {frames.shape[-4]} entries, one a frame, got {known.num_entries}")
        self.encode = encode
        self.frames = frames
        self.known = known

    @property
    def batch_shape(self) -> torch.Size:
        return self.frames.shape[:-4]

    @property
    def num_entries(self) -> int:
        return self.frames.shape[-4]

    def encoded(self) -> StoredValues:
        """Every frame encoded now: cheaper than to defer when one memory is read many times."""
        leading = self.frames.shape[:-3]
        stats = self.encode(self.frames.reshape(-1, *self.frames.shape[-3:]))
        made = {name: stat.reshape(*leading, *stat.shape[1:]) for name, stat in stats.items()}
        if self.known is None:
            return StoredValues(made, len(leading) - 1)
        made, known, batch = _on_one_batch(made, leading[:-1], self.known.stats, self.known.batch_shape)
        return StoredValues(made | known, len(batch))

    def gather(self, index: Tensor | None) -> dict[str, Tensor]:
        if index is None or index.device.type != "cpu":
            return self.encoded().gather(index)
        known = {} if self.known is None else self.known.gather(index)
        rows = _flat_rows(index, self.batch_shape, self.num_entries)
        named, position = torch.unique(rows, return_inverse=True)
        stats = self.encode(self.frames.reshape(-1, *self.frames.shape[-3:]).index_select(0, named))
        return {name: _take_rows(stat, position) for name, stat in stats.items()} | known

    def concat(self, other: Values) -> DeferredValues:
        if not isinstance(other, DeferredValues) or other.encode != self.encode:
            raise MemoryReadError(
                "values: expected DeferredValues with the same encode to append, got "
                + ("another encode" if isinstance(other, DeferredValues) else type(other).__name__)
            )
        first, second, batch = _on_one_batch(
            {"frames": self.frames}, self.batch_shape, {"frames": other.frames}, other.batch_shape
        )
        if (self.known is None) != (other.known is None):
            raise MemoryReadError("values: expected the same known statistics to append, got some on one side only")
        known = self.known.concat(other.known) if self.known and other.known else None
        return DeferredValues(self.encode, torch.cat([first["frames"], second["frames"]], len(batch)), known)


def as_values(values: Values | Mapping[str, Tensor], keys: Tensor) -> Values:
    """``values`` itself, or a mapping of tensors as StoredValues for ``keys`` (*batch, N, key_dim).

    The tensors begin with (*batch, N), or with its last dimensions where one value serves several leading
    ones.
    """
    if not isinstance(values, Mapping):
        return values
    for skip in range(keys.dim() - 1):
        leading = keys.shape[skip:-1]
        if all(stat.shape[: len(leading)] == leading for stat in values.values()):
            return StoredValues(values, len(leading) - 1)
    shapes = {name: tuple(stat.shape) for name, stat in values.items()}
    raise MemoryReadError(
        f"values: expected tensors that begin with (*batch, N) = {tuple(keys.shape[:-1])}, got {shapes}"
    )


def _flat_rows(index: Tensor, batch_shape: torch.Size, num_entries: int) -> Tensor:
    """Rows of entries ``index`` (*batch, Q, K) in a table that holds all memories one after the other."""
    if math.prod(batch_shape) == 1:
        return index.expand(torch.broadcast_shapes(index.shape, (*batch_shape, 1, 1)))
    start = torch.arange(math.prod(batch_shape), device=index.device).mul_(num_entries)
    return index + start.reshape(*batch_shape, 1, 1)


def _take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """table (n, ...) at ``rows`` (any shape), as (*rows.shape, ...)."""
    return table.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *table.shape[1:])


def _on_one_batch(
    first: dict[str, Tensor], first_batch: torch.Size, second: dict[str, Tensor], second_batch: torch.Size
) -> tuple[dict[str, Tensor], dict[str, Tensor], torch.Size]:
    """Both sets of statistics expanded to the batch shape that the two broadcast to."""
    batch = torch.broadcast_shapes(first_batch, second_batch)
    return (
        {name: stat.expand(*batch, *stat.shape[len(first_batch) :]) for name, stat in first.items()},
        {name: stat.expand(*batch, *stat.shape[len(second_batch) :]) for name, stat in second.items()},
        batch,
    )
