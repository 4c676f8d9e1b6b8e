"""Uncertainty about the unseen: predictive intervals at places never visited must be wide, at visited ones narrow."""

from typing import Any

import numpy as np
import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.reliability.densities import draw_frames, draw_paths, one_by_one
from gtm_pyro.reliability.findings import Finding, Named
from gtm_pyro.views import compare

# the 2nd smallest and the 2nd largest of 39 hold another draw in 36 of 40 cases: 90%
NUM_REPLICATES, LEFT_OUT = 39, 2


def unseen_intervals(model: Any, guide: Any, episodes: Episodes, cell_size: float = 1.0) -> Finding:
    """Central 90% predictive intervals of each pixel, with the decoder's noise, at visited and at unvisited places.

    The guide sees the first tau frames, the rest is drawn from actions alone. A step is visited where its true cell was
    occupied while memorising, as in :func:`gtm_pyro.evaluate`. The ends of an interval are order statistics of 39
    draws, so that it holds the true pixel in exactly 90% of the cases if the model is right.

    Numbers: ``interval_width_visited`` and ``_unvisited``, mean widths with pixels in [0, 1];
    ``interval_coverage_...``, the shares of true pixels inside; ``interval_width_ratio``, unvisited to visited. NaN
    where no step is of the kind.

    :raises EpisodesError: episodes without poses.
    """
    if episodes.poses is None:
        raise EpisodesError("poses: expected true poses in the data for unseen, this data has none")
    tau, nowhere = episodes.num_observed, torch.zeros(len(episodes), episodes.num_predicted, dtype=torch.long)
    visited = compare(episodes.poses.cpu(), tau, nowhere, cell_size, heading=episodes.has_heading).visited.numpy()
    widths, covered = [], []
    for episode in one_by_one(episodes):
        frames = draw_frames(model, episode, draw_paths(model, guide, episode, NUM_REPLICATES))
        ordered = frames.sort(0).values
        low, high = ordered[LEFT_OUT - 1], ordered[-LEFT_OUT]
        true = episode.predicted_frames
        widths.append((high - low).mean((-3, -2, -1)))
        covered.append(((true >= low) & (true <= high)).float().mean((-3, -2, -1)))
    width, inside = (torch.cat(parts).double().cpu().numpy() for parts in (widths, covered))
    numbers = {}
    for name, chosen in (("visited", visited), ("unvisited", ~visited)):
        numbers[f"interval_width_{name}"] = float(width[chosen].mean()) if chosen.any() else float("nan")
        numbers[f"interval_coverage_{name}"] = float(inside[chosen].mean()) if chosen.any() else float("nan")
    numbers["interval_width_ratio"] = numbers["interval_width_unvisited"] / numbers["interval_width_visited"]
    dims = ("episode", "predicted_step")
    return Finding(
        "unseen",
        numbers,
        {
            "width": Named(dims, width.astype(np.float32)),
            "covered": Named(dims, inside.astype(np.float32)),
            "visited": Named(dims, visited),
        },
    )
