"""Do credible regions of the position hold the true position as often as they say?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.diagnostics.densities import draw_paths, one_by_one
from gtm_pyro.diagnostics.findings import Finding, Named
from gtm_pyro.diagnostics.uniformity import adjusted_p
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.evaluation.alignment import robust_affine
from gtm_pyro.evaluation.views import located
from gtm_pyro.inference.capabilities import has_heading

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

    Numbers: ``coverage_10`` .. ``coverage_95`` over the memorised steps; ``coverage_mean_level``, the mean level of the
    smallest region that holds the truth, 0.5 for an exact posterior and more for one that is too sure;
    ``coverage_beyond_all_draws``, the share of truths further out than every draw, 1 in ``num_draws`` + 1 for an exact
    posterior; ``coverage_miss_distance``, the median distance of the mean from truths outside the 90% region, and
    ``coverage_radius``, the median radius of that region, in cells. Of agents that only turn, headings take the place
    of positions, in radians, and ``coverage_of_headings`` is 1.

    For an exact guide the true path is one more draw, and its coverage that of any draw, however much the steps of a
    path depend on each other. ``coverage_90_standard_error`` is how much the coverage of draws varies, ``coverage_p``
    where the truth's mean level and its coverage at all ten levels stand among those of the draws;
    ``..._predicted`` are the same of the predicted steps, and the p-values are corrected for each other
    (``uniformity.adjusted_p``): one is at or below 0.01 in at most 1% of the cases where the guide is exact. The least
    that it can be is 1 in ``num_draws`` + 1; ``coverage_draws`` are that many draws.

    :param resolution: in pose units, standard deviation.
    :raises EpisodesError: episodes without poses.
    """
    if episodes.poses is None:
        raise EpisodesError("poses: expected true poses in the data for coverage, this data has none")
    draws = torch.cat([draw_paths(model, guide, one, num_draws).cpu() for one in one_by_one(episodes)], 1)
    headings = {"state_heading": has_heading(model), "pose_heading": episodes.has_heading}
    draws, poses = located(draws, episodes.poses.cpu().double(), **headings)
    turning = poses.shape[-1] == 1 and all(headings.values())
    tau = episodes.num_observed
    align = robust_affine(draws[:, :, :tau].double().mean(0), poses[:, :tau])
    cells = _fitted_as_truth(align(draws.double()), tau)
    levels, miss, radius = credible_levels(cells + resolution * torch.randn_like(cells), poses)
    level = levels[0]
    numbers: dict[str, float] = {}
    parts = {"": levels[..., :tau], "_predicted": levels[..., tau:]}
    parts = {suffix: part for suffix, part in parts.items() if part.shape[-1]}
    shares = np.concatenate([_shares(part) for part in parts.values()], 1)
    p_values = adjusted_p(shares[0], shares[1:]).reshape(len(parts), -1)
    for suffix, of_truth, spread, p in zip(
        parts, shares[0].reshape(len(parts), -1), shares.std(0).reshape(len(parts), -1), p_values, strict=True
    ):
        numbers |= {f"coverage_{round(100 * p)}{suffix}": float(x) for p, x in zip(LEVELS, of_truth, strict=False)}
        numbers |= {
            f"coverage_90_standard_error{suffix}": float(spread[LEVELS.index(0.9)]),
            f"coverage_mean_level{suffix}": float(of_truth[-1]),
            f"coverage_p{suffix}": float(p.min()),
        }
    outside = level[:, :tau] > 0.9
    numbers |= {
        "coverage_beyond_all_draws": float((level[:, :tau] == 1).double().mean()),
        "coverage_miss_distance": float(miss[:, :tau][outside].median()),
        "coverage_radius": float(radius[:, :tau].median()),
        "coverage_of_headings": float(turning),
        "coverage_draws": float(num_draws),
    }
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
            "unit": Named(("unit",), np.array(["radians" if turning else "cells"])),
        },
    )


def _fitted_as_truth(draws: Tensor, tau: int) -> Tensor:
    """Draws ``(draws, batch, T, dim)`` as near to their mean as a map that is fitted to each brings it.

    The truth is nearer to the mean than a draw, because the map was fitted to it; where steps are few, one can tell.
    """
    mean = draws[:, :, :tau].mean(0)
    return torch.stack([robust_affine(mean, draw[:, :tau]).inverse(draw) for draw in draws])


def _shares(levels: Tensor) -> np.ndarray:
    """Coverage at all levels and the mean level of the truth and of each draw, ``(1 + draws, levels + 1)``."""
    flat = levels.flatten(1)
    # a share of draws may be a level but for rounding
    return torch.stack([*((flat <= p + 1e-9).double().mean(1) for p in LEVELS), flat.mean(1)], 1).numpy()


def credible_levels(draws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The level of the smallest credible region that holds the truth: uniform on [0, 1] for an exact posterior.

    It is the share of draws that lie further in than the truth, seen from the mean and under the covariance of all of
    them and the truth, which are then alike: with those of the draws alone the truth would lie further out. In the
    same way each draw has a level among all others and the truth.

    :param draws: ``(draws, *batch, dim)``.
    :param truth: ``(*batch, dim)``.
    :returns: the levels of the truth and of the draws ``(1 + draws, *batch)``, the distance of the truth from the
        draws' mean, and the root mean square distance from it to the edge of the 90% region, both in units of the
        truth.
    """
    distances, _ = _distances(torch.cat([truth.unsqueeze(0), draws]))
    # where all agree, ranks are by lot
    order = (distances + 1e-6 * (1 + distances) * torch.rand_like(distances)).argsort(0)
    level = order.argsort(0).double() / len(draws)
    inner, variance = _distances(draws)
    edge = inner.quantile(0.9, 0) * variance.sqrt()
    return level, (truth - draws.mean(0)).square().sum(-1).sqrt(), edge


def _distances(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mahalanobis distances ``(points, *batch)`` from the points' own mean, and their mean variance ``(*batch)``."""
    centred = points - points.mean(0)
    covariance = torch.einsum("n...i,n...j->...ij", centred, centred) / (len(points) - 1)
    # points that agree to the last bit have no inverse
    floor = 1e-12 + 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    factor = torch.linalg.cholesky(covariance + floor[..., None, None] * torch.eye(points.shape[-1]).to(points))
    solved = torch.linalg.solve_triangular(factor, centred.unsqueeze(-1), upper=False)
    return solved.square().sum((-2, -1)).sqrt(), covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
