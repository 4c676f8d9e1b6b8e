"""The spatial memory: a differentiable neural dictionary (DND) of states and frame encodings.

Section 2 of Fraccaro et al. 2018, after Pritzel et al. 2017: a write inserts (key, value) pairs, a read
returns the values of the keys nearest to a query, with their distances.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError, MemoryReadError
from gtm_pyro.memory.neighbors import (
    Backend,
    KeyIndex,
    build_index,
    check_backend,
    exact_search,
    overlap,
    search,
    squared_distances,
)
from gtm_pyro.memory.values import StoredValues, Values, as_values

NumNeighbors = int | Literal["all"]


@dataclass(frozen=True)
class Retrieved:
    """What a read found: K entries for each of Q queries.

    :param index: (*batch, Q, K) int64, nearest first; None where every entry was read, in the order of
        writing.
    :param squared_distance: (*batch, Q, K), differentiable; infinite where the entry was not allowed.
    :param values: statistics (*batch, Q, K, ...) by name; where ``index`` is None (*batch, 1, N, ...), shared
        by the queries.
    :param masked: whether the read excluded entries, so that a query may have found nothing.
    """

    index: Tensor | None
    squared_distance: Tensor
    values: dict[str, Tensor]
    masked: bool = False

    def entry(self, component: Tensor) -> Tensor:
        """The position in the memory of neighbour ``component`` (*batch, Q); -1 for none that was allowed."""
        place = component.clamp_max(self.squared_distance.shape[-1] - 1).unsqueeze(-1)
        entry = (place if self.index is None else self.index.gather(-1, place)).squeeze(-1)
        none = (component >= self.squared_distance.shape[-1]) | (
            self.squared_distance.detach().gather(-1, place).squeeze(-1) == torch.inf
        )
        return entry.masked_fill(none, -1)


class Memory(Protocol):
    """What a model asks of a memory, a value that nothing changes: shapes and errors as of :class:`SpatialMemory`.

    A map that is kept and looked up by content, as in localisation, also has ``num_entries``, ``keys`` and ``values``.
    """

    # the command line compares these signatures with a class's own, and Any fits every annotation
    def write(self, keys: Any, values: Any, /) -> Any:
        """A memory of the same class with these entries appended."""

    def read(self, queries: Any, num_neighbors: Any, allowed: Any, /) -> Any:
        """The entries for each query, a :class:`Retrieved`."""


class SpatialMemory:
    """A memory of (key, value) pairs, read by nearest neighbours. A value: ``write`` returns a new memory.

    A subclass keeps its class and its attributes through ``write``: to read in another way, override ``read``.

    :param num_neighbors: K, how many entries a read returns unless it says otherwise; "all" for every entry.
    :param backend: how neighbours are found. "torch" (exhaustive, batched, any device), "kdtree" (scipy),
        "faiss_flat" (exhaustive) and "faiss_hnsw" (approximate; ``gtm_pyro.memory.recall`` says how far);
        "auto" picks by size.
    :raises ConfigError: an unknown back end or fewer than one neighbour.
    :raises MissingDependencyError: a faiss back end without faiss.

    Keys and distances are in the units of the model's state s.
    """

    def __init__(self, num_neighbors: NumNeighbors = 5, backend: Backend = "auto") -> None:
        if num_neighbors != "all" and (not isinstance(num_neighbors, int) or num_neighbors < 1):
            raise ConfigError(f'num_neighbors: expected a whole number from 1, or "all", got {num_neighbors!r}')
        check_backend(backend)
        self.num_neighbors = num_neighbors
        self.backend = backend
        self._keys: Tensor | None = None
        self._values: Values | None = None
        self._index: KeyIndex | None = None

    def __repr__(self) -> str:
        written = "empty" if self._keys is None else f"keys {tuple(self._keys.shape)}"
        kind = type(self).__name__
        return f"{kind}(num_neighbors={self.num_neighbors!r}, backend={self.backend!r}, {written})"

    @property
    def num_entries(self) -> int:
        """N, the entries of each memory of the batch."""
        return 0 if self._keys is None else self._keys.shape[-2]

    @property
    def keys(self) -> Tensor:
        """(*batch, N, key_dim)."""
        if self._keys is None:
            raise MemoryReadError("memory: expected at least one entry, got an empty memory; call write first")
        return self._keys

    @property
    def values(self) -> Values:
        """The statistics under the keys."""
        if self._values is None:
            raise MemoryReadError("memory: expected at least one entry, got an empty memory; call write first")
        return self._values

    def write(self, keys: Tensor, values: Values | Mapping[str, Tensor]) -> Self:
        """A new memory of the same class and settings, with these entries appended.

        :param keys: (*batch, N, key_dim), floating point.
        :param values: N entries a memory; a mapping holds tensors (*batch, N, ...). Their batch may lack
            leading dimensions of the keys' batch, and is then shared between them.
        :raises MemoryReadError: keys and values that do not fit each other or the entries already written.
        """
        if keys.dim() < 2 or not keys.is_floating_point() or 0 in keys.shape[-2:]:
            raise MemoryReadError(
                f"keys: expected floats (*batch, N, key_dim), N and key_dim at least 1, got "
                f"{keys.dtype} {tuple(keys.shape)}"
            )
        values = as_values(values, keys)
        if values.num_entries != keys.shape[-2]:
            raise MemoryReadError(f"values: expected {keys.shape[-2]} entries, one a key, got {values.num_entries}")
        if self._keys is not None:
            keys = _append_keys(self._keys, keys)
            values = self.values.concat(values)
        new = copy.copy(self)
        new._keys, new._values, new._index = keys, values, build_index(self.backend, keys)
        return new

    def read(
        self, queries: Tensor, num_neighbors: NumNeighbors | None = None, allowed: Tensor | None = None
    ) -> Retrieved:
        """The entries nearest to each query.

        :param queries: (*batch, Q, key_dim); batch shapes of queries, keys and values broadcast.
        :param num_neighbors: K; None for the memory's own, "all" for every entry.
        :param allowed: boolean (Q, N) or (*batch, Q, N), the entries that a query may read; None for all of
            them. Always searched in torch, whatever the back end.
        :raises MemoryReadError: an empty memory, more neighbours than entries, or shapes that do not fit.
        """
        keys = self.keys
        wanted = self.num_neighbors if num_neighbors is None else num_neighbors
        self._check_read(queries, wanted, allowed)
        if wanted == "all":
            distance = squared_distances(queries, keys)
            if allowed is not None:
                distance = distance.masked_fill(~allowed, torch.inf)
            return Retrieved(None, distance, self.values.gather(None), masked=allowed is not None)
        if allowed is None:
            index = search(self._index, keys, queries, wanted)
        else:
            index = exact_search(keys, queries, wanted, allowed)
        near = StoredValues({"key": keys}, keys.dim() - 2).gather(index)["key"]
        distance = (queries.unsqueeze(-2) - near).square().sum(-1)
        if allowed is not None:
            permitted = allowed.expand(*index.shape[:-1], keys.shape[-2]).gather(-1, index)
            distance = distance.masked_fill(~permitted, torch.inf)
        return Retrieved(index, distance, self.values.gather(index), masked=allowed is not None)

    def _check_read(self, queries: Tensor, wanted: NumNeighbors, allowed: Tensor | None) -> None:
        keys, entries = self.keys, self.num_entries
        if queries.dim() < 2 or queries.shape[-1] != keys.shape[-1]:
            raise MemoryReadError(f"queries: expected (*batch, Q, {keys.shape[-1]}), got {tuple(queries.shape)}")
        try:
            batch = torch.broadcast_shapes(queries.shape[:-2], keys.shape[:-2])
        except RuntimeError:
            raise MemoryReadError(
                f"queries: expected a batch that broadcasts with the keys' {tuple(keys.shape[:-2])}, "
                f"got {tuple(queries.shape)}"
            ) from None
        if wanted != "all" and (not isinstance(wanted, int) or not 1 <= wanted <= entries):
            raise MemoryReadError(
                f'num_neighbors: expected 1 to {entries}, the entries of this memory, or "all", got {wanted!r}'
            )
        if allowed is None:
            return
        full = (*batch, queries.shape[-2], entries)
        if allowed.dtype != torch.bool or allowed.dim() < 2 or not _expands_to(allowed.shape, full):
            raise MemoryReadError(
                f"allowed: expected booleans {full[-2:]} or {full}, got {allowed.dtype} {tuple(allowed.shape)}"
            )


def recall(memory: SpatialMemory, queries: Tensor, num_neighbors: int | None = None) -> float:
    """The share, in [0, 1], of the true nearest neighbours that the back end finds; 1 if exact, ties aside.

    :param queries: (*batch, Q, key_dim).
    :param num_neighbors: K; None for the memory's own.
    :raises MemoryReadError: as ``SpatialMemory.read``.
    """
    read = memory.read(queries, num_neighbors)
    if read.index is None:
        return 1.0
    return overlap(read.index, exact_search(memory.keys, queries, read.index.shape[-1]))


def _append_keys(old: Tensor, new: Tensor) -> Tensor:
    if old.shape[-1] != new.shape[-1]:
        raise MemoryReadError(f"keys: expected key_dim {old.shape[-1]}, as already written, got {tuple(new.shape)}")
    try:
        batch = torch.broadcast_shapes(old.shape[:-2], new.shape[:-2])
    except RuntimeError:
        raise MemoryReadError(
            f"keys: expected the batch {tuple(old.shape[:-2])} already written, got {tuple(new.shape)}"
        ) from None
    return torch.cat([old.expand(*batch, *old.shape[-2:]), new.expand(*batch, *new.shape[-2:])], dim=-2)


def _expands_to(shape: torch.Size, full: tuple[int, ...]) -> bool:
    if shape[-2:] != full[-2:] or len(shape) > len(full):
        return False
    return all(one in (1, two) for one, two in zip(reversed(shape), reversed(full), strict=False))
