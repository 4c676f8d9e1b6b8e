"""Bounds on the log likelihood, from importance weights of the guide's draws."""

import math
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading


class LogWeights(NamedTuple):
    """log w = log p(x, z, s | a) - log q(z, s | x, a), ``total``, and ``kl`` = log q(z, s) - log p(z, s) alone.

    Both ``(particles, batch)``, in nats an episode, on the CPU.
    """

    total: Tensor
    kl: Tensor

    def iwae_gain(self) -> Tensor:
        """log mean w - mean log w, ``(batch,)``: what the importance-weighted bound adds (Burda et al. 2016, eq. 8)."""
        return self.total.logsumexp(0) - math.log(len(self.total)) - self.total.mean(0)


@torch.no_grad()
def log_weights(
    model: Any, guide: Any, episodes: Episodes, num_particles: int = 1, reading: Reading | None = None
) -> LogWeights:
    """Draw from the guide, which sees all frames, and weigh each episode on its own.

    The mean of ``total``, times the number of episodes, is what ``Trace_ELBO`` estimates.

    :param model: a Pyro program ``(episodes, reading)`` whose plate of episodes is the first dimension.
    :param guide: likewise.
    :param reading: which steps are scored, by default the predicted ones, which read the first tau.
    """
    reading = reading or Reading()
    totals, kls = [], []
    # empty, so that the global store is left alone and no other model's parameters in it are taken for these
    with pyro.get_param_store().scope():
        for _ in range(num_particles):
            guide_trace = poutine.trace(guide).get_trace(episodes, reading)
            model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(episodes, reading)
            latent, observed = _log_prob(model_trace, episodes.batch_size)
            guide_latent, _ = _log_prob(guide_trace, episodes.batch_size)
            kls.append((guide_latent - latent).cpu())
            totals.append(observed.cpu() - kls[-1])
    return LogWeights(torch.stack(totals), torch.stack(kls))


def _log_prob(trace: poutine.Trace, batch: int) -> tuple[Tensor, Tensor]:
    """Of the latent and of the observed sites, each ``(batch,)``."""
    trace = poutine.util.prune_subsample_sites(trace)
    trace.compute_log_prob()
    sums = [torch.zeros(()), torch.zeros(())]
    for site in trace.nodes.values():
        if site["type"] == "sample":
            log_prob = _by_episode(site["log_prob"], batch)
            sums[site["is_observed"]] = sums[site["is_observed"]].to(log_prob) + log_prob
    return sums[0], sums[1]


def _by_episode(log_prob: Tensor, batch: int) -> Tensor:
    """Summed over all plates but that of the episodes, ``(batch,)``: a site for each step, for each path, or outside of
    all plates, whose density all episodes share."""
    if log_prob.shape[:1] != (batch,):
        return log_prob.sum().expand(batch) / batch
    return log_prob.sum(-1) if log_prob.dim() == 2 else log_prob.flatten(1).sum(-1) if log_prob.dim() > 2 else log_prob
