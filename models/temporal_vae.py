"""What temporal VAEs have in common, with an external memory or without: Gemici et al. 2017, sections 2 and 3."""

from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.capabilities import Imagined
from gtm_pyro.inference.own_loops import program
from gtm_pyro.inference.parts import check_methods, check_same
from gtm_pyro.memory.controller import Controller
from gtm_pyro.networks.frames import Decoder, Encoder, FrameDecoder, FrameEncoder
from gtm_pyro.networks.gaussian import GaussianMap
from gtm_pyro.paths.autoregressive import AutoregressivePath, Conditional, Start
from gtm_pyro.reading import Reading

# what a part of a user's own must have
_NEEDED = {"encoder": ("statistics",), "decoder": ("__call__", "frames")}
# a standard deviation from 0.001 to 150
_LOG_SCALES = -7.0, 5.0


class TemporalVAE(PyroModule):
    """p(x, z | a) = prod_t p(x_t | z_t) p(z_t | Psi_{t-1}), Psi_{t-1} of z_{1:t-1} and a_{1:t}: eqs. (1) and (7).

    ==== ============================================ ========================================
    site plates (episodes: dim -2, steps: dim -1)     event
    ==== ============================================ ========================================
    z    ``(batch, 1)``                               ``(scored steps, latent_dim)``, one sequence
    x    ``(batch, scored steps)``, observed          ``(C, H, W)``
    ==== ============================================ ========================================

    Actions are the context c_t, which is given; the first led to nothing and is not used. Past frames reach Psi through
    the latents that they were encoded as.

    The posterior is Bayes' rule for a frame that tells of z_t with Gaussian errors (Sønderby et al. 2016)::

        q(z_t | Psi_{t-1}, x_t)  proportional to  p(z_t | Psi_{t-1}) N(z_t; mu(x_t), sigma(x_t)²)       eq. (8)

    Where the memory tells all that the frame would, the two are one and their KL divergence is 0. The paper has a
    network of Psi and x_t in its place.

    With the reading ``earlier`` all steps are scored: the bound of eq. (5). With ``predicted`` the first tau steps fill
    the memory, each with the mean of its posterior, as a GTM-SM's memory holds encodings, and the rest is scored given
    that. The other readings want a memory whose entries can be left out, and are refused.

    :param controller: makes Psi; it has the memory.
    :param encoder: mu(x_t) and sigma(x_t), its ``statistics``.
    :param decoder: p(x_t | z_t).
    :param reading: which steps are scored when a call does not say; None: ``earlier``.
    :param map_dim: units of the hidden layer of f_z.
    :raises ConfigError: a part lacks a method, or parts of different sizes.
    """

    def __init__(
        self,
        controller: Controller,
        encoder: Encoder | None,
        decoder: Decoder | None,
        reading: Reading | None,
        map_dim: int,
    ) -> None:
        super().__init__()
        size = controller.latent_dim
        self.controller = controller
        self.encoder: Encoder = FrameEncoder(size) if encoder is None else encoder
        self.decoder: Decoder = FrameDecoder(size) if decoder is None else decoder
        self.prior_map = GaussianMap(controller.context_dim, size, map_dim, controller.read_dim // size)
        self.reading = reading or Reading("earlier")
        check_methods(self, _NEEDED)
        check_same(self, "latent_dim", "controller", "encoder", "decoder")

    @program
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or self.reading
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            z = pyro.sample("z", self.prior(episodes, reading)).squeeze(-3)
            with reading.plate(episodes) as steps:
                now = reading.chosen(episodes, steps)
                shown = z if reading.num_scored is None else z[..., steps, :]
                pyro.sample("x", self.decoder(shown), obs=episodes.frames[:, now])

    def prior(self, episodes: Episodes, reading: Reading) -> AutoregressivePath:
        """p(z_t | z_{1:t-1}) of the scored steps, eq. (7): batch shape ``(batch, 1)``."""
        actions = episodes.actions[:, reading.scored_steps(episodes)]
        return self._path(self._f_z, actions, start=self._start(episodes, reading))

    def posterior(self, episodes: Episodes, reading: Reading) -> AutoregressivePath:
        """q(z_t | z_{1:t-1}, x_t) of the scored steps, eq. (8): batch shape ``(batch, 1)``."""
        scored = reading.scored_steps(episodes)
        start = self._start(episodes, reading)
        return self._filter(episodes.frames[:, scored], episodes.actions[:, scored], start)

    @torch.no_grad()
    def predict(self, guide: Any, observed: Episodes, actions: Tensor, sample: bool = False) -> Imagined:
        """What follows the observed steps under given actions: each z_t is the mean of eq. (7), or drawn from it.

        :param guide: not asked, for the posterior is a part of the model.
        :param actions: ``(batch, steps, action_dim)``.
        """
        prior = self._path(self._f_z, actions, start=self._memorised(observed))
        z = prior.sample() if sample else prior.expected().z
        return Imagined(self.decoder.frames(z.squeeze(-3)))

    @torch.no_grad()
    def reconstruct(self, episodes: Episodes) -> Tensor:
        """The predicted frames, each decoded from the mean of its posterior: ``(batch, num_predicted, C, H, W)``."""
        z = self.posterior(episodes, Reading("predicted")).expected().z
        return self.decoder.frames(z.squeeze(-3))

    def _start(self, episodes: Episodes, reading: Reading) -> Start | None:
        if reading.scored not in ("earlier", "predicted") or isinstance(reading.num_neighbors, int):
            raise ConfigError(
                f"reading: expected scored 'earlier' or 'predicted' and all entries of the memory for "
                f"{type(self).__name__}, got {reading}"
            )
        return self._memorised(episodes.observed) if reading.scored == "predicted" else None

    def _memorised(self, observed: Episodes) -> Start:
        """The controller and its memory after the observed steps, each latent the mean of q(z_t | z_{1:t-1}, x_t)."""
        path = self._filter(observed.frames, observed.actions)
        return Start(path.expected().state, path.batch_shape)

    def _filter(self, frames: Tensor, actions: Tensor, start: Start | None = None) -> AutoregressivePath:
        """q of all steps of frames ``(batch, T, C, H, W)``, which are encoded in one call."""
        found = self.encoder.statistics(frames)
        e = torch.cat([found["loc"], found["scale"]], -1).unsqueeze(1)
        return self._path(self._f_q, actions, e, start)

    def _path(
        self, conditional: Conditional, actions: Tensor, e: Tensor | None = None, start: Start | None = None
    ) -> AutoregressivePath:
        size, expected = self.controller.latent_dim, self.controller.action_dim
        if actions.shape[-1] != expected:
            raise ConfigError(f"actions: expected (batch, time, {expected}), got {tuple(actions.shape)}")
        return AutoregressivePath(self.controller, conditional, size, actions.unsqueeze(1), e, start)

    def _f_z(self, context: Tensor, e: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of eq. (7)."""
        loc, log_scale = self.prior_map(context)
        return loc, log_scale.clamp(*_LOG_SCALES).exp()

    def _f_q(self, context: Tensor, e: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of eq. (8): the normalised product of f_z and of what the frame alone tells."""
        assert e is not None
        seen_loc, seen_scale = e.chunk(2, -1)
        prior_loc, prior_scale = self._f_z(context, None)
        seen, known = seen_scale.square().reciprocal(), prior_scale.square().reciprocal()
        return (seen * seen_loc + known * prior_loc) / (seen + known), (seen + known).rsqrt()
