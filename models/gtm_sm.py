"""The Generative Temporal Model with Spatial Memory (Fraccaro et al. 2018), section 3."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.inference.own_loops import program
from gtm_pyro.localisation.landmarks import Landmarks, look, resembling_entries, resembling_steps
from gtm_pyro.localisation.revisits import revisited_entries, revisited_steps
from gtm_pyro.memory import DeferredValues, Memory, NumNeighbors, Retrieved, SpatialMemory, StoredValues
from gtm_pyro.networks.frames import Decoder, Encoder, FrameDecoder, FrameEncoder
from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.poses.places import usual_move
from gtm_pyro.priors import MixturePrior, Prior, regret, shown
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import Transition

logger = logging.getLogger(__name__)

# what a part of a user's own must have
_NEEDED = {
    "memory": ("write", "read"),
    "prior": ("__call__",),
    "encoder": ("__call__", "statistics"),
    "decoder": ("__call__", "frames"),
    "keys": ("__call__",),
}


class Imagined(NamedTuple):
    """What the model expects to see: states ``(*batch, time, state_dim)``, frames ``(*batch, time, C, H, W)``,
    and for each step the number of the memory entry that is shown, ``(*batch, time)``; -1 for a background."""

    states: Tensor
    frames: Tensor
    entries: Tensor


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
    :param displacement_weight: in training mode, the log joint density loses so many nats for each squared unit by
        which displacements in the agent's frame are wrong: the regression of section 4.2.2. Needs true poses, which
        are a target only.
    :param pose_unit: so many pose units make one unit of the state, in that regression. Noise, memory and keys are made
        for moves of 0.01 to 3 units of the state; others are warned of.
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
        displacement_weight: float = 0.0,
        pose_unit: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(initial_scale=initial_scale, pose_unit=pose_unit)
        if not displacement_weight >= 0:
            raise ConfigError(f"displacement_weight: expected a number of at least 0, got {displacement_weight}")
        if displacement_weight and not transition.heading:
            raise ConfigError(
                f"displacement_weight: expected 0 for a transition without a heading, got {displacement_weight}"
            )
        self.transition = transition
        self.memory: Memory = SpatialMemory() if memory is None else memory
        self.prior: Prior = MixturePrior() if prior is None else prior
        self.encoder: Encoder = FrameEncoder() if encoder is None else encoder
        self.decoder: Decoder = FrameDecoder() if decoder is None else decoder
        self.keys: Callable[..., Tensor] = nn.Identity() if keys is None else keys
        for part, needed in _NEEDED.items():
            for method in needed:
                if not callable(getattr(getattr(self, part), method, None)):
                    kind = type(getattr(self, part)).__name__
                    raise ConfigError(f"{part}: expected methods {' and '.join(needed)}, {kind} has no {method}")
        # parts of a user's own need not say it
        for name in ("decoder", "prior"):
            sizes = [getattr(part, "latent_dim", None) for part in (self.encoder, getattr(self, name))]
            if None not in sizes and sizes[0] != sizes[1]:
                raise ConfigError(f"{name}.latent_dim: expected {sizes[0]} as the encoder has it, got {sizes[1]}")
        for name in ("prior", "keys"):
            size = getattr(getattr(self, name), "state_dim", transition.state_dim)
            if size != transition.state_dim:
                raise ConfigError(
                    f"{name}.state_dim: expected {transition.state_dim} as the transition has it, got {size}"
                )
        self.displacement_weight, self.pose_unit = displacement_weight, pose_unit
        self.reading = reading or Reading()
        self.register_buffer("initial_loc", torch.zeros(transition.state_dim))
        self.register_buffer("initial_scale", torch.tensor(float(initial_scale)))

    @property
    def _prior_reads_states(self) -> bool:
        # a prior of a user's own need not say it, and is then called without states
        return getattr(self.prior, "reads_states", False)

    def _latent_dim(self, episodes: Episodes) -> int:
        # likewise
        size: int | None = getattr(self.encoder, "latent_dim", None)
        return self.encoder.statistics(episodes.frames[:1, 0])["loc"].shape[-1] if size is None else size

    def path(self, actions: Tensor) -> TransitionPath:
        """p(s_{1:T} | a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        initial = dist.Normal(self.initial_loc, self.initial_scale).to_event(1)
        return TransitionPath(initial, self.transition, actions.unsqueeze(-3))

    def remember(self, s: Tensor, frames: Tensor) -> Any:
        """The past encoder (section 3.3): writes states with the encodings of their frames.

        A frame is encoded when it is first retrieved: retrieval depends on states only.

        :param s: ``(*batch, tau, state_dim)``.
        """
        keep = self._prior_reads_states or not isinstance(self.keys, nn.Identity)
        known = StoredValues({"state": s}, s.dim() - 2) if keep else None
        return self.memory.write(self.keys(s), DeferredValues(self.encoder.statistics, frames, known))

    def recall(
        self, memory: Memory, s: Tensor, num_neighbors: NumNeighbors | None = None, allowed: Tensor | None = None
    ) -> tuple[dist.TorchDistribution, Retrieved]:
        """p(z_t | s_t, m) at states ``(*batch, Q, state_dim)``, and the entries that it was made of."""
        read = memory.read(self.keys(s), num_neighbors, allowed)
        return self.prior(read, s) if self._prior_reads_states else self.prior(read), read

    def encode(self, frames: Tensor, s: Tensor) -> dist.TorchDistribution:
        """q(z_t | x_t), which leaves the state out: eq. (2). Event ``(latent_dim,)``."""
        q: dist.TorchDistribution = self.encoder(frames)
        return q

    def landmarks(self, frames: Tensor, memory: SpatialMemory | None = None) -> Landmarks:
        """What looks like each frame: entries of a known memory, otherwise earlier steps of the episode.

        :param frames: ``(batch, time, C, H, W)``.
        :raises ConfigError: a memory without ``num_entries``, ``keys`` and ``values``, which are looked through.
        """
        for name in ("num_entries", "keys", "values"):
            if memory is not None and not hasattr(memory, name):
                raise ConfigError(f"memory: a known map needs {name}, which {type(memory).__name__} does not have")
        sights = look(self.encoder.statistics, frames)
        if self.transition.heading:
            return revisited_steps(sights) if memory is None else revisited_entries(sights, memory)
        return resembling_steps(sights) if memory is None else resembling_entries(sights, memory)

    @program
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or self.reading
        memorised = reading.memorised_steps(episodes)
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("s", self.path(episodes.actions)).squeeze(-3)
            if self.displacement_weight and self.training:
                pyro.factor("displacements", -self.displacement_weight * self.displacement_error(episodes))
            with reading.plate(episodes) as steps:
                now = reading.chosen(episodes, steps)
                if reading.scored == "alone":
                    zeros = s.new_zeros(self._latent_dim(episodes))
                    prior = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
                else:
                    memory = self.remember(s[..., memorised, :], episodes.frames[:, memorised])
                    allowed = reading.allowed(episodes, now)
                    prior, _ = self.recall(memory, s[..., now, :], reading.num_neighbors, allowed)
                z = pyro.sample("z", prior)
                pyro.sample("x", self.decoder(z), obs=episodes.frames[:, now])

    @torch.no_grad()
    def regret(self, episodes: Episodes, path: TransitionPath, reading: Reading | None = None) -> Tensor:
        """What the ELBO loses by weighing memory entries by place, in nats, ``(batch, scored steps)``.

        max_k log N(z_t; z^(k)) - log p(z_t | s_t, m), with z_t the mean encoding: near 0 where the nearest entry is
        also the one that looks most alike, and large for states that do not tell places apart. Needs no true pose. 0
        for a prior that weighs no entries.
        """
        reading = reading or self.reading
        memorised, scored = reading.memorised_steps(episodes), reading.scored_steps(episodes)
        s = path.sample().squeeze(-3)
        memory = self.remember(s[..., memorised, :], episodes.frames[:, memorised])
        prior, read = self.recall(memory, s[..., scored, :], reading.num_neighbors, reading.allowed(episodes))
        return regret(prior, read, self.encoder.statistics(episodes.frames[:, scored])["loc"])

    def initialise(self, episodes: Episodes) -> None:
        """Set starting values from frames and actions, where the transition knows how to; from true displacements too
        where these are targets of training."""
        regress = getattr(self.transition, "regress", None)
        if self.displacement_weight and regress is not None:
            targets = self._true_displacements(episodes)
            move = usual_move(targets[..., :2].cumsum(1))
            if not 0.01 <= move <= 3:
                logger.warning(
                    "pose_unit: expected moves of 0.01 to 3 units of the state, a usual one is %.3g at pose_unit=%g; "
                    "%.2g may be a better one",
                    move,
                    self.pose_unit,
                    move * self.pose_unit,
                )
            regress(episodes.actions, targets)
            return
        initialise = getattr(self.transition, "initialise", None)
        if initialise is not None:
            initialise(episodes.frames, episodes.actions, num_observed=episodes.num_observed)

    def displacement_error(self, episodes: Episodes) -> Tensor:
        """Squared error of the displacements d_{2:T}, in units of the state and radians, summed over steps.

        ``(batch, 1)``: section 4.2.2.

        :raises EpisodesError: episodes without poses of a position and a heading.
        """
        d = self.transition.controls(episodes.actions)[:, 1:]
        return (d - self._true_displacements(episodes)).square().sum((-2, -1)).unsqueeze(-1)

    def _true_displacements(self, episodes: Episodes) -> Tensor:
        """In units of the state and radians, ``(batch, T - 1, 3)``."""
        moves, turns = episodes.displacements.split([2, 1], -1)
        return torch.cat([moves / self.pose_unit, turns], -1)

    @torch.no_grad()
    def imagine(
        self,
        start: Tensor,
        memory: Memory,
        actions: Tensor,
        sample: bool = False,
        past: Tensor | None = None,
    ) -> Imagined:
        """Roll the model forward from actions alone: eq. (1) after the memorisation phase.

        :param start: s_tau, ``(*batch, state_dim)``.
        :param memory: what was remembered.
        :param actions: ``(*batch, time, action_dim)``, the actions after step tau.
        :param sample: draw z from p(z_t | s_t, m); otherwise z is the mean of the entry that has the most weight,
            with those that agree with it, or of a prior that is no mixture its mean: see
            :func:`gtm_pyro.priors.shown`.
        :param past: the actions up to step tau, from which momentum follows, ``(*batch, any, action_dim)``; None: the
            agent is at rest.
        """
        transition = self.transition
        noise = transition.scale * torch.randn(
            *actions.shape[:-1], transition.state_dim, dtype=start.dtype, device=start.device
        )
        # a rollout leaves the first action and the first noise alone: they led to where it starts
        actions, noise = (torch.cat([x[..., :1, :], x], -2) for x in (actions, noise))
        states = transition.rollout(start, actions, noise, past)[..., 1:, :]
        prior, read = self.recall(memory, states)
        z, entries = shown(prior, read)
        return Imagined(states, self.decoder.frames(prior.sample() if sample else z), entries)
