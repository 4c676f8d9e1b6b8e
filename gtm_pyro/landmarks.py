"""What a frame's content says about where it was taken: entries of a memory, or steps, that look the same."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.memory import SpatialMemory

# from so many entries on a graph search pays for its build; benchmarks/content_lookup.py
_LARGE = 16_384


@dataclass(frozen=True)
class Landmarks:
    """The likelihood of each frame at a position s, relative to a place that was never seen.

    L_t(s) = exp(log_background_t) + sum_k exp(log_weight_tk) exp(-|s - p_tk|² / (2 scale²))

    The positions p_tk are fixed ones, ``position``, or the states of other steps of the same episode, ``index``.

    :param log_weight: ``(*batch, T, K)``; -inf for no landmark.
    :param log_background: ``(*batch, T)``; -inf where the frame is certain to show one of the landmarks.
    :param position: p_tk, ``(*batch, T, K, state_dim)``.
    :param index: the number, from 0, of the step whose state is p_tk, ``(*batch, T, K)`` int64, always an earlier one.
    :param scale: how far from a landmark a frame that looks like it is taken, in state units, ``(*batch, T, K)`` or a
        scalar; None leaves it to the guide.
    :raises EpisodesError: neither or both of ``position`` and ``index``, or shapes that do not fit.
    """

    log_weight: Tensor
    log_background: Tensor
    position: Tensor | None = None
    index: Tensor | None = None
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.position is None) == (self.index is None):
            raise EpisodesError("landmarks: expected either position or index")
        shape = self.log_weight.shape
        where = self.position.shape[:-1] if self.position is not None else self.index.shape  # type: ignore[union-attr]
        if where != shape or self.log_background.shape != shape[:-1]:
            raise EpisodesError(
                f"landmarks: expected positions or indices {tuple(shape)} and a background {tuple(shape[:-1])}, "
                f"got {tuple(where)} and {tuple(self.log_background.shape)}"
            )


@torch.no_grad()
def resembling_steps(loc: Tensor, scale: Tensor, num_neighbors: int = 1, alias: float = 1e-4) -> Landmarks:
    """The earlier steps of an episode whose frames resemble each step's.

    Two frames resemble each other as far as one place explains both encodings better than the episode at large:
    log N(mu_t; mu_i, noise (sigma_t² + sigma_i²)) - log N(mu_t; mean, sigma_t² + variance of z), at most
    log(1 / alias). Two looks at one place differ by less than the posteriors are wide, not at all where frames have no
    noise: ``noise`` is read off the pairs of an episode that are nearest, see :func:`look_noise`.

    :param loc: mu, the means of q(z_t | x_t), ``(*batch, T, latent_dim)``.
    :param scale: sigma, their standard deviations, same shape.
    :param num_neighbors: K, how many steps are looked at, the nearest in z.
    :param alias: the share of places that look like another one by chance, in (0, 1): it bounds what a look can prove.
    """
    steps = loc.shape[-2]
    num_neighbors = min(num_neighbors, steps)
    distance = _squared_distances(loc).masked_fill(
        torch.ones(steps, steps, dtype=torch.bool, device=loc.device).triu(), torch.inf
    )
    if num_neighbors == 1:
        index = distance.argmin(-1, keepdim=True)
    else:
        index = distance.topk(num_neighbors, largest=False).indices
    near = _take(loc, index), _take(scale, index)
    earlier = torch.arange(steps, device=loc.device).unsqueeze(-1) > index
    noise = look_noise(_deviation(loc, scale, *near)[..., 1:, 0])
    weight = _log_resemblance(loc, scale, *near, *_moments(loc, scale), noise[..., None, None, None], alias)
    return Landmarks(weight.masked_fill(~earlier, -torch.inf), torch.zeros_like(loc[..., 0]), index=index)


@torch.no_grad()
def resembling_entries(
    loc: Tensor, scale: Tensor, memory: SpatialMemory, num_neighbors: int = 8, alias: float = 1e-4
) -> Landmarks:
    """The entries of a known memory whose content resembles each frame's; see :func:`resembling_steps`.

    The memory is looked up by content: a second memory, whose keys are the encodings. Where it is large, the search is
    a navigable graph of faiss, approximate and sublinear.

    :param memory: keys ``(*batch, N, state_dim)``, values "loc" and "scale".
    """
    stored = {name: value.squeeze(-3) for name, value in memory.values.gather(None).items()}
    keys = memory.keys.expand(*stored["loc"].shape[:-1], memory.keys.shape[-1])
    content = content_memory(stored["loc"]).write(stored["loc"], {**stored, "position": keys})
    found = content.read(loc, min(num_neighbors, memory.num_entries)).values
    near = found["loc"], found["scale"]
    noise = look_noise(_deviation(loc, scale, *near).amin(-1))
    weight = _log_resemblance(
        loc, scale, *near, *_moments(stored["loc"], stored["scale"]), noise[..., None, None, None], alias
    )
    return Landmarks(weight, torch.zeros_like(loc[..., 0]), position=found["position"])


def look_noise(deviation: Tensor) -> Tensor:
    """How far two looks at one place differ: a share of the variance of their posteriors, in [1e-3, 1], ``(*batch)``.

    A fifth of all steps, at least, are taken to be at a place that was seen before: an agent that stays or is blocked
    sees the same again.

    :param deviation: mean squared difference of each step's encoding from the nearest one, in units of the variance of
        the two posteriors, ``(*batch, T)``.
    """
    if not deviation.shape[-1]:
        return deviation.new_ones(deviation.shape[:-1])
    return (1.5 * deviation.quantile(0.2, -1)).clamp(1e-3, 1.0)


def content_memory(encodings: Tensor) -> SpatialMemory:
    """An empty memory that finds encodings ``(*batch, N, latent_dim)`` fast once they are its keys."""
    large = encodings.shape[-2] >= _LARGE and encodings.device.type == "cpu"
    return SpatialMemory(backend="faiss_hnsw" if large else "torch" if encodings.shape[-2] < 1024 else "auto")


def _squared_distances(loc: Tensor) -> Tensor:
    """(*batch, T, T), by a matrix product of centred encodings: near zero it is only as exact as float32."""
    centred = loc - loc.mean(-2, keepdim=True)
    square = centred.square().sum(-1)
    return square.unsqueeze(-1) + square.unsqueeze(-2) - 2 * centred @ centred.mT


def _take(values: Tensor, index: Tensor) -> Tensor:
    """values (*batch, T, D) at steps ``index`` (*batch, T, K), as (*batch, T, K, D)."""
    flat = index.flatten(-2).unsqueeze(-1).expand(*index.shape[:-2], -1, values.shape[-1])
    return values.gather(-2, flat).reshape(*index.shape, values.shape[-1])


def _moments(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of z at large, (*batch, 1, latent_dim)."""
    variance = loc.var(-2, correction=0, keepdim=True) + scale.square().mean(-2, keepdim=True)
    return loc.mean(-2, keepdim=True), variance


def _deviation(loc: Tensor, scale: Tensor, near_loc: Tensor, near_scale: Tensor) -> Tensor:
    """Mean squared difference in units of the variance of both posteriors, (*batch, T, K)."""
    variance = scale.square().unsqueeze(-2) + near_scale.square()
    return ((loc.unsqueeze(-2) - near_loc).square() / variance).mean(-1)


def _log_resemblance(
    loc: Tensor,
    scale: Tensor,
    near_loc: Tensor,
    near_scale: Tensor,
    mean: Tensor,
    variance: Tensor,
    noise: Tensor,
    alias: float,
) -> Tensor:
    same = noise * (scale.square().unsqueeze(-2) + near_scale.square())
    other = variance + scale.square()
    log_same = -0.5 * ((loc.unsqueeze(-2) - near_loc).square() / same + same.log()).sum(-1)
    log_other = -0.5 * ((loc - mean).square() / other + other.log()).sum(-1)
    return (log_same - log_other.unsqueeze(-1)).clamp_max(-math.log(alias))
