"""Pareto k-hat of the guide's paths: would importance sampling from the guide find the posterior?"""

from typing import Any

import numpy as np
import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading
from gtm_pyro.reliability.densities import DRAWS_AT_ONCE, draw_latents, one_by_one, site_log_probs
from gtm_pyro.reliability.findings import Finding, Named

# log weights further apart than this vanish in float64
_WIDEST = 500.0


def path_khat(model: Any, guide: Any, episodes: Episodes, num_draws: int = 200) -> Finding:
    """Pareto k-hat of log p(s, z, x | a) - log q(s, z | x, a) over draws of the path, episode by episode.

    Above 0.7 the guide misses a part of the posterior, so that expectations under it, and the ELBO, say little (Vehtari
    et al. 2024; Yao et al. 2018, algorithm 1). z has hundreds of dimensions, in which every k-hat is above 0.7; it is
    drawn once an episode and then held, and the ratio is over s alone. Where q(z | x, s) depends on s, it is part of
    the ratio: if it is exact, the ratio is p(s | x) / q(s | x) whatever z was drawn.

    * ``khat``: the guide sees the memorised frames, and each is scored against the memory of all earlier ones
      (``Reading("earlier")``). The target is a posterior in full: this is the guide that prediction starts from.
    * ``khat_predicted``: the guide sees all frames, and the predicted ones are scored against the first tau, as in the
      ELBO. A guide that also makes the memorised frames agree with each other knows more than this target does, and is
      then called too narrow.

    :param episodes: the numbers are over all of them; give few, each costs ``num_draws`` readings of its memory.
    :param num_draws: at least 100; a k-hat of 200 draws has a standard error of about 0.2.
    """
    readings = {"khat": (Reading("earlier"), episodes.observed)}
    if episodes.num_predicted:
        readings["khat_predicted"] = (Reading("predicted"), episodes)
    numbers: dict[str, float] = {}
    arrays: dict[str, Named] = {}
    for name, (reading, seen) in readings.items():
        ratios = np.stack([_log_ratios(model, guide, one, reading, num_draws) for one in one_by_one(seen)])
        khat = np.array([pareto_khat(ratio) for ratio in ratios])
        numbers |= {
            f"{name}_median": float(np.median(khat)),
            f"{name}_max": float(khat.max()),
            f"{name}_share_above_0.7": float((khat > 0.7).mean()),
        }
        arrays[name] = Named(("episode",), khat)
        arrays[f"{name}_log_ratio"] = Named(("episode", "draw"), ratios)
    return Finding("khat", numbers, arrays)


def _log_ratios(model: Any, guide: Any, episode: Episodes, reading: Reading, num_draws: int) -> np.ndarray:
    """``(num_draws,)``, in nats, for one episode."""
    s = guide.path(episode).sample((num_draws,))
    z = draw_latents(guide, episode, reading, s[:1])[0]
    ratios = []
    for part in s.split(DRAWS_AT_ONCE):
        held = {"s": part, "z": z}
        joint = torch.stack([p.expand(len(part), 1) for p in site_log_probs(model, episode, reading, held).values()])
        of_guide = torch.stack([q.expand(len(part), 1) for q in site_log_probs(guide, episode, reading, held).values()])
        ratios.append((joint.double().sum(0) - of_guide.double().sum(0)).squeeze(-1).cpu())
    return torch.cat(ratios).numpy()


def pareto_khat(log_ratios: np.ndarray) -> float:
    """The shape of the generalised Pareto tail of importance ratios; 0 where the largest are all equal.

    :param log_ratios: ``(draws,)``, in nats.
    """
    from arviz_stats.base.array import array_stats

    tail = np.sort(log_ratios)[-max(5, int(min(len(log_ratios) / 5, 3 * len(log_ratios) ** 0.5))) :]
    spread = tail[-1] - tail[0]
    if spread < 1e-9:
        return 0.0
    if not spread < _WIDEST:
        # the ratios themselves underflow; for tails this heavy the fit is Hill's estimator, which needs their logs only
        return float((tail - tail[0]).mean()) if np.isfinite(spread) else float("inf")
    _, khat = array_stats.psislw(-log_ratios)
    return float(khat)
