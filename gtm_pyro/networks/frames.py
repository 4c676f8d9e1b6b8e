"""Encoders q(z | x) and decoders p(x | z)."""

import math
from typing import Any, Literal, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.networks.precision import network

MIN_SCALE = 1e-3
# the shortest side of what the linear layer sees: about this many places, at most so many
_GRID, _LARGEST_GRID = 4, 16
# of the leaky ReLUs: at 0.2, held-out reconstruction errors were 0.8 of those at 0.01 after the same number of steps
SLOPE = 0.2


class Encoder(Protocol):
    """q(z_t | x_t), what a model asks of an encoder: see :class:`FrameEncoder`.

    Where it names its ``latent_dim`` or ``frame_shape``, they are compared with those of the other parts.
    """

    def __call__(self, frames: Any, /) -> Any:
        """q(z_t | x_t), event shape ``(latent_dim,)``, of frames ``(..., C, H, W)``."""

    def statistics(self, frames: Any, /) -> Any:
        """Its mean "loc" and standard deviation "scale", each ``(..., latent_dim)``: what the memory holds."""


class Decoder(Protocol):
    """p(x_t | z_t), what a model asks of a decoder: see :class:`FrameDecoder`."""

    def __call__(self, z: Any, /) -> Any:
        """p(x_t | z_t), event shape ``(C, H, W)``, of latents ``(..., latent_dim)``."""

    def frames(self, z: Any, /) -> Any:
        """Its mean, the frame that is shown, ``(..., C, H, W)``."""


def latent_dim(encoder: Any, frames: Tensor) -> int:
    """The length of z; an encoder of a user's own need not name it, and then says it by its statistics.

    :param frames: ``(batch, T, C, H, W)``.
    """
    named: int | None = getattr(encoder, "latent_dim", None)
    return encoder.statistics(frames[:1, 0])["loc"].shape[-1] if named is None else named


