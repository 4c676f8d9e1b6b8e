"""PIT of pixels: where does each pixel fall in what one draw of the guide predicts for it?"""

from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from gtm_pyro.diagnostics.densities import SiteNames, one_by_one
from gtm_pyro.diagnostics.findings import Finding, Named
from gtm_pyro.diagnostics.simulation import GTM_SM
from gtm_pyro.diagnostics.uniformity import bars_p, binomial_p, joint_p, kolmogorov_smirnov_p
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.reading import Reading

NUM_REPLICATES, BARS = 99, 20
TESTS = 3  # of the outer share, of all bars, of the distribution function
_PIXELS = 200  # of a frame


def pixel_pit(
    model: Any, guide: Any, episodes: Episodes, frames_per_episode: int = 25, names: SiteNames = GTM_SM
) -> Finding:
    """Probability integral transforms of pixels of the predicted frames under p(x | z), z one draw of the guide.

    If model and guide are right, frames and the latents drawn for them have the joint density of the model; then each
    pixel is a draw from p(x_i | z) like any other, and its rank among 99 drawn pixels is uniform and independent of
    those of all other pixels, frames and episodes (a pivotal quantity, Yuan and Johnson 2012), whatever they share and
    however many latents there are. Leaving a pixel out by importance weights has no such guarantee: with 128 latents,
    an exact posterior has weights that fail (k-hat above 0.7) in a third of the pixels, and outer shares of 0.06.

    This judges the last part of the program: the decoder's noise, together with q(z | x). How well frames are predicted
    from the path is for ``ppc`` and ``unseen``. z adapts to a wrong noise, the more, the more latents there are for a
    pixel, so the numbers are nearer to the right ones than the noise is.

    Numbers: ``pit_outer_share``, the share outside (0.05, 0.95), 0.1 if all is right, less if the predicted spread of
    pixels is too wide; ``pit_mean``, 0.5 if all is right; ``pit_noise_ratio``, by which p(x | z) would have to be wider
    to fit its own residuals; ``pit_pixels``, how many. ``pit_outer_p`` (binomial), ``pit_bars_p`` (any of 20 bars) and
    ``pit_ks_p`` (Kolmogorov and Smirnov) are p-values, ``pit_p`` three times the least: below 0.01 in at most 1% of the
    cases if model and guide are right.

    :raises ConfigError: a decoder whose pixels are not independent given z.
    """
    generator = np.random.default_rng(int(torch.randint(2**31, ()).item()))
    values: list[np.ndarray] = []
    squared, variance = 0.0, 0.0
    reading = Reading()
    for episode in one_by_one(episodes):
        pixels = generator.permutation(episode.frames[0, 0].numel())[:_PIXELS]
        drawn_latents = poutine.trace(guide).get_trace(episode, reading)
        nodes: Any = poutine.trace(poutine.replay(model, drawn_latents)).get_trace(episode, reading).nodes
        p, true = _of_pixels(nodes[names.frame]["fn"]), nodes[names.frame]["value"]
        if p.batch_shape != true.shape:
            raise ConfigError("model.decoder: pit needs pixels that are independent given z (Normal(...).to_event(3))")
        number = len(_frames(true))
        chosen = np.sort(generator.choice(number, min(frames_per_episode, number), replace=False))
        squared += float(_frames(true - p.mean)[chosen].double().square().sum())
        variance += float(_frames(p.variance)[chosen].double().sum())
        some = np.ix_(chosen, pixels)
        drawn = torch.stack([_frames(p.sample())[some] for _ in range(NUM_REPLICATES)])
        values.append(uniform_rank(_frames(true)[some], drawn, generator))
    pit = np.concatenate(values)
    outer = int(((pit < 0.05) | (pit > 0.95)).sum())
    p_values = {
        "pit_outer_p": binomial_p(outer, pit.size, 0.1),
        "pit_bars_p": bars_p(np.histogram(pit, BARS, (0, 1))[0]),
        "pit_ks_p": kolmogorov_smirnov_p(pit.ravel()),
    }
    numbers = {
        "pit_pixels": float(pit.size),
        "pit_outer_share": outer / pit.size,
        "pit_mean": float(pit.mean()),
        "pit_noise_ratio": (squared / variance) ** 0.5,
        **p_values,
        "pit_p": joint_p(p_values.values()),
    }
    return Finding("pit", numbers, {"pit": Named(("frame", "pixel"), pit.astype(np.float32))})


def uniform_rank(observed: Tensor, drawn: Tensor, generator: np.random.Generator) -> np.ndarray:
    """Ranks of ``observed`` ``(*batch)`` among ``drawn`` ``(draws, *batch)``, spread over [0, 1], ties broken by lot.

    Exactly uniform if the observed value is a draw like the others, of a density or of a mass function.
    """
    below, same = (np.asarray(part.sum(0).cpu(), float) for part in (drawn < observed, drawn == observed))
    uniform: np.ndarray = (below + generator.uniform(size=below.shape) * (same + 1)) / (len(drawn) + 1)
    return uniform


def _frames(pixels: Tensor) -> Tensor:
    """``(frames, pixels)`` of frames ``(*batch, C, H, W)``."""
    return pixels.flatten(0, -4).flatten(1)


def _of_pixels(p: Any) -> Any:
    while isinstance(p, torch.distributions.Independent):
        p = p.base_dist
    return p
