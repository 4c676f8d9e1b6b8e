"""What a frame's content says about where it was taken: entries of a memory, or steps, that look the same."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.memory import SpatialMemory

# with so many entries or more, a graph search saves more time than building it takes: benchmarks/content_lookup.py
_LARGE = 16_384
# of look_noise
_LEAST_NOISE = 1e-3


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
    :param moves: the same in typical moves, ``(*batch, T, K)``, where ``scale`` is None.
    :param again: whether a frame shows what the frame before it shows, ``(*batch, T)`` booleans: for an agent that
        stayed it says nothing new. None: of an episode's own steps, where both resemble the same one; otherwise never.
    :raises EpisodesError: neither or both of ``position`` and ``index``, or shapes that do not fit.
    """

    log_weight: Tensor
    log_background: Tensor
    position: Tensor | None = None
    index: Tensor | None = None
    scale: Tensor | None = None
    moves: Tensor | None = None
    again: Tensor | None = None

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

    def of(self, rows: Tensor) -> "Landmarks":
        """Those of some episodes, by their numbers ``(n,)``."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return Landmarks(
            **{n: v if not isinstance(v, Tensor) or v.dim() == 0 else v[rows.to(v.device)] for n, v in given.items()}
        )


class Sights(NamedTuple):
    """The encodings q(z | x) of the frames of episodes, each distinct frame of an episode once.

    :ivar loc: means, ``(batch, U, latent_dim)``, in the order in which they are first seen; rows after the last one of
        an episode repeat others.
    :ivar scale: standard deviations, same shape.
    :ivar number: which of them each step sees, ``(batch, T)`` int64.
    """

    loc: Tensor
    scale: Tensor
    number: Tensor

    @property
    def each(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every step's, ``(batch, T, latent_dim)``."""
        return _take(self.loc, self.number), _take(self.scale, self.number)

    @property
    def first(self) -> Tensor:
        """The step at which each is first seen, ``(batch, U)``; the last step for those that are not."""
        return _first_steps(self.number, self.loc.shape[-2])


@torch.no_grad()
def look(statistics: Callable[[Tensor], dict[str, Tensor]], frames: Tensor) -> Sights:
    """Encode ``frames`` ``(batch, T, C, H, W)``, on a CPU each distinct frame of an episode only once.

    :param statistics: frames to "loc" and "scale" of q(z | x).
    """
    batch, steps = frames.shape[:2]
    number = distinct_frames(frames)
    first = _first_steps(number, int(number.max()) + 1 if frames.device.type == "cpu" else steps)
    new = number.gather(1, first) == torch.arange(first.shape[1], device=frames.device)
    flat = first + steps * torch.arange(batch, device=frames.device).unsqueeze(1)
    q = statistics(frames.flatten(0, 1)[flat[new]])
    row = new.flatten().cumsum(0).sub(1).view_as(first)
    return Sights(q["loc"][row], q["scale"][row], number)


def distinct_frames(frames: Tensor) -> Tensor:
    """Numbers ``(batch, T)`` that are equal, in an episode, where frames ``(batch, T, ...)`` are, in order of sight.

    Frames are told apart by a sum of their bits with random factors, and then compared. On an accelerator, which would
    have to wait for it, every frame counts as another one.
    """
    batch, steps = frames.shape[:2]
    time = torch.arange(steps, device=frames.device).expand(batch, -1)
    if frames.device.type != "cpu" or frames.dtype != torch.float32:
        return time
    flat = frames.flatten(0, 1).flatten(1)
    factors = np.random.default_rng(0).integers(-(2**31), 2**31, flat.shape[1])
    # sums of whole numbers are the same in any order, so what is found of an episode does not depend on its batch
    hashed = torch.from_numpy(flat.contiguous().numpy().view(np.int32) @ factors).view(batch, steps)
    number = []
    for row, whole in zip(hashed, flat.view(batch, steps, -1), strict=True):
        found = row.unique(return_inverse=True)[1]
        first = torch.full_like(found, steps).scatter_reduce_(0, found, time[0], "amin")[found]
        same = torch.equal(whole.index_select(0, first), whole)
        number.append(first if same else time[0])  # different frames of one hash, or no numbers
    first = torch.stack(number)
    new = first == time
    return new.cumsum(1).sub(1).gather(1, first)


