"""LOO-PIT: where does each pixel fall in what all the other pixels predict for it?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.reading import Reading
from gtm_pyro.reliability.densities import draw_latents, one_by_one
from gtm_pyro.reliability.findings import Finding, Named
from gtm_pyro.reliability.uniformity import kolmogorov_smirnov_p


def loo_pit(model: Any, guide: Any, episodes: Episodes, num_draws: int = 200, frames_per_episode: int = 25) -> Finding:
    """Leave-one-out probability integral transforms of pixels of the predicted frames.

    One pixel at random of each of some frames of an episode: pixels of one frame share its z, and all 192 of a frame,
    hundreds of steps long, would make any test reject. To leave a whole frame out would leave nothing that its z is
    drawn from; to leave one pixel out is a mild reweighting, by 1 / p(x_ti | z_t), of the guide's draws (``psislw``,
    ``loo_pit`` of arviz_stats). So this judges the last part of the program: the decoder's noise and the width of
    q(z | x). How well frames are predicted from the path is for ``ppc`` and ``unseen``.

    Numbers: ``loo_pit_ks_p``, the p-value of Kolmogorov and Smirnov, below 0.01 in 1% of the cases if the program is
    right; ``loo_pit_outer_share``, the share outside (0.05, 0.95), 0.1 if it is right, less if the predicted spread of
    pixels is too wide; ``loo_pit_mean``, 0.5 if it is right.

    :raises ConfigError: a decoder whose pixels are not independent given z.
    """
    generator = np.random.default_rng(int(torch.randint(2**31, ()).item()))
    values, khats = [], []
    for episode in one_by_one(episodes):
        s = guide.path(episode).sample((num_draws,))
        z = draw_latents(guide, episode, Reading(), s)[:, 0]
        number = min(frames_per_episode, z.shape[1])
        steps = torch.as_tensor(np.sort(generator.choice(z.shape[1], number, replace=False)), device=z.device)
        pixel = torch.as_tensor(generator.integers(episode.frames[0, 0].numel(), size=number), device=z.device)
        true = episode.predicted_frames[0, steps]
        log_likelihood, replicated = _of_pixels(model.decoder(z[:, steps]), true, pixel)
        observed = true.flatten(1).gather(1, pixel.unsqueeze(1)).squeeze(1)
        pit, khat = pixel_pit(*(t.double().cpu().numpy() for t in (log_likelihood.mT, replicated.mT, observed)))
        values.append(pit)
        khats.append(khat)
    pit, khat = np.concatenate(values), np.concatenate(khats)
    numbers = {
        "loo_pit_ks_p": kolmogorov_smirnov_p(pit),
        "loo_pit_mean": float(pit.mean()),
        "loo_pit_outer_share": float(((pit < 0.05) | (pit > 0.95)).mean()),
        "loo_pit_khat_share_above_0.7": float((khat > 0.7).mean()),
    }
    dims = ("pixel",)
    return Finding("loo_pit", numbers, {"pit": Named(dims, pit), "khat": Named(dims, khat)})


def pixel_pit(
    log_likelihood: np.ndarray, replicated: np.ndarray, observed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """LOO-PIT and the k-hat of its weights, both ``(pixels,)``.

    :param log_likelihood: of the observed pixel under each draw, ``(pixels, draws)``.
    :param replicated: drawn pixels, ``(pixels, draws)``.
    :param observed: ``(pixels,)``.
    """
    from arviz_stats.base.array import array_stats

    weights, khat = np.full_like(log_likelihood, -np.log(log_likelihood.shape[-1])), np.zeros(len(observed))
    for i, row in enumerate(log_likelihood):
        if np.ptp(row) > 1e-9:  # a z that is known exactly gives every draw the same weight
            weights[i], khat[i] = array_stats.psislw(row)
    pit = array_stats.loo_pit(replicated[:, None], observed, weights[:, None], random_state=0)
    return np.asarray(pit), khat


def _of_pixels(p: Any, true: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x | z) of true pixels and drawn ones, both ``(draws, frames)``, as is the batch of p."""
    while isinstance(p, torch.distributions.Independent):
        p = p.base_dist
    log_prob, drawn = p.log_prob(true), p.sample()
    if log_prob.shape != drawn.shape:
        raise ConfigError("model.decoder: loo_pit needs pixels that are independent given z (Normal(...).to_event(3))")
    index = pixel.expand(len(drawn), -1).unsqueeze(-1)
    return log_prob.flatten(2).gather(2, index).squeeze(2), drawn.flatten(2).gather(2, index).squeeze(2)
