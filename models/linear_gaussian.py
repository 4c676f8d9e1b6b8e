"""The tractable twin of the GTM-SM: linear-Gaussian parts and a fixed memory, so that everything is known exactly."""

import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.inference.own_loops import program
from gtm_pyro.localisation.landmarks import Landmarks
from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import Translation


class Moments(NamedTuple):
    """Of each s_t: mean ``(batch, T, state_dim)``, covariance ``(T, state_dim, state_dim)``, one for all episodes."""

    mean: Tensor
    covariance: Tensor


class LinearGaussian(PyroModule):
    """p(x, z, s | a) = prod_t N(x_t; z_t, sigma_x² I) N(z_t; C s_t + d, sigma_z² I) p(s_t | s_{t-1}, a_t).

    Eq. (1), Fraccaro et al. 2018, with every density linear-Gaussian. The memory m = (C, d) is fixed: a field of z that
    is affine in the place, read without error everywhere. A frame is z laid out as pixels. The columns of C are
    orthogonal and of one length, the gain c, so what a frame says about s is as certain in every direction:
    p(x_t | s_t) is proportional to N(s_t; y_t, v I), y_t = C^T (x_t - d) / c², v = (sigma_z² + sigma_x²) / c².

    Sites, plates and shapes are those of ``gtm_pyro.models.GTMSM``. A reading says only which steps are scored.
    Frames are not confined to [0, 1]: make episodes of them with ``Episodes(..., validate=False)``.

    :param transition: p(s_t | s_{t-1}, a_t), without walls; by default five actions, scale r = 0.3.
    :param frame_shape: ``(C, H, W)``; latent_dim is the number of its pixels, at least ``state_dim``.
    :param gain: c, 0 for frames that say nothing about the place. The directions of C's columns are drawn.
    :param memory_scale: sigma_z.
    :param frame_scale: sigma_x.
    :param initial_scale: standard deviation of s_1 about the origin.
    :param reading: by default every step is scored.
    :raises ConfigError: a number out of its range, or a transition that is not linear.
    """

    def __init__(
        self,
        transition: Translation | None = None,
        frame_shape: tuple[int, int, int] = (1, 2, 2),
        gain: float = 1.0,
        memory_scale: float = 0.3,
        frame_scale: float = 0.4,
        initial_scale: float = 1.0,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        check_positive(memory_scale=memory_scale, frame_scale=frame_scale, initial_scale=initial_scale)
        self.transition = Translation(action_dim=5, scale=0.3) if transition is None else transition
        if getattr(type(self.transition), "loc", None) is not Translation.loc:
            raise ConfigError(f"transition: expected a Translation, which is linear, got {type(transition).__name__}")
        self.frame_shape, self.latent_dim = tuple(frame_shape), math.prod(frame_shape)
        if self.latent_dim < self.transition.state_dim:
            raise ConfigError(
                f"frame_shape: expected at least {self.transition.state_dim} pixels, one for each dimension of the "
                f"state, got {self.latent_dim}"
            )
        if not gain >= 0:
            raise ConfigError(f"gain: expected a number of at least 0, got {gain}")
        self.reading = reading or Reading("earlier")
        columns = torch.nn.init.orthogonal_(torch.empty(self.latent_dim, self.transition.state_dim))
        self.register_buffer("gain", torch.tensor(float(gain)))
        self.register_buffer("columns", columns)
        self.register_buffer("offset", torch.full((self.latent_dim,), 0.5))
        self.register_buffer("memory_scale", torch.tensor(float(memory_scale)))
        self.register_buffer("frame_scale", torch.tensor(float(frame_scale)))
        self.register_buffer("initial_loc", torch.zeros(self.transition.state_dim))
        self.register_buffer("initial_scale", torch.tensor(float(initial_scale)))

    def path(self, actions: Tensor) -> TransitionPath:
        """p(s_{1:T} | a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        initial = dist.Normal(self.initial_loc, self.initial_scale).to_event(1)
        return TransitionPath(initial, self.transition, actions.unsqueeze(-3))

    def prior(self, s: Tensor) -> dist.TorchDistribution:
        """p(z_t | s_t, m) for states ``(..., state_dim)``, event shape ``(latent_dim,)``."""
        return dist.Normal(self._field(s), self.memory_scale).to_event(1)

    def decoder(self, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_t) for latents ``(..., latent_dim)``, event shape ``(C, H, W)``."""
        return dist.Normal(z.reshape(*z.shape[:-1], *self.frame_shape), self.frame_scale).to_event(3)

    def encode(self, frames: Tensor, s: Tensor) -> dist.TorchDistribution:
        """p(z_t | x_t, s_t), exactly; event shape ``(latent_dim,)``.

        :param frames: ``(*batch, steps, C, H, W)``.
        :param s: ``(*batch, steps, state_dim)``, with any dimensions more before.
        """
        precision = self.memory_scale**-2 + self.frame_scale**-2
        loc = (self._field(s) / self.memory_scale**2 + frames.flatten(-3) / self.frame_scale**2) / precision
        return dist.Normal(loc, precision.rsqrt()).to_event(1)

    def landmarks(self, frames: Tensor, memory: object = None) -> Landmarks:
        """L_t(s) proportional to p(x_t | s_t): one landmark at y_t, of scale sqrt(v); L = 1 where the gain is 0.

        :param frames: ``(*batch, steps, C, H, W)``.
        :param memory: not read, for this model's own is known everywhere.
        """
        shape = (*frames.shape[:-3], 1)
        said = (self.gain > 0).expand(shape)
        nothing = torch.full_like(said, -math.inf, dtype=frames.dtype)
        position = torch.where(said, self._position(frames), 0.0).unsqueeze(-2)
        return Landmarks(
            position=position,
            log_weight=torch.where(said, 0.0, nothing),
            log_background=torch.where(said, nothing, 0.0).squeeze(-1),
            scale=torch.where(said, self._variance().sqrt(), 1.0),
        )

    @program
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or self.reading
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("s", self.path(episodes.actions)).squeeze(-3)
            with reading.plate(episodes) as steps:
                now = reading.chosen(episodes, steps)
                z = pyro.sample("z", self.prior(s[..., now, :]))
                pyro.sample("x", self.decoder(z), obs=episodes.frames[:, now])

    @torch.no_grad()
    def simulate(self, actions: Tensor, num_observed: int | None = None) -> Episodes:
        """Episodes drawn from the model, their true states as poses.

        :param actions: ``(batch, T, action_dim)``.
        :param num_observed: tau, by default T.
        """
        s = self.path(actions).sample().squeeze(-3)
        frames = self.decoder(self.prior(s).sample()).sample()
        names = tuple(f"s {d}" for d in range(s.shape[-1]))
        return Episodes(frames, actions, num_observed or actions.shape[1], poses=s, pose_names=names, validate=False)

    def log_evidence(self, episodes: Episodes, reading: Reading | None = None) -> Tensor:
        """log p(x | a) of the scored steps, in nats, ``(batch,)``.

        :raises ConfigError: a transition that slips, which is not Gaussian.
        """
        start = self._first_scored(episodes, reading)
        moves, state_dim = self._moves(episodes), self.transition.state_dim
        # GaussianHMM takes a step before its first frame: half of that state's variance is drawn before, half in it
        half = ((self.initial_scale**2 + start * self.transition.scale**2) / 2).sqrt()
        before = dist.Normal(moves[:, : start + 1].sum(1), half).to_event(1)
        steps = moves[:, start:].clone()
        steps[:, 0] = 0
        scales = torch.cat([half.reshape(1, 1), self.transition.scale.expand(steps.shape[1] - 1, 1)])
        hmm = dist.GaussianHMM(
            before,
            torch.eye(state_dim).to(steps),
            dist.Normal(steps, scales).to_event(1),
            self.gain * self.columns.mT,
            dist.Normal(self.offset, (self.memory_scale**2 + self.frame_scale**2).sqrt()).to_event(1),
        )
        evidence: Tensor = hmm.log_prob(episodes.frames[:, start:].flatten(-3))
        return evidence

    def filtering(self, episodes: Episodes, reading: Reading | None = None) -> Moments:
        """p(s_t | x_{1:t}, a_{1:t}) for every t, by the Kalman filter; frames that are not scored are not seen.

        :raises ConfigError: a transition that slips, which is not Gaussian.
        """
        start = self._first_scored(episodes, reading)
        moves, seen = self._moves(episodes), self._information(episodes.frames)
        mean, variance = moves[:, 0], self.initial_scale**2
        means, variances = [], []
        for t in range(episodes.num_steps):
            if t > 0:
                mean, variance = mean + moves[:, t], variance + self.transition.scale**2
            if t >= start:
                posterior = 1 / (1 / variance + self._precision())
                mean, variance = posterior * (mean / variance + seen[:, t]), posterior
            means.append(mean)
            variances.append(variance)
        return Moments(torch.stack(means, 1), self._isotropic(torch.stack(variances)))

    def smoothing(self, episodes: Episodes, reading: Reading | None = None) -> Moments:
        """p(s_t | x_{1:T}, a_{1:T}) for every t; frames that are not scored are not seen.

        :raises ConfigError: a transition that slips, which is not Gaussian.
        """
        posterior = self.posterior(episodes, reading).base_dist
        return Moments(posterior.loc.mT, self._isotropic(posterior.covariance_matrix[0, 0].diagonal()))

    def posterior(self, episodes: Episodes, reading: Reading | None = None) -> dist.TorchDistribution:
        """p(s_{1:T} | x_{1:T}, a_{1:T}), jointly: batch shape ``(batch,)``, event shape ``(state_dim, T)``, time last.

        The dimensions of the state are independent, and alike but for their means.

        :raises ConfigError: a transition that slips, which is not Gaussian.
        """
        start, num_steps = self._first_scored(episodes, reading), episodes.num_steps
        time = torch.arange(num_steps, device=episodes.device)
        prior = self.initial_scale**2 + self.transition.scale**2 * torch.minimum(time[:, None], time)
        # by the gain over the noisy frame, which is defined where frames say nothing too
        told = torch.eye(num_steps - start).to(prior) + self._precision() * prior[start:, start:]
        weights = torch.linalg.solve(told, prior[start:])  # (I + K/v)^-1 K
        mean = self._moves(episodes).cumsum(1)
        residual = self._information(episodes.frames[:, start:]) - self._precision() * mean[:, start:]
        covariance = prior - self._precision() * prior[:, start:] @ weights
        loc = (mean + torch.einsum("qt,bqd->btd", weights, residual)).mT
        return dist.MultivariateNormal(loc, (covariance + covariance.mT) / 2).to_event(1)

    def _field(self, s: Tensor) -> Tensor:
        """C s + d, what the memory holds at a place."""
        return self.gain * s @ self.columns.mT + self.offset

    def _precision(self) -> Tensor:
        """1 / v, what one frame says about a coordinate of the state."""
        return self.gain**2 / (self.memory_scale**2 + self.frame_scale**2)

    def _variance(self) -> Tensor:
        """v."""
        return 1 / self._precision()

    def _information(self, frames: Tensor) -> Tensor:
        """y_t / v, ``(..., state_dim)``."""
        noise = self.memory_scale**2 + self.frame_scale**2
        return self.gain * (frames.flatten(-3) - self.offset) @ self.columns / noise

    def _position(self, frames: Tensor) -> Tensor:
        """y_t, the place that explains a frame best, ``(..., state_dim)``."""
        return (frames.flatten(-3) - self.offset) @ self.columns / self.gain

    def _moves(self, episodes: Episodes) -> Tensor:
        """By how much E[s_t] is off E[s_{t-1}], ``(batch, T, state_dim)``; the first is E[s_1]."""
        moves = self.transition.moves(episodes.actions)
        return torch.cat([self.initial_loc.expand_as(moves[:, :1]), moves[:, 1:]], 1)

    def _isotropic(self, variances: Tensor) -> Tensor:
        return variances[:, None, None] * torch.eye(self.transition.state_dim).to(variances)

    def _first_scored(self, episodes: Episodes, reading: Reading | None) -> int:
        """The number of steps before those scored, which are always the last ones."""
        if self.transition.slips:
            raise ConfigError(f"transition.slip: expected 0, for exact results, got {float(self.transition.slip):g}")
        return (reading or self.reading).scored_steps(episodes).start
