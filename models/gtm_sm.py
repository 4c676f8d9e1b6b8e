"""The Generative Temporal Model with Spatial Memory (Fraccaro et al. 2018), section 3."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import check_positive
from gtm_pyro.inference.capabilities import Imagined
from gtm_pyro.inference.own_loops import program
from gtm_pyro.inference.parts import check_methods, check_same
from gtm_pyro.memory import DeferredValues, Memory, NumNeighbors, Retrieved, SpatialMemory, StoredValues
from gtm_pyro.networks.frames import Decoder, Encoder, FrameDecoder, FrameEncoder, latent_dim
from gtm_pyro.paths.remembered import RememberedPath
from gtm_pyro.paths.transition import TransitionPath, continued
from gtm_pyro.priors import MixturePrior, Prior, shown
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import RememberedWalls, Transition

# what a part of a user's own must have
_NEEDED = {
    "memory": ("write", "read"),
    "prior": ("__call__",),
    "encoder": ("__call__", "statistics"),
    "decoder": ("__call__", "frames"),
    "keys": ("__call__",),
}


class GTMSM(PyroModule):
    """p(x, z, s | a, v) = prod_t p(x_t | z_t) p(z_t | s_t, m) p(s_t | s_{t-1}, a_t): eq. (1), Fraccaro et al. 2018.

    ==== ============================================ ========================================
    site plates (episodes: dim -2, steps: dim -1)     event
    ==== ============================================ ========================================
    s    ``(batch, 1)``                               ``(T, state_dim)``, the whole path
    z    ``(batch, scored steps)``                    ``(latent_dim,)``
    x    ``(batch, scored steps)``, observed          ``(C, H, W)``
    ==== ============================================ ========================================

    The path covers memorisation and prediction: its first tau states are the memory's keys, the rest are the queries.

    :param transition: p(s_t | s_{t-1}, a_t).
    :param memory: an empty memory, which says how it is read.
    :param prior: p(z_t | s_t, m).
    :param encoder: q(z_t | x_t), which also makes the memory's values (section 3.3).
    :param decoder: p(x_t | z_t).
    :param reading: which steps are scored, and against which entries, when a call does not say.
    :param initial_scale: standard deviation of s_1 about the origin: an agent that starts in a known place.
    :param keys: what the memory's distances see of a state, a module of states ``(..., state_dim)``; None: the state.
    :raises ConfigError: a part lacks a method, or parts of different sizes.
    """

    def __init__(
        self,
        transition: Transition,
        memory: SpatialMemory | Memory | None = None,
        prior: MixturePrior | Prior | None = None,
        encoder: FrameEncoder | Encoder | None = None,
        decoder: FrameDecoder | Decoder | None = None,
        reading: Reading | None = None,
        initial_scale: float = 1e-3,
        keys: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        check_positive(initial_scale=initial_scale)
        self.transition = transition
        self.memory: Memory = SpatialMemory() if memory is None else memory
        self.prior: Prior = MixturePrior() if prior is None else prior
        self.encoder: Encoder = FrameEncoder() if encoder is None else encoder
        self.decoder: Decoder = FrameDecoder() if decoder is None else decoder
        self.keys: Callable[..., Tensor] = nn.Identity() if keys is None else keys
        self.reading = reading or Reading()
        check_methods(self, _NEEDED)
        check_same(self, "latent_dim", "encoder", "decoder", "prior")
        check_same(self, "state_dim", "transition", "prior", "keys")
        self.register_buffer("initial_loc", torch.zeros(transition.state_dim))
        self.register_buffer("initial_scale", torch.tensor(float(initial_scale)))

    @program
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or self.reading
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            frames = episodes.frames[:, reading.memorised_steps(episodes)]
            s = pyro.sample("s", self.path(episodes.actions, frames)).squeeze(-3)
            with reading.plate(episodes) as steps:
                now = reading.chosen(episodes, steps)
                z = pyro.sample("z", self.latents(s, episodes, reading, now))
                pyro.sample("x", self.decoder(z), obs=episodes.frames[:, now])

    def path(self, actions: Tensor, frames: Tensor | None = None) -> TransitionPath | RememberedPath:
        """prod_t p(s_t | s_{t-1}, a_t): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``.

        :param frames: of the memorised steps, for a transition that reads the memory; None: it has none.
        """
        initial = dist.Normal(self.initial_loc, self.initial_scale).to_event(1)
        if frames is None or not isinstance(self.transition, RememberedWalls):
            return TransitionPath(initial, self.transition, actions.unsqueeze(-3))
        return RememberedPath(
            initial, self.transition, actions.unsqueeze(-3), self.transition.walls(frames).unsqueeze(-4)
        )

    def latents(self, s: Tensor, episodes: Episodes, reading: Reading, now: slice | Tensor) -> dist.TorchDistribution:
        """p(z_t | s_t, m) at the steps ``now``, m as ``reading`` says; without a memory it is N(0, I)."""
        if reading.scored == "alone":
            zeros = s.new_zeros(latent_dim(self.encoder, episodes.frames))
            return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
        memorised = reading.memorised_steps(episodes)
        memory = self.remember(s[..., memorised, :], episodes.frames[:, memorised])
        return self.recall(memory, s[..., now, :], reading.num_neighbors, reading.allowed(episodes, now))[0]

    def remember(self, s: Tensor, frames: Tensor) -> Any:
        """The past encoder (section 3.3): writes states ``(*batch, tau, state_dim)`` with their frames' encodings.

        A frame is encoded when it is first retrieved: retrieval depends on states only.
        """
        keep = self._prior_reads_states or not isinstance(self.keys, nn.Identity) or self.transition.reads_memory
        known = StoredValues({"state": s, **self.transition.shown(s, frames)}, s.dim() - 2) if keep else None
        return self.memory.write(self.keys(s), DeferredValues(self.encoder.statistics, frames, known))

    def recall(
        self, memory: Memory, s: Tensor, num_neighbors: NumNeighbors | None = None, allowed: Tensor | None = None
    ) -> tuple[dist.TorchDistribution, Retrieved]:
        """p(z_t | s_t, m) at states ``(*batch, Q, state_dim)``, and the entries that it was made of."""
        read = memory.read(self.keys(s), num_neighbors, allowed)
        return self.prior(read, s) if self._prior_reads_states else self.prior(read), read

    @property
    def _prior_reads_states(self) -> bool:
        # a prior of a user's own need not say it, and is then called without states
        return getattr(self.prior, "reads_states", False)

    def encode(self, frames: Tensor, s: Tensor) -> dist.TorchDistribution:
        """q(z_t | x_t), which leaves the state out: eq. (2). Event ``(latent_dim,)``."""
        q: dist.TorchDistribution = self.encoder(frames)
        return q

    @torch.no_grad()
    def imagine(
        self, start: Tensor, memory: Memory, actions: Tensor, sample: bool = False, past: Tensor | None = None
    ) -> Imagined:
        """Eq. (1) after the memorisation phase, from actions alone.

        :param start: s_tau, ``(*batch, state_dim)``.
        :param memory: what was remembered.
        :param actions: ``(*batch, time, action_dim)``, the actions after step tau.
        :param sample: draw z from p(z_t | s_t, m); otherwise it is what :func:`gtm_pyro.priors.shown` says.
        :param past: the actions up to step tau, ``(*batch, any, action_dim)``; None: the agent is at rest.
        """
        states = continued(self.transition.reading(memory), start, actions, past)
        prior, read = self.recall(memory, states)
        z, entries = shown(prior, read)
        return Imagined(self.decoder.frames(prior.sample() if sample else z), states, entries)
