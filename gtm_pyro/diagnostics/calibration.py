"""Simulation-based calibration: on episodes that the model made up itself, is the truth like a draw of the guide?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.diagnostics.densities import SiteNames, draw_latents, site_log_probs
from gtm_pyro.diagnostics.findings import Finding, Named
from gtm_pyro.diagnostics.simulation import GTM_SM, simulate
from gtm_pyro.diagnostics.uniformity import joint_p, mean_p, rank_p, student_p
from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading

NUM_DRAWS, BINS = 31, 8  # 32 ranks, four a bin


def calibration(
    model: Any,
    guide: Any,
    episodes: Episodes,
    num_simulations: int = 100,
    num_steps: int = 24,
    names: SiteNames = GTM_SM,
) -> Finding:
    """Ranks of true quantities among 31 draws of the guide on simulated frames: uniform for an exact posterior.

    Talts et al. 2018, with data-dependent quantities as Modrak et al. 2023 ask: a guide that returns the prior has
    uniform ranks of every coordinate, but not of how well a path explains the frames. Quantities:

    * ``s_t[d]``: coordinates of the state a third, two thirds and all of the way through;
    * ``frames_given_path``: log p(z* | s, m(s)) - log q(z* | x, s), z* one draw of the guide, shared by truth and
      draws; log p(x | s) where there is no z;
    * ``log_joint``: log p(x, z, s | a), which also judges the encoder.

    Each quantity's p-value is that of 8 bins, by Pearson and by the bin that is furthest off. ``sbc_p_path`` is of all
    coordinates, jointly with two tests that say what is wrong, ``sbc_spread_p`` and ``sbc_shift_p``: of
    ``sbc_spread``, how far ranks of coordinates are from the middle over how far they should be, above 1 for a guide
    that is too sure, below 1 for one that is less sure than it could be; and of ``sbc_shift``, the mean rank, from 0 to
    1, of the coordinate in which that is furthest from 0.5.
    ``sbc_p_frames_given_path`` and ``sbc_p_log_joint`` are of these two, ``sbc_mean_rank_...`` their mean ranks, 0.5 if
    all is right. ``sbc_p_min``, three times the least of the three (Bonferroni), is below 0.01 in at most 1% of the
    cases where the guide is exact.

    :param episodes: where actions and the shape of a frame come from.
    :param num_simulations: at least 40, for five ranks a bin.
    :param names: of the sites.
    """
    actions = episodes.actions[:, : min(num_steps, episodes.num_steps)]
    actions = actions.repeat(-(-num_simulations // len(actions)), 1, 1)[:num_simulations]
    made = simulate(model, actions, episodes.frame_shape, names)
    seen, reading = made.episodes, Reading("earlier")
    s = guide.path(seen).sample((NUM_DRAWS,))
    z = draw_latents(guide, seen, reading, s, names)
    # the truth first, then the draws: all are scored in the same way
    s = torch.cat([made.s.unsqueeze(-3).unsqueeze(0), s])
    z = {name: torch.cat([made.latents[name].unsqueeze(0), value]) for name, value in z.items()}
    steps = sorted({-(-seen.num_steps * part // 3) - 1 for part in (1, 2, 3)})
    quantities = {f"s_{t + 1}[{d}]": s[:, :, 0, t, d] for t in steps for d in range(s.shape[-1])}
    coordinates = len(quantities)
    quantities |= _data_dependent(model, guide, seen, reading, s, z, names)
    ranks = {name: _rank(value).cpu().numpy() for name, value in quantities.items()}
    p = {name: rank_p(rank, NUM_DRAWS + 1, BINS) for name, rank in ranks.items()}
    path = np.stack(list(ranks.values())[:coordinates], 1)  # (simulation, coordinate)
    off_centre = np.abs(np.arange(NUM_DRAWS + 1) / NUM_DRAWS - 0.5)
    spread = off_centre[path].mean(1)  # coordinates of one simulation depend on each other
    spread_p = student_p(spread - off_centre.mean())
    means = path.mean(0) / NUM_DRAWS
    shift = float(means[np.abs(means - 0.5).argmax()])
    # the variance of one uniform rank is (n + 2) / 12 n
    shift_p = mean_p(shift - 0.5, (NUM_DRAWS + 2) / (12 * NUM_DRAWS * len(path)), coordinates)
    numbers = {
        "sbc_p_path": joint_p([joint_p(list(p.values())[:coordinates]), spread_p, shift_p]),
        "sbc_p_frames_given_path": p["frames_given_path"],
        "sbc_p_log_joint": p["log_joint"],
    }
    numbers["sbc_p_min"] = joint_p(numbers.values())
    numbers |= {
        "sbc_spread": float(spread.mean() / off_centre.mean()),
        "sbc_spread_p": spread_p,
        "sbc_shift": shift,
        "sbc_shift_p": shift_p,
        "sbc_mean_rank_frames_given_path": float(ranks["frames_given_path"].mean() / NUM_DRAWS),
        "sbc_mean_rank_log_joint": float(ranks["log_joint"].mean() / NUM_DRAWS),
        "sbc_simulations": float(len(path)),
    }
    return Finding(
        "sbc",
        numbers,
        {
            "rank": Named(("quantity", "simulation"), np.stack(list(ranks.values()))),
            "p": Named(("quantity",), np.array(list(p.values()))),
            "quantities": Named(("quantity",), np.array(list(p))),
        },
    )


def _rank(value: Tensor) -> Tensor:
    """How many draws lie below the truth, which comes first; ties are broken by lot."""
    lot = torch.rand(value.shape, device=value.device)
    below = (value[1:] < value[0]) | ((value[1:] == value[0]) & (lot[1:] < lot[0]))
    return below.sum(0)


def _data_dependent(
    model: Any, guide: Any, seen: Episodes, reading: Reading, s: Tensor, z: dict[str, Tensor], names: SiteNames
) -> dict[str, Tensor]:
    """``(1 + draws, simulations)`` each."""
    assert names.path is not None and names.frame is not None
    drawn = draw_latents(guide, seen, reading, guide.path(seen).sample((1,)), names)
    shared = {name: value[0] for name, value in drawn.items()}
    explained, joint = [], []
    for draw, one_s in enumerate(s.split(1)):
        held = {names.path: one_s}
        of_model, of_guide = (site_log_probs(p, seen, reading, held | shared) for p in (model, guide))
        terms = [of_model[name] - of_guide[name] for name in shared] or [of_model[names.frame]]
        explained.append(terms[0].reshape(-1))
        held |= {name: value[draw : draw + 1] for name, value in z.items()}
        sites = site_log_probs(model, seen, reading, held).values()
        joint.append(torch.stack([site.double().reshape(-1) for site in sites]).sum(0))
    return {"frames_given_path": torch.stack(explained), "log_joint": torch.stack(joint)}
