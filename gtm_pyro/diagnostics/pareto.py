"""Pareto k-hat of the guide's paths: would importance sampling from the guide find the posterior?"""

from typing import Any

import numpy as np
import torch

from gtm_pyro.diagnostics.densities import DRAWS_AT_ONCE, SiteNames, draw_latents, one_by_one, site_log_probs
from gtm_pyro.diagnostics.findings import Finding, Named
from gtm_pyro.diagnostics.simulation import GTM_SM
from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading

_WIDEST = 500.0  # log weights further apart than this vanish in float64
_SAME = 0.05  # nats; what differs by less may be rounding, of sums of as many log densities


def path_khat(model: Any, guide: Any, episodes: Episodes, num_draws: int = 200, names: SiteNames = GTM_SM) -> Finding:
    """Pareto k-hat of log p(s, z, x | a) - log q(s, z | x, a) over draws of the path, episode by episode.

    Above 0.7 the guide misses a part of the posterior, so that importance weights, and the ELBO, say little (Vehtari et
    al. 2024; Yao et al. 2018, algorithm 1). Below it, ``khat_gap`` is how far the guide is from its target: the
    Kullback-Leibler divergence in nats an episode (median), by which its ELBO lies below the evidence. z has hundreds
    of dimensions, in which every k-hat is above 0.7; it is drawn once an episode and then held, and the ratio is over s
    alone. Where q(z | x, s) depends on s, it is part of the ratio: if it is exact, the ratio is p(s | x) / q(s | x)
    whatever z was drawn.

    * ``khat``: the guide sees the memorised frames, and each is scored against the memory of all earlier ones
      (``Reading("earlier")``). The target is a posterior in full: this is the guide that prediction starts from.
    * ``khat_predicted``: the guide sees all frames, and the predicted ones are scored against the first tau, as in the
      ELBO. A guide that also makes the memorised frames agree with each other knows more than this target does, and is
      then called too narrow.

    An exact guide has equal ratios, k-hat 0 and gap 0, and so no false alarm; what is near 0.7 may fall on either side:
    ``khat_standard_error`` is that of one episode's k-hat there, 1.7 over the root of the number of draws in the tail
    (0.27 for 200 draws); the gap of a k-hat above 0.7 is but a lower bound.

    :param episodes: the numbers are over all of them; give few, each costs ``num_draws`` readings of its memory.
    :param num_draws: at least 100.
    :param names: of the sites.
    """
    readings = {"khat": (Reading("earlier"), episodes.observed)}
    if episodes.num_predicted:
        readings["khat_predicted"] = (Reading("predicted"), episodes)
    numbers: dict[str, float] = {}
    arrays: dict[str, Named] = {}
    for name, (reading, seen) in readings.items():
        ratios = np.stack([_log_ratios(model, guide, one, reading, num_draws, names) for one in one_by_one(seen)])
        khat = np.array([pareto_khat(ratio) for ratio in ratios])
        numbers |= {
            f"{name}_median": float(np.median(khat)),
            f"{name}_max": float(khat.max()),
            f"{name}_share_above_0.7": float((khat > 0.7).mean()),
            f"{name}_gap": float(np.median([_gap(ratio) for ratio in ratios])),
        }
        arrays[name] = Named(("episode",), khat)
        arrays[f"{name}_log_ratio"] = Named(("episode", "draw"), ratios)
    numbers["khat_standard_error"] = float(1.7 / _tail(num_draws) ** 0.5)
    return Finding("khat", numbers, arrays)


def _log_ratios(
    model: Any, guide: Any, episode: Episodes, reading: Reading, num_draws: int, names: SiteNames
) -> np.ndarray:
    """``(num_draws,)``, in nats, for one episode."""
    s = guide.path(episode).sample((num_draws,))
    z = {name: value[0] for name, value in draw_latents(guide, episode, reading, s[:1], names).items()}
    ratios = []
    for part in s.split(DRAWS_AT_ONCE):
        held = {str(names.path): part, **z}
        joint = torch.stack([p.expand(len(part), 1) for p in site_log_probs(model, episode, reading, held).values()])
        of_guide = torch.stack([q.expand(len(part), 1) for q in site_log_probs(guide, episode, reading, held).values()])
        ratios.append((joint.double().sum(0) - of_guide.double().sum(0)).squeeze(-1).cpu())
    return torch.cat(ratios).numpy()


def pareto_khat(log_ratios: np.ndarray) -> float:
    """The shape of the generalised Pareto tail of importance ratios; 0 where the largest differ by less than 5%.

    :param log_ratios: ``(draws,)``, in nats.
    """
    from arviz_stats.base.array import array_stats

    tail = np.sort(log_ratios)[-_tail(len(log_ratios)) :]
    spread = tail[-1] - tail[0]
    if spread < _SAME:
        return 0.0
    if not spread < _WIDEST:
        # the ratios themselves underflow; for tails this heavy the fit is Hill's estimator, which needs their logs only
        return float((tail - tail[0]).mean()) if np.isfinite(spread) else float("inf")
    _, khat = array_stats.psislw(-log_ratios)
    return float(khat)


def _tail(num_draws: int) -> int:
    """How many draws the tail is fitted to."""
    return max(5, int(min(num_draws / 5, 3 * num_draws**0.5)))


def _gap(log_ratios: np.ndarray) -> float:
    """log of the mean ratio less the mean log ratio, in nats."""
    highest = float(log_ratios.max())
    return highest + float(np.log(np.exp(log_ratios - highest).mean())) - float(log_ratios.mean())
