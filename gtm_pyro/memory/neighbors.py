"""Nearest-neighbour back ends: they find indices; distances and their gradients are recomputed in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from gtm_pyro.errors import ConfigError, MemoryReadError, MissingDependencyError

Backend = Literal["auto", "torch", "kdtree", "faiss_flat", "faiss_hnsw"]

# Above this many distances at once the torch search goes through the queries in parts (16 MiB of float32).
_MAX_DISTANCES = 1 << 22
# From this many keys a tree's build pays for itself; benchmarks/memory_read.py.
_SMALL_MEMORY = 1024
# Up to here k passes of numpy's argmin beat torch's topk on a CPU: 9 times at 256 entries and 5 neighbours.
_ARGMIN_ENTRIES, _ARGMIN_NEIGHBORS = 4096, 32
# Beyond this many dimensions a k-d tree visits most of its leaves.
_LOW_DIM = 8


class KeyIndex(Protocol):
    """A search structure over the keys of one memory or of a batch of them."""

    def search(self, queries: Tensor, k: int) -> Tensor:
        """Indices (*batch, Q, k), int64, nearest first, of the keys near ``queries`` (*batch, Q, key_dim)."""
        ...


def squared_distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Squared Euclidean distances (*batch, Q, N), differentiable, of (*batch, Q, D) to (*batch, N, D).

    By explicit differences, one dimension at a time: no cancellation, and no (*batch, Q, N, D) array.
    """
    total = (queries[..., :, None, 0] - keys[..., None, :, 0]).square()
    for d in range(1, keys.shape[-1]):
        total = total + (queries[..., :, None, d] - keys[..., None, :, d]).square()
    return total


