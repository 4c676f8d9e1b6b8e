"""What it costs to weigh memory entries by place: much where states do not tell places apart. Needs no true poses."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.priors import regret as cost
from gtm_pyro.reading import Reading


@torch.no_grad()
def regret(model: Any, episodes: Episodes, path: TorchDistribution, reading: Reading | None = None) -> Tensor:
    """What the ELBO loses by weighing memory entries by place, in nats, ``(batch, scored steps)``.

    max_k log N(z_t; z^(k)) - log p(z_t | s_t, m), with z_t the mean encoding: near 0 where the nearest entry is also
    the one that looks most alike. 0 for a prior that weighs no entries. Which models it can be asked of is in
    ``gtm_pyro.inference.capabilities``; a model's own ``regret(episodes, path, reading)`` takes its place.

    :param path: q(s_{1:T}), of which a path is drawn, batch shape ``(batch, 1)``.
    :param reading: by default the model's own.
    """
    if hasattr(model, "regret"):
        own: Tensor = model.regret(episodes, path, reading)
        return own
    reading = reading or model.reading
    memorised, scored = reading.memorised_steps(episodes), reading.scored_steps(episodes)
    s = path.sample().squeeze(-3)
    memory = model.remember(s[..., memorised, :], episodes.frames[:, memorised])
    prior, read = model.recall(memory, s[..., scored, :], reading.num_neighbors, reading.allowed(episodes))
    return cost(prior, read, model.encoder.statistics(episodes.frames[:, scored])["loc"])
