"""Mixtures of what the nearest memory entries say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.memory.spatial import Retrieved
from gtm_pyro.priors.mixtures import NormalMixture


class MixturePrior(nn.Module):
    """The mixture of what the K nearest memory entries say, appendix A.1 of Fraccaro et al. 2018.

    p(z | s, m) = sum_k w_k N(z; loc_k, diag(scale_k^2)), w_k proportional to 1 / (d_k^2 + delta).

    :param delta: in squared units of the state; how near an entry must be to outweigh all others.
    :raises ConfigError: a delta that is not positive.
    :cvar reads_states: whether ``forward`` needs the states of queries and entries.
    """

    reads_states = False

    def __init__(self, delta: float = 1e-4) -> None:
        super().__init__()
        if not delta > 0:
            raise ConfigError(f"delta: expected a positive number, got {delta!r}")
        self.delta = delta

    def extra_repr(self) -> str:
        return f"delta={self.delta}"

    def forward(self, read: Retrieved, s: Tensor | None = None) -> NormalMixture:
        """The prior of every query's z: batch (*batch, Q), event (latent_dim,).

        :param read: its values hold "loc" and "scale", (*batch, Q, K, latent_dim) or (*batch, 1, N,
            latent_dim).
        :param s: the queries' states; not needed.

        Where a read was masked there is a background, N(0, I): its weight is 1 for a query that could read no
        entry and 0 for the others.
        """
        logits = self.entry_logits(read)
        if not read.masked:
            return NormalMixture(logits, read.values["loc"], read.values["scale"])
        nothing = read.squared_distance.detach().amin(-1, keepdim=True) == torch.inf
        alone = torch.zeros_like(nothing, dtype=logits.dtype).masked_fill(~nothing, -torch.inf)
        return _with_background(read, logits, alone, logits.new_zeros(()), logits.new_ones(()))

    def entry_logits(self, read: Retrieved) -> Tensor:
        """Log weights of the entries, (*batch, Q, K), unnormalised; -inf where an entry was not allowed."""
        return -(read.squared_distance + self.delta).log()


class BackgroundPrior(MixturePrior):
    """What the K nearest memory entries say, and a background that says "I have not been here".

    p(z | s, m) = w_0 N(z; loc_0, diag(scale_0^2)) + sum_k w_k N(z; loc_k, diag(scale_k^2)), w_k proportional to
    1 / (d_k^2 + delta), w_0 to 1 / distance^2: one entry at that distance weighs as much as the background. Its
    parameters ``background_loc`` and ``background_log_scale``, (latent_dim,), start at N(0, I).

    :param latent_dim: length of z.
    :param distance: in units of the state. Half a move makes places a move away from all entries new ones.
    :param delta: in squared units of the state; how near an entry must be to outweigh all others.
    :raises ConfigError: a number that is not positive.
    """

    def __init__(self, latent_dim: int = 64, distance: float = 0.3, delta: float = 1e-4) -> None:
        super().__init__(delta)
        check_positive(latent_dim=latent_dim, distance=distance)
        self.latent_dim, self.distance = latent_dim, distance
        self.background_loc = nn.Parameter(torch.zeros(latent_dim))
        self.background_log_scale = nn.Parameter(torch.zeros(latent_dim))

    def extra_repr(self) -> str:
        return f"latent_dim={self.latent_dim}, distance={self.distance}, {super().extra_repr()}"

    def forward(self, read: Retrieved, s: Tensor | None = None) -> NormalMixture:
        """As of :class:`MixturePrior`; the last component is the background, alone where nothing could be read.

        :raises ConfigError: the memory holds latents of another length.
        """
        found = read.values["loc"].shape[-1]
        if found != self.latent_dim:
            raise ConfigError(
                f"prior.latent_dim: expected {found}, as the memory's values have it, got {self.latent_dim}"
            )
        logits = self.entry_logits(read)
        # new_tensor would make the host wait for the device
        own = logits.new_full((), self.distance).log().mul(-2).expand_as(logits[..., :1])
        return _with_background(read, logits, own, self.background_loc, self.background_log_scale.exp())


def _with_background(read: Retrieved, logits: Tensor, own: Tensor, loc: Tensor, scale: Tensor) -> NormalMixture:
    """The entries, then a background of log weight ``own`` (*batch, Q, 1); ``loc`` and ``scale`` broadcast."""
    loc, scale = (
        torch.cat([entries, one.to(entries).expand(*entries.shape[:-2], 1, entries.shape[-1])], -2)
        for entries, one in ((read.values["loc"], loc), (read.values["scale"], scale))
    )
    return NormalMixture(torch.cat([logits, own], -1), loc, scale, background=True)