def usual_layers(
    frame_shape: tuple[int, int, int],
    strides: tuple[int, int] | None = None,
    channels: tuple[int, int] | None = None,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Strides and channels of an encoder that suit frames of this shape; those of a decoder are theirs backwards.

    Strides (2, 2) for sides below 32 that they divide; otherwise two, the larger first, that divide both sides and
    leave about 4 places of the shorter one.

    :param strides: where they are given.
    :param channels: likewise.
    :raises ConfigError: no strides do.
    """
    shorter = min(tuple(frame_shape)[1:], default=0)
    return strides or _usual_strides(tuple(frame_shape)), channels or ((32, 64) if shorter < 32 else (64, 128))


def _usual_strides(frame_shape: tuple[int, ...]) -> tuple[int, int]:
    sides = frame_shape[1:]
    if len(sides) == 2 and min(sides) > 0:
        common, shorter = math.gcd(*sides), min(sides)
        if common % 4 == 0 and shorter < 32:
            return 2, 2
        pairs = [(a, b) for a in range(1, 17) for b in range(1, a + 1) if common % (a * b) == 0]
        first, second = min(pairs, key=lambda pair: (abs(math.log(shorter / math.prod(pair) / _GRID)), pair[0]))
        if shorter // (first * second) <= _LARGEST_GRID:
            return first, second
    raise ConfigError(
        "frame_shape: expected (channels, height, width) whose sides have divisors in common, as 32, 48, 56, 64 and 84 "
        f"have, got {frame_shape}; crop or resize the frames, or say strides"
    )


def _check_frame_shape(frame_shape: tuple[int, int, int], strides: tuple[int, int]) -> int:
    """How many times smaller the sides become."""
    check_positive(strides=min(strides))
    factor = strides[0] * strides[1]
    if len(frame_shape) != 3 or frame_shape[1] % factor or frame_shape[2] % factor:
        raise ConfigError(
            f"frame_shape: expected (channels, height, width) with sides divisible by {factor}, "
            f"got {tuple(frame_shape)}"
        )
    return factor


class _Patches(nn.Module):
    """A convolution whose kernel is as large as its stride, on channels-last frames.

    As a matrix product it takes 0.6 of Conv2d's time on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(stride**2 * in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        (n, h, w, c), k = x.shape, self.stride
        patches = x.view(n, h // k, k, w // k, k, c).transpose(2, 3).reshape(n, h // k, w // k, k * k * c)
        out: Tensor = self.linear(patches)
        return out


class _Unpatches(nn.Module):
    """The transposed convolution of :class:`_Patches`, channels last."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(in_channels, stride**2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        (n, h, w, _), k = x.shape, self.stride
        return self.linear(x).view(n, h, w, k, k, -1).transpose(2, 3).reshape(n, k * h, k * w, -1)


class FrameEncoder(nn.Module):
    """q(z_t | x_t) = N(mu(x_t), sigma(x_t)² I), eq. (2), Fraccaro et al. 2018.

    Two convolutions, one linear layer.

    :param latent_dim: length of z.
    :param frame_shape: ``(C, H, W)``, sides divisible by the product of the strides.
    :param channels: of the two convolutions; None: as suits the frames, see :func:`usual_layers`.
    :param strides: of the two convolutions, and sizes of their kernels; None: likewise.
    """

    def __init__(
        self,
        latent_dim: int = 64,
        frame_shape: tuple[int, int, int] = (3, 8, 8),
        channels: tuple[int, int] | None = None,
        strides: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        strides, channels = usual_layers(frame_shape, strides, channels)
        factor = _check_frame_shape(frame_shape, strides)
        check_positive(latent_dim=latent_dim)
        self.latent_dim, self.frame_shape = latent_dim, tuple(frame_shape)
        self.first, self.second = _Patches(frame_shape[0], channels[0], strides[0]), _Patches(*channels, strides[1])
        size = channels[1] * (frame_shape[1] // factor) * (frame_shape[2] // factor)
        self.statistics_layer = nn.Linear(size, 2 * latent_dim)
        nn.init.constant_(self.statistics_layer.bias[latent_dim:], -3.0)

    def statistics(self, frames: Tensor) -> dict[str, Tensor]:
        """Mean ``loc`` and standard deviation ``scale`` of z, each ``(..., latent_dim)``.

        :param frames: ``(..., C, H, W)``.
        """
        x = 2 * frames.reshape(-1, *self.frame_shape).permute(0, 2, 3, 1).contiguous() - 1
        loc, raw = self.statistics_layer(network(self._features, x)).chunk(2, -1)
        batch = frames.shape[:-3]
        return {
            "loc": loc.reshape(*batch, self.latent_dim),
            "scale": (F.softplus(raw) + MIN_SCALE).reshape(*batch, self.latent_dim),
        }

    def _features(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.second(F.leaky_relu(self.first(x), SLOPE)), SLOPE).flatten(1)

    def forward(self, frames: Tensor) -> dist.TorchDistribution:
        """q(z_t | x_t), event shape ``(latent_dim,)``."""
        q = self.statistics(frames)
        return dist.Normal(q["loc"], q["scale"]).to_event(1)


class _FrameNormal(dist.Normal):
    """A normal of one scale for all pixels, whose logarithm is taken once and not for every pixel."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.one_scale = scale
        super().__init__(loc, scale, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_FrameNormal":
        new = self._get_checked_instance(_FrameNormal, _instance)
        new.one_scale = self.one_scale
        expanded: _FrameNormal = super().expand(batch_shape, _instance=new)
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        standard = (value - self.loc) / self.one_scale
        return -0.5 * standard.square() - self.one_scale.log() - 0.5 * math.log(2 * math.pi)


class FrameDecoder(nn.Module):
    """p(x_t | z_t), eq. (1), Fraccaro et al. 2018: one linear layer, two transposed convolutions.

    :param channels: of what enters the two convolutions; None: those of the usual encoder, backwards.
    :param strides: of the two convolutions, and sizes of their kernels; None: likewise.
    :param likelihood: ``gaussian`` with standard deviation ``scale`` a pixel, or ``bernoulli``.
    :param learn_scale: make the Gaussian's standard deviation a parameter.
    """

    def __init__(
        self,
        latent_dim: int = 64,
        frame_shape: tuple[int, int, int] = (3, 8, 8),
        channels: tuple[int, int] | None = None,
        strides: tuple[int, int] | None = None,
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
        scale: float = 0.1,
        learn_scale: bool = False,
    ) -> None:
        super().__init__()
        backwards = usual_layers(frame_shape, strides and strides[::-1], channels and channels[::-1])
        strides, channels = backwards[0][::-1], backwards[1][::-1]
        factor = _check_frame_shape(frame_shape, strides)
        if likelihood not in ("gaussian", "bernoulli"):
            raise ConfigError(f"likelihood: expected gaussian or bernoulli, got {likelihood!r}")
        check_positive(latent_dim=latent_dim, scale=scale)
        self.latent_dim, self.frame_shape, self.likelihood = latent_dim, tuple(frame_shape), likelihood
        self.grid = (frame_shape[1] // factor, frame_shape[2] // factor, channels[0])
        self.latent_layer = nn.Linear(latent_dim, self.grid[0] * self.grid[1] * self.grid[2])
        self.first, self.second = _Unpatches(*channels, strides[0]), _Unpatches(channels[1], frame_shape[0], strides[1])
        log_scale = torch.tensor(float(scale)).log()
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def _output(self, z: Tensor) -> Tensor:
        x = self.second(network(self._features, z.reshape(-1, self.latent_dim))).permute(0, 3, 1, 2)
        return x.reshape(*z.shape[:-1], *self.frame_shape)

    def _features(self, z: Tensor) -> Tensor:
        return F.leaky_relu(self.first(F.leaky_relu(self.latent_layer(z), SLOPE).view(-1, *self.grid)), SLOPE)

    def frames(self, z: Tensor) -> Tensor:
        """The mean frame E[x | z], ``(..., C, H, W)`` in [0, 1], for latents ``(..., latent_dim)``."""
        output = self._output(z)
        return output.clamp(0, 1) if self.likelihood == "gaussian" else output.sigmoid()

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_t), event shape ``(C, H, W)``."""
        output = self._output(z)
        if self.likelihood == "gaussian":
            return _FrameNormal(output, self.log_scale.exp()).to_event(3)
        # frames are intensities in [0, 1], not bits: the usual cross-entropy
        return dist.Bernoulli(logits=output, validate_args=False).to_event(3)
