"""Whether the ELBO is a bound."""

import inspect
import math
from typing import Any

import torch
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import SEED, ConformanceError, conformance_check, copied

# standard errors, one-sided: a sound pair fails for one seed in three million, for each episode
THRESHOLD = 5.0
# of every episode in one batch: quicker than as many calls
COPIES = 20


@conformance_check
def check_bound(
    model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None, *, num_draws: int = 200
) -> None:
    """The ELBO of each episode is finite, and at most log p(x | a) where the model has ``log_evidence(episodes)``.

    The mean over ``num_draws`` may lie 5 of its standard errors above.
    """
    if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
        model, guide = (program.double() for program in copied(model, guide))
        episodes = episodes.to(torch.float64)
    used = reading or getattr(model, "reading", None)
    set_seed(SEED, episodes.device)
    copies = episodes[torch.arange(len(episodes)).repeat(COPIES)]
    total = log_weights(model, guide, copies, -(-num_draws // COPIES), used).total.double()
    total = total.reshape(-1, len(episodes))
    for episode, draws in enumerate(total.unbind(1)):
        if not bool(torch.isfinite(draws).all()):
            bad = float(draws[~draws.isfinite()][0])
            raise ConformanceError(f"episode {episode}: expected a finite ELBO, got {bad}")
    if not hasattr(model, "log_evidence"):
        return
    takes_reading = len(inspect.signature(model.log_evidence).parameters) > 1
    with torch.no_grad():
        exact = (model.log_evidence(episodes, used) if takes_reading else model.log_evidence(episodes)).cpu().double()
    mean, error = total.mean(0), total.std(0) / math.sqrt(len(total))
    # the densities are sums of many terms, in the precision of the frames
    rounding = 100 * torch.finfo(episodes.frames.dtype).eps * exact.abs().clamp(min=1)
    for episode, excess in enumerate((mean - exact - THRESHOLD * error - rounding).tolist()):
        if excess > 0:
            raise ConformanceError(
                f"episode {episode}: expected an ELBO of at most log p(x | a) = {float(exact[episode]):.6g}, got "
                f"{float(mean[episode]):.6g} with a standard error of {float(error[episode]):.2g}"
            )
