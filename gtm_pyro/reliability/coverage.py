"""Do credible regions of the position hold the true position as often as they say?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.alignment import robust_affine
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.programs import has_heading
from gtm_pyro.reliability.densities import draw_paths, one_by_one
from gtm_pyro.reliability.findings import Finding, Named
from gtm_pyro.views import located

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def position_coverage(
    model: Any, guide: Any, episodes: Episodes, num_draws: int = 200, resolution: float = 0.0
) -> Finding:
    """Share of true positions inside the credible regions of the path, by level.

    The guide sees the first tau frames; later positions follow from the actions. Draws are taken to cells by one affine
    map from posterior means to true positions, fitted to all but outliers. The region of level p at a step holds the
    draws whose Mahalanobis distance, under their own mean and covariance, is below its p-quantile.

    A learnt map places a cell some thousandths of a cell off, which says nothing about what the guide believes: where
    that matters, positions count as known to ``resolution``, and each draw is blurred by that much.

    Numbers: ``coverage_10`` .. ``coverage_95`` over the memorised steps, ``..._predicted`` over the others;
    ``coverage_90_standard_error`` over episodes, for steps of one episode are not independent;
    ``coverage_beyond_all_draws``, the share of truths further out than every draw; ``coverage_miss_distance``, the
    median distance in cells of the mean from truths outside the 90% region; ``coverage_radius``, the median radius of
    that region in cells.

    Of agents that only turn, headings take the place of positions, in radians.

    :param resolution: in pose units, standard deviation.
    :raises EpisodesError: episodes without poses.
    """
    if episodes.poses is None:
        raise EpisodesError("poses: expected true poses in the data for coverage, this data has none")
    draws = torch.cat([draw_paths(model, guide, one, num_draws).cpu() for one in one_by_one(episodes)], 1)
    headings = {"state_heading": has_heading(model), "pose_heading": episodes.has_heading}
    draws, poses = located(draws, episodes.poses.cpu().double(), **headings)
    tau = episodes.num_observed
    align = robust_affine(draws[:, :, :tau].double().mean(0), poses[:, :tau])
    cells = align(draws.double())
    level, miss, radius = credible_level(cells + resolution * torch.randn_like(cells), poses)
    numbers: dict[str, float] = {}
    for suffix, steps in (("", slice(0, tau)), ("_predicted", slice(tau, None))):
        part = level[:, steps].numpy()
        if part.size:
            numbers |= {f"coverage_{round(100 * p)}{suffix}": float((part <= p).mean()) for p in LEVELS}
    seen, outside = level[:, :tau], level[:, :tau] > 0.9
    by_episode = (seen <= 0.9).double().mean(1)
    numbers["coverage_90_standard_error"] = float(by_episode.std() / len(by_episode) ** 0.5)
    numbers["coverage_beyond_all_draws"] = float((seen == 1).double().mean())
    numbers["coverage_miss_distance"] = float(miss[:, :tau][outside].median())
    numbers["coverage_radius"] = float(radius[:, :tau].median())
    dims = ("episode", "step")
    return Finding(
        "coverage",
        numbers,
        {
            "credible_level": Named(dims, level.float().numpy()),
            "distance": Named(dims, miss.float().numpy()),
            "radius_90": Named(dims, radius.float().numpy()),
            "curve": Named(("level",), np.array([numbers[f"coverage_{round(100 * p)}"] for p in LEVELS])),
            "levels": Named(("level",), np.array(LEVELS)),
            "memorised": Named(("step",), np.arange(episodes.num_steps) < tau),
        },
    )


def credible_level(draws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The level of the smallest credible region that holds the truth: uniform on [0, 1] for an exact posterior.

    :param draws: ``(draws, *batch, dim)``.
    :param truth: ``(*batch, dim)``.
    :returns: the level ``(*batch)``, the distance of the truth from the draws' mean, and the root mean square distance
        from it to the edge of the 90% region, both in units of the truth.
    """
    mean = draws.mean(0)
    centred = draws - mean
    covariance = torch.einsum("n...i,n...j->...ij", centred, centred) / (len(draws) - 1)
    # draws that agree to the last bit have no inverse
    floor = 1e-12 + 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    factor = torch.linalg.cholesky(covariance + floor[..., None, None] * torch.eye(draws.shape[-1]).to(draws))

    def distance(offset: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(factor, offset.unsqueeze(-1), upper=False)
        return solved.square().sum((-2, -1)).sqrt()

    inner, outer = distance(centred), distance(truth - mean)
    edge = inner.quantile(0.9, 0) * (covariance.diagonal(dim1=-2, dim2=-1).mean(-1)).sqrt()
    return (inner < outer).double().mean(0), (truth - mean).square().sum(-1).sqrt(), edge