@torch.no_grad()
def resembling_steps(sights: Sights, alias: float = 1e-4) -> Landmarks:
    """The earlier step of an episode whose frame resembles each step's most.

    Two frames resemble each other as far as one place explains both encodings better than the episode at large:
    log N(mu_t; mu_i, noise (sigma_t² + sigma_i²)) - log N(mu_t; mean, sigma_t² + variance of z), at most
    log(1 / alias). Two looks at one place differ by less than the posteriors are wide, not at all where frames have no
    noise: ``noise`` is read off the pairs of an episode that are nearest, see :func:`look_noise`.

    :param alias: the share of places that look like another one by chance, in (0, 1): it bounds what a look can prove.
    """
    loc, scale, number = sights
    sizes, first = loc.shape[-2], sights.first
    # a frame that was seen before resembles that one most; a new frame is compared with frames first seen earlier
    distance = _squared_distances(loc)
    later = torch.ones(sizes, sizes, dtype=torch.bool, device=loc.device).triu()
    nearest = distance.masked_fill_(later, torch.inf).argmin(-1)
    again = first.gather(1, number) < torch.arange(number.shape[1], device=loc.device)
    index = first.gather(1, torch.where(again, number, nearest.gather(1, number)))
    near = _take(loc, nearest).unsqueeze(-2), _take(scale, nearest).unsqueeze(-2)
    own = loc.unsqueeze(-2), scale.unsqueeze(-2)
    deviation = _deviation(loc, scale, *near).squeeze(-1).gather(1, number).masked_fill(again, 0.0)
    moved = (sights.each[0].diff(dim=1) != 0).any(-1)
    noise = look_noise(deviation[:, 1:], moved)
    # an agent that stands still learns nothing new about the world
    counted = (~same_as_before(*sights.each, noise)).to(loc.dtype)
    share = torch.zeros_like(loc[..., 0]).scatter_add_(1, number, counted)
    moments = _moments(loc, scale, share / counted.sum(1, keepdim=True))
    width = noise[..., None, None, None]
    new, old = (_log_resemblance(loc, scale, *them, *moments, width, alias).squeeze(-1) for them in (near, own))
    weight = torch.where(again, old.gather(1, number), new.gather(1, number))
    weight[:, 0] = -torch.inf
    return Landmarks(weight.unsqueeze(-1), torch.zeros_like(weight), index=index.unsqueeze(-1))


@torch.no_grad()
def resembling_entries(sights: Sights, memory: SpatialMemory, num_neighbors: int = 8, alias: float = 1e-4) -> Landmarks:
    """The entries of a known memory whose content resembles each frame's; see :func:`resembling_steps`.

    The memory is looked up by content: a second memory, whose keys are the encodings. Where it is large, the search is
    a navigable graph of faiss, approximate and sublinear.

    :param memory: values "loc", "scale" and, where keys are not the states, "state" ``(*batch, N, state_dim)``.
    """
    loc, scale = sights.each
    stored = {name: value.squeeze(-3) for name, value in memory.values.gather(None).items()}
    state = stored.pop("state", memory.keys)
    state = state.expand(*stored["loc"].shape[:-1], state.shape[-1])
    content = content_memory(stored["loc"]).write(stored["loc"], {**stored, "position": state})
    # entries made while the agent stood still count as one, so that they do not crowd out others
    entry_noise = loc.new_full(stored["loc"].shape[:-2], _LEAST_NOISE)
    fresh = ~same_as_before(stored["loc"], stored["scale"], entry_noise)
    allowed = None if bool(fresh.all()) else fresh.unsqueeze(-2).expand(*loc.shape[:-1], -1)
    found = content.read(loc, min(num_neighbors, memory.num_entries), allowed)
    left_out = found.squared_distance.isinf()  # where a map has fewer
    near = found.values["loc"], found.values["scale"]
    noise = look_noise(_deviation(loc, scale, *near).masked_fill(left_out, torch.inf).amin(-1))
    share = fresh.to(loc.dtype) / fresh.sum(-1, keepdim=True)
    moments = _moments(stored["loc"], stored["scale"], share)
    weight = _log_resemblance(loc, scale, *near, *moments, noise[..., None, None, None], alias)
    weight = weight.masked_fill(left_out, -torch.inf)
    again = same_as_before(loc, scale, noise)
    return Landmarks(weight, torch.zeros_like(loc[..., 0]), position=found.values["position"], again=again)


