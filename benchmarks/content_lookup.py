"""What a look-up by content costs: which of 1,000 to 100,000 memory entries looks like a frame.

python benchmarks/content_lookup.py [--sizes 1000 10000] [--json FILE]

The entries are encodings, 64 numbers each, of frames of training walks on images (many cuts of photographs, pixel noise
0.02), by the default encoder after --steps steps as a variational autoencoder; the queries are encodings of other looks
at the places of the first of those walks. So entries cluster: a place is looked at many times, neighbouring places
overlap, and images have regions without detail. ``content_memory`` picks the back end by size, as
``resembling_entries`` does. Building (writing the memory) and looking up are timed apart, on one thread, the best of
several repeats. Recall is the share of queries whose found entry is as near as the nearest by exhaustive search (1) and
the share of the true 8 neighbours (8). The growth exponent between two sizes is
log(time ratio) / log(size ratio): 1 is an exhaustive search, less is sublinear.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from timing import best_seconds
from torch import Tensor

from gtm_pyro.localisation.landmarks import content_memory
from gtm_pyro.memory.neighbors import choose_backend, exact_search, overlap
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.tasks import ImageNavigation

SIZES = (1_000, 10_000, 100_000)
STEPS, NEIGHBORS = 256, 8


def trained_encoder(data: ImageNavigation, steps: int) -> FrameEncoder:
    """q(z | x) of a variational autoencoder of single frames."""
    encoder, decoder = FrameEncoder(), FrameDecoder(scale=0.05)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    for step in range(steps):
        frames = data.sample(32, num_observed=8, num_predicted=0, seed=step).frames
        q = encoder(frames)
        z = q.rsample()
        divergence = torch.distributions.kl_divergence(q.base_dist, torch.distributions.Normal(0.0, 1.0)).sum(-1)
        optimizer.zero_grad()
        (divergence - decoder(z).log_prob(frames)).mean().backward()
        optimizer.step()
    return encoder


@torch.no_grad()
def encodings(data: ImageNavigation, encoder: FrameEncoder, count: int, num_queries: int) -> tuple[Tensor, Tensor]:
    """Entries ``(count, latent_dim)``, and queries: every frame of the first walks under pixel noise of its own."""
    found, queries, seed = [], [], 10_000
    for begin in range(0, count, 64 * STEPS):
        frames = data.sample(64, num_observed=STEPS, num_predicted=0, seed=seed).frames.flatten(0, 1)
        if begin == 0:
            frames = frames.view(64, STEPS, *frames.shape[1:]).transpose(0, 1).flatten(0, 1)
            again = frames[: min(count, len(frames))]
            again = again[torch.linspace(0, len(again) - 1, num_queries).long()]
            queries = [encoder.statistics((again + 0.02 * torch.randn_like(again)).clamp(0, 1))["loc"]]
        found.append(encoder.statistics(frames)["loc"])
        seed += 1
    return torch.cat(found)[:count], queries[0]


def measure(entries: Tensor, queries: Tensor) -> dict[str, Any]:
    """Build and read one memory; seconds."""
    empty = content_memory(entries)
    values = {"entry": torch.arange(len(entries))}
    build = best_seconds(lambda: empty.write(entries, values), budget=0.5)
    memory = empty.write(entries, values)
    read = best_seconds(lambda: memory.read(queries, NEIGHBORS))
    found = memory.read(queries, NEIGHBORS)
    assert found.index is not None
    exact = exact_search(entries, queries, NEIGHBORS)
    nearest = (queries - entries[exact[:, 0]]).square().sum(-1)
    return {
        "size": len(entries),
        "used": choose_backend(empty.backend, entries),
        "build_seconds": build,
        "lookup_seconds": read / len(queries),
        "recall_1": float((found.squared_distance[:, 0] <= nearest * (1 + 1e-5)).float().mean()),
        "recall_8": overlap(found.index, exact),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of entries, ascending")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=300, help="of training the encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = ImageNavigation(frame_noise=0.02)
    encoder = trained_encoder(data, options.steps)
    entries, queries = encodings(data, encoder, max(options.sizes), options.queries)
    print(f"{NEIGHBORS} neighbours, {options.queries} queries, {entries.shape[-1]}-D encodings")
    print(f"{'entries':>10}{'used':>12}{'build ms':>12}{'look-up us':>12}{'recall 1':>10}{'recall 8':>10}{'growth':>8}")
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        row = measure(entries[:size], queries)
        if rows:
            before = rows[-1]
            grown = math.log(row["lookup_seconds"] / before["lookup_seconds"])
            row["growth_exponent"] = grown / math.log(size / before["size"])
        rows.append(row)
        print(
            f"{size:10d}{row['used']:>12}{1e3 * row['build_seconds']:12.2f}{1e6 * row['lookup_seconds']:12.1f}"
            f"{row['recall_1']:10.4f}{row['recall_8']:10.4f}{row.get('growth_exponent', math.nan):8.2f}",
            flush=True,
        )
    if options.json:
        report = {"queries": options.queries, "neighbors": NEIGHBORS, "threads": options.threads, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