@torch.no_grad()
def exact_search(keys: Tensor, queries: Tensor, k: int, allowed: Tensor | None = None) -> Tensor:
    """Indices (*batch, Q, k) of the nearest keys by exhaustive search in torch, on the keys' device.

    ``allowed`` (Q, N) or (*batch, Q, N) excludes entries; where fewer than k are allowed the rest are
    arbitrary.
    """
    batch = torch.broadcast_shapes(keys.shape[:-2], queries.shape[:-2])
    row = max(1, batch.numel() * keys.shape[-2])
    parts = []
    step = max(1, _MAX_DISTANCES // row)
    for start in range(0, queries.shape[-2], step):
        some = queries[..., start : start + step, :]
        if keys.shape[-1] <= _LOW_DIM:
            distance = squared_distances(some, keys)
        else:
            # The default mode expands the square, and its cancellation can swap neighbours.
            distance = torch.cdist(some, keys, compute_mode="donot_use_mm_for_euclid_dist")
        if allowed is not None:
            # Finite, so that an excluded entry is still told from one that was already taken.
            distance = distance.masked_fill(~allowed[..., start : start + step, :], torch.finfo(distance.dtype).max)
        parts.append(_smallest(distance, k))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _smallest(distance: Tensor, k: int) -> Tensor:
    """Indices (*batch, Q, k) of the k smallest of each row, smallest first; may overwrite ``distance``."""
    small = distance.shape[-1] <= _ARGMIN_ENTRIES and k <= _ARGMIN_NEIGHBORS
    if distance.device.type != "cpu" or not small or distance.dtype not in (torch.float32, torch.float64):
        return distance.topk(k, largest=False).indices
    table = distance.reshape(-1, distance.shape[-1]).numpy()
    rows = np.arange(len(table))
    index = np.empty((len(table), k), dtype=np.int64)
    for j in range(k):
        index[:, j] = table.argmin(-1)
        table[rows, index[:, j]] = np.inf
    return torch.from_numpy(index).reshape(*distance.shape[:-1], k)


def choose_backend(backend: Backend, keys: Tensor) -> Backend:
    """The back end for ``keys`` (*batch, N, key_dim): ``backend`` itself, or what suits them where it is "auto".

    Batched torch on an accelerator and for small memories, a tree for large low-dimensional keys, faiss for
    large high-dimensional ones.
    """
    if backend != "auto":
        return backend
    if keys.device.type != "cpu" or keys.shape[-2] < _SMALL_MEMORY:
        return "torch"
    return "kdtree" if keys.shape[-1] <= _LOW_DIM else "faiss_flat"


def check_backend(backend: str) -> None:
    """Raise ConfigError for an unknown name, MissingDependencyError where its package is not installed."""
    if backend not in get_args(Backend):
        raise ConfigError(f"backend: expected one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend.startswith("faiss"):
        _faiss()


def build_index(backend: Backend, keys: Tensor) -> KeyIndex | None:
    """An index over ``keys`` (*batch, N, key_dim); None for "torch", which searches the keys themselves."""
    concrete = choose_backend(backend, keys)
    if concrete == "torch" or (backend == "auto" and not torch.isfinite(keys).all()):
        return None  # torch gives keys that are not finite distances that are not, which a training notices
    if concrete == "kdtree":
        return _PerMemory(keys, _Tree)
    return _PerMemory(keys, _FaissFlat if concrete == "faiss_flat" else _FaissHNSW)


def search(index: KeyIndex | None, keys: Tensor, queries: Tensor, k: int) -> Tensor:
    """Indices (*batch, Q, k) by ``index``, what build_index made of ``keys``."""
    return exact_search(keys, queries, k) if index is None else index.search(queries, k)


def overlap(found: Tensor, true: Tensor) -> float:
    """The share, in [0, 1], of ``true`` (*batch, Q, k) that is among ``found`` (*batch, Q, k), in any order."""
    return (true.unsqueeze(-1) == found.unsqueeze(-2)).any(-1).double().mean().item()


class _OneIndex(Protocol):
    def search(self, queries: np.ndarray, k: int) -> np.ndarray: ...


class _PerMemory:
    """One index a memory of the batch, since none of the libraries knows of batches."""

    def __init__(self, keys: Tensor, make: Callable[[np.ndarray], _OneIndex]) -> None:
        if not torch.isfinite(keys).all():
            raise MemoryReadError("keys: expected finite values, got NaN or infinity")
        self.keys = keys.detach()
        self.batch_shape = keys.shape[:-2]
        flat = self.keys.cpu().double().reshape(-1, *keys.shape[-2:]).numpy()
        # A common origin near the keys keeps faiss's float32 accurate far from zero.
        self.origins = flat.mean(axis=1, keepdims=True)
        self.indexes = [make(one) for one in flat - self.origins]

    def search(self, queries: Tensor, k: int) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, queries.shape[:-2])
        which = torch.arange(len(self.indexes)).reshape(self.batch_shape).expand(batch).reshape(-1).tolist()
        # A query that is not finite finds anything; its distance, recomputed in torch, is still not finite.
        finite = torch.nan_to_num(queries.detach(), posinf=0.0, neginf=0.0)
        flat = finite.expand(*batch, *queries.shape[-2:]).reshape(-1, *queries.shape[-2:]).cpu().double().numpy()
        found = [self.indexes[i].search(one - self.origins[i], k) for i, one in zip(which, flat, strict=True)]
        index = torch.from_numpy(np.stack(found)).to(self.keys.device)
        return index.reshape(*batch, queries.shape[-2], k)


class _Tree:
    """scipy's k-d tree, float64 inside, one thread."""

    def __init__(self, keys: np.ndarray) -> None:
        self.tree = cKDTree(keys)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        _, index = self.tree.query(queries, k=k, workers=1)
        return index.reshape(len(queries), k)


class _Faiss:
    """A faiss index. Its float32 distances pick candidates; the nearest k of them are chosen in float64."""

    def __init__(self, keys: np.ndarray) -> None:
        self.keys = keys
        with _one_thread() as faiss:
            self.index = self.make(faiss, keys.shape[1])
            self.index.add(np.ascontiguousarray(keys, dtype=np.float32))

    def make(self, faiss: Any, dim: int) -> Any:
        raise NotImplementedError

    def candidates(self, faiss: Any, queries: np.ndarray, k: int, wide: int) -> np.ndarray:
        return self.index.search(queries.astype(np.float32), wide)[1]

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        with _one_thread() as faiss:
            index = self.candidates(faiss, queries, k, min(len(self.keys), 2 * k + 8))
        distance = np.square(queries[:, None] - self.keys[index]).sum(-1)
        best = np.take_along_axis(index, np.argsort(distance, axis=1, kind="stable")[:, :k], axis=1)
        # A graph search that finds too few fills up with -1.
        for row in np.flatnonzero((best < 0).any(axis=1)):
            best[row] = np.argsort(np.square(queries[row] - self.keys).sum(-1), kind="stable")[:k]
        return best


class _FaissFlat(_Faiss):
    """Exhaustive: exact."""

    def make(self, faiss: Any, dim: int) -> Any:
        self.reach = np.sqrt(np.square(self.keys).sum(1).max())
        return faiss.IndexFlatL2(dim)

    def candidates(self, faiss: Any, queries: np.ndarray, k: int, wide: int) -> np.ndarray:
        distance, index = self.index.search(queries.astype(np.float32), wide)
        if wide == len(self.keys):
            return index
        # faiss may expand the square, which cancels. Where the error bound cannot rule out a key beyond the
        # candidates, search again by explicit differences, two to three times slower.
        size = np.square(np.sqrt(np.square(queries).sum(1)) + self.reach)
        error = np.finfo(np.float32).eps * (queries.shape[1] + 4) * size
        unsure = np.flatnonzero(distance[:, wide - 1] - distance[:, k - 1] <= 2 * error)
        if len(unsure):
            threshold = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = np.iinfo(np.int32).max
            try:
                index[unsure] = self.index.search(queries[unsure].astype(np.float32), wide)[1]
            finally:
                faiss.cvar.distance_compute_blas_threshold = threshold
        return index


class _FaissHNSW(_Faiss):
    """A navigable small-world graph: approximate, fast to read, slow to build."""

    def make(self, faiss: Any, dim: int) -> Any:
        index = faiss.IndexHNSWFlat(dim, 32)
        index.hnsw.efConstruction = 80
        index.hnsw.efSearch = 64
        return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingDependencyError(
            "the faiss_flat and faiss_hnsw back ends need faiss; install it with: pip install faiss-cpu"
        ) from None
    return faiss


@contextmanager
def _one_thread() -> Iterator[Any]:
    """faiss on one thread, for its threads contend with torch's; then the process's own setting again."""
    faiss = _faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(threads)
