"""Uncertainty about the unseen: predictive intervals at places never visited must be wide, at visited ones narrow."""

from typing import Any

import numpy as np
import torch

from gtm_pyro.diagnostics.densities import DRAWS_AT_ONCE, SiteNames, draw_frames, draw_paths, one_by_one
from gtm_pyro.diagnostics.findings import Finding, Named
from gtm_pyro.diagnostics.simulation import GTM_SM
from gtm_pyro.diagnostics.uniformity import adjusted_p
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.evaluation.views import compare
from gtm_pyro.poses.places import nearness

# the 5th smallest and the 5th largest of 99 hold another draw in 90 of 100 cases
NUM_REPLICATES, LEFT_OUT = 99, 5
_PIXELS = 200  # of a frame


def unseen_intervals(
    model: Any,
    guide: Any,
    episodes: Episodes,
    cell_size: float | None = None,
    view_tolerance: tuple[float, float] | None = None,
    names: SiteNames = GTM_SM,
) -> Finding:
    """Central 90% predictive intervals of each pixel, with the decoder's noise, at visited and at unvisited places.

    The guide sees the first tau frames, the rest is drawn from actions alone. A step is visited where its true cell was
    occupied while memorising, as in :func:`gtm_pyro.evaluate`. The ends of an interval are order statistics of 99
    draws, so that it holds the true pixel in exactly 90% of the cases if the model is right. Of frames of more than 200
    pixels as many are looked at, chosen by lot.

    Numbers: ``interval_width_visited`` and ``_unvisited``, mean widths with pixels in [0, 1];
    ``interval_coverage_...``, the shares of true pixels inside; ``interval_width_ratio``, unvisited to visited. NaN
    where no step is of the kind.

    If model and guide are right, true frames are one more draw, and the share of them inside is that of any draw
    between the others, whatever depends on the path that they share. ``interval_coverage_standard_error_...`` is how
    much the shares of draws vary, ``interval_coverage_p_...`` where the truth stands among them, corrected for each
    other (``uniformity.adjusted_p``): one is 0.01, the least that 99 replicates can give, in 1% of the cases. That is
    exact where the model knows in which cell the agent is: if it does not, to be at a visited place is itself news.

    :raises EpisodesError: episodes without poses.
    """
    if episodes.poses is None:
        raise EpisodesError("poses: expected true poses in the data for unseen, this data has none")
    tau, nowhere = episodes.num_observed, torch.zeros(len(episodes), episodes.num_predicted, dtype=torch.long)
    poses = episodes.poses.cpu()
    near = nearness(poses, cell_size, view_tolerance)
    visited = compare(poses, tau, nowhere, near, heading=episodes.has_heading).visited.numpy()
    pixels = torch.randperm(episodes.frames[0, 0].numel())[:_PIXELS].to(episodes.device)
    widths, insides = [], []
    for episode in one_by_one(episodes):
        paths = draw_paths(model, guide, episode, NUM_REPLICATES).split(DRAWS_AT_ONCE)
        drawn = [draw_frames(model, episode, part, names).flatten(-3)[..., pixels] for part in paths]
        every = torch.cat([episode.predicted_frames.flatten(-3)[..., pixels].unsqueeze(0), *drawn])
        ordered = every.sort(0).values
        # all but the outer ones of the 100, the truth among them, lie within the interval of the 99 others
        inside = (every >= ordered[LEFT_OUT]) & (every <= ordered[-LEFT_OUT - 1])
        others = every[1:].sort(0).values
        widths.append((others[-LEFT_OUT] - others[LEFT_OUT - 1]).mean(-1))
        insides.append(inside.double().mean(-1))
    width = torch.cat(widths).double().cpu().numpy()
    inside_share = torch.cat(insides, 1).cpu().numpy()  # (1 + replicates, episode, step)
    kinds = {"visited": visited, "unvisited": ~visited}
    shares = {name: inside_share[:, chosen].mean(1) for name, chosen in kinds.items() if chosen.any()}
    every_share = np.stack(list(shares.values()), 1)
    p = dict(zip(shares, adjusted_p(every_share[0], every_share[1:]), strict=True))
    nan = float("nan")
    numbers: dict[str, float] = {}
    for name, chosen in kinds.items():
        known = name in shares
        numbers |= {
            f"interval_width_{name}": float(width[chosen].mean()) if known else nan,
            f"interval_coverage_{name}": float(shares[name][0]) if known else nan,
            f"interval_coverage_standard_error_{name}": float(shares[name].std()) if known else nan,
            f"interval_coverage_p_{name}": float(p[name]) if known else nan,
        }
    numbers["interval_width_ratio"] = numbers["interval_width_unvisited"] / numbers["interval_width_visited"]
    numbers["interval_replicates"] = float(NUM_REPLICATES)
    dims = ("episode", "predicted_step")
    return Finding(
        "unseen",
        numbers,
        {
            "width": Named(dims, width.astype(np.float32)),
            "covered": Named(dims, inside_share[0].astype(np.float32)),
            "visited": Named(dims, visited),
        },
    )
