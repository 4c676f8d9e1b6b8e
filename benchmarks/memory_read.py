"""What reading a memory costs, by back end: 5 neighbours for 1,000 queries among 256 to 1,000,000 2-D keys.

python benchmarks/memory_read.py [--sizes 256 10000] [--json FILE]

Building an index (SpatialMemory.write) and reading (SpatialMemory.read, differentiable distances included)
are timed apart, on one thread, the best of several repeats. HNSW takes minutes to build at 1,000,000 keys, so
it stops at --hnsw-max-size.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from timing import best_seconds

from gtm_pyro.errors import MissingDependencyError
from gtm_pyro.memory import SpatialMemory, recall
from gtm_pyro.memory.neighbors import Backend, choose_backend

BACKENDS: tuple[Backend, ...] = ("auto", "torch", "kdtree", "faiss_flat", "faiss_hnsw")
SIZES = (256, 10_000, 100_000, 1_000_000)


def measure(
    backend: Backend, size: int, num_queries: int, num_neighbors: int, key_dim: int, seed: int
) -> dict[str, Any]:
    """Build and read one memory of ``size`` keys, uniform in the unit cube; seconds."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.rand(size, key_dim, generator=generator)
    queries = torch.rand(num_queries, key_dim, generator=generator).requires_grad_()
    empty = SpatialMemory(num_neighbors, backend)
    build = best_seconds(lambda: empty.write(keys, {"entry": torch.arange(size)}), budget=0.5)
    memory = empty.write(keys, {"entry": torch.arange(size)})
    row = {
        "backend": backend,
        "used": choose_backend(backend, keys),
        "size": size,
        "build_seconds": build,
        "read_seconds": best_seconds(lambda: memory.read(queries)),
    }
    if backend == "faiss_hnsw":
        row["recall"] = recall(memory, queries.detach(), num_neighbors)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of keys")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--neighbors", type=int, default=5)
    parser.add_argument("--key-dim", type=int, default=2)
    parser.add_argument("--hnsw-max-size", type=int, default=100_000, help="largest memory to build an HNSW graph for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)

    print(f"{options.neighbors} neighbours, {options.queries} queries, {options.key_dim}-D keys, one thread")
    print(f"{'back end':<12}{'used':<12}{'keys':>10}{'build ms':>12}{'read ms':>12}{'recall':>9}")
    rows: list[dict[str, Any]] = []
    for backend in options.backends:
        for size in options.sizes:
            if backend == "faiss_hnsw" and size > options.hnsw_max_size:
                print(f"{backend:<12}{'':<12}{size:>10}  skipped: over --hnsw-max-size")
                continue
            try:
                row = measure(backend, size, options.queries, options.neighbors, options.key_dim, options.seed)
            except MissingDependencyError as missing:
                print(f"{backend:<12}skipped: {missing}")
                break
            rows.append(row)
            share = f"{row['recall']:9.4f}" if "recall" in row else ""
            print(
                f"{backend:<12}{row['used']:<12}{size:>10}{row['build_seconds'] * 1e3:12.2f}"
                f"{row['read_seconds'] * 1e3:12.2f}{share}",
                flush=True,
            )

    ratios: dict[str, float] = {}
    smallest = {r["backend"]: r for r in rows if r["size"] == 10_000}
    for row in rows:
        if row["size"] == 1_000_000 and row["backend"] in smallest:
            ratio = row["read_seconds"] / smallest[row["backend"]]["read_seconds"]
            ratios[row["backend"]] = ratio
            print(f"{row['backend']}: a read among 1,000,000 keys costs {ratio:.1f} times one among 10,000")
    if options.json:
        report = {
            "queries": options.queries,
            "neighbors": options.neighbors,
            "key_dim": options.key_dim,
            "rows": rows,
            "read_ratio_1e6_to_1e4": ratios,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
