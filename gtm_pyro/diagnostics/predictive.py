"""Posterior predictive checks: do frames that the model predicts look like the frames that came?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.diagnostics.densities import DRAWS_AT_ONCE, SiteNames, draw_frames, draw_paths, one_by_one
from gtm_pyro.diagnostics.findings import Finding, Named
from gtm_pyro.diagnostics.simulation import GTM_SM
from gtm_pyro.diagnostics.uniformity import adjusted_p
from gtm_pyro.episodes import Episodes

QUANTITIES = ("mean", "contrast", "neighbour_difference", "memory_error")


def predictive_check(
    model: Any, guide: Any, episodes: Episodes, num_replicates: int = 99, names: SiteNames = GTM_SM
) -> Finding:
    """Test quantities of the predicted frames, observed against replicated (Gelman et al. 1996).

    The guide sees the first tau frames, the rest is drawn from actions alone, with the decoder's noise. An episode's
    quantity is its mean over predicted frames:

    * ``mean``: of all pixels; ``contrast``: their standard deviation within a frame;
    * ``neighbour_difference``: mean absolute difference of pixels side by side, high where noise is;
    * ``memory_error``: mean squared difference a pixel from the most similar memorised frame.

    ``ppc_p_...`` are two-sided p-values of the mean over episodes among ``num_replicates``, corrected for there being
    four (``uniformity.adjusted_p``), ``ppc_p`` the least of them. The frames are held out and each replicate is a fresh
    draw, so it is 0.01, the least that 99 replicates can give, in exactly 1% of the cases where model and guide are
    right.
    ``ppc_observed_...`` and ``ppc_replicated_...`` are the means themselves.
    """
    observed, replicated = [], []
    for episode in one_by_one(episodes):
        observed.append(frame_quantities(episode.predicted_frames, episode.observed_frames))
        s = draw_paths(model, guide, episode, num_replicates)
        drawn = [draw_frames(model, episode, part, names) for part in s.split(DRAWS_AT_ONCE)]
        replicated.append(torch.cat([frame_quantities(part, episode.observed_frames) for part in drawn]))
    true = torch.cat(observed).double().cpu().numpy()  # (episode, quantity)
    made = torch.cat(replicated, 1).double().cpu().numpy()  # (replicate, episode, quantity)
    p = adjusted_p(true.mean(0), made.mean(1))
    numbers = {"ppc_p": float(p.min()), "ppc_replicates": float(num_replicates)}
    numbers |= {f"ppc_p_{name}": float(value) for name, value in zip(QUANTITIES, p, strict=True)}
    for i, name in enumerate(QUANTITIES):
        numbers |= {
            f"ppc_observed_{name}": float(true[:, i].mean()),
            f"ppc_replicated_{name}": float(made[..., i].mean()),
        }
    return Finding(
        "ppc",
        numbers,
        {
            "observed": Named(("episode", "quantity"), true),
            "replicated": Named(("replicate", "episode", "quantity"), made),
            "quantities": Named(("quantity",), np.array(QUANTITIES)),
        },
    )


def frame_quantities(frames: Tensor, memorised: Tensor) -> Tensor:
    """The four quantities, means over steps, ``(*batch, 4)``.

    :param frames: ``(*batch, steps, C, H, W)``.
    :param memorised: ``(*some of batch, tau, C, H, W)``.
    """
    across = [(frames[..., 1:, :] - frames[..., :-1, :]).abs(), (frames[..., 1:] - frames[..., :-1]).abs()]
    flat, known = frames.flatten(-3), memorised.flatten(-3)
    nearest = torch.cdist(flat, known).amin(-1).square() / flat.shape[-1]
    differences = torch.cat([part.flatten(-3) for part in across], -1)
    by_frame = [flat.mean(-1), flat.std(-1), differences.mean(-1), nearest]
    return torch.stack([value.mean(-1) for value in by_frame], -1)