def same_as_before(loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """Whether a frame shows what the one before it shows, as far as looks differ, ``(*batch, T)``; the first does not.

    :param loc: means of encodings, ``(*batch, T, latent_dim)``, with their standard deviations ``scale``.
    :param noise: of :func:`look_noise`, ``(*batch)``.
    """
    variance = scale[..., 1:, :].square() + scale[..., :-1, :].square()
    deviation = (loc.diff(dim=-2).square() / variance).mean(-1)
    first = torch.zeros_like(loc[..., :1, 0], dtype=torch.bool)
    return torch.cat([first, deviation <= 2 * noise.unsqueeze(-1)], -1)


def look_noise(deviation: Tensor, moved: Tensor | None = None) -> Tensor:
    """How far two looks at one place differ: a share of the variance of their posteriors, in [1e-3, 1], ``(*batch)``.

    Where an agent that moved sees exactly what was seen before, looks do not differ, and it is the smallest. Otherwise
    a fifth of all steps, at least, are taken to be at a place that was seen before: an agent that stays or is blocked
    sees the same again.

    :param deviation: mean squared difference of each step's encoding from the nearest one, in units of the variance of
        the two posteriors, ``(*batch, T)``.
    :param moved: whether the frame is not that of the step before, ``(*batch, T)``; a video may repeat frames.
    """
    if not deviation.shape[-1]:
        return deviation.new_ones(deviation.shape[:-1])
    noise = (1.5 * deviation.quantile(0.2, -1)).clamp(_LEAST_NOISE, 1.0)
    exact = deviation == 0 if moved is None else (deviation == 0) & moved
    return torch.where(exact.any(-1), _LEAST_NOISE, noise)


def content_memory(encodings: Tensor) -> SpatialMemory:
    """An empty memory that finds encodings ``(*batch, N, latent_dim)`` fast once they are its keys."""
    large = encodings.shape[-2] >= _LARGE and encodings.device.type == "cpu"
    return SpatialMemory(backend="faiss_hnsw" if large else "torch" if encodings.shape[-2] < 1024 else "auto")


def _first_steps(number: Tensor, size: int) -> Tensor:
    time = torch.arange(number.shape[1], device=number.device).expand_as(number)
    first = torch.full((len(number), size), number.shape[1] - 1, device=number.device)
    return first.scatter_reduce_(1, number, time, "amin")


def _squared_distances(loc: Tensor) -> Tensor:
    """(batch, U, U), by a matrix product of centred encodings: near zero it is only as exact as float32."""
    centred = loc - loc.mean(-2, keepdim=True)
    square = centred.square().sum(-1)
    return (square.unsqueeze(-1) + square.unsqueeze(-2)).baddbmm_(centred, centred.mT, alpha=-2)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """values (batch, U, D) at ``index`` (batch, T), as (batch, T, D)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _moments(loc: Tensor, scale: Tensor, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance of z at large, (*batch, 1, latent_dim); ``share`` of each encoding, (*batch, U)."""
    if share is None:
        share = torch.full_like(loc[..., 0], 1 / loc.shape[-2])
    share = share.unsqueeze(-2)
    mean = share @ loc
    return mean, share @ ((loc - mean).square() + scale.square())


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
