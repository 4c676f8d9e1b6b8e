"""Views of an agent that turns: what it saw before and came back to, and how near it is to where it was then.

An agent that walks sees no frame twice, and each frame is most like the one just before it, which says nothing new
about where it is. A landmark is here a step whose frame resembles the present one as much as consecutive frames do one
another, and after which the view became another one.
"""

import math

import torch
from torch import Tensor

from gtm_pyro.localisation.landmarks import Landmarks, Sights, content_memory
from gtm_pyro.memory import SpatialMemory

# two frames match if they differ by less than this share of the difference between consecutive frames
_LIKE = 0.6
# how far they were taken from one another, in moves, for each such share; in rooms of the ray-caster, with an encoder
# that was not trained, frames of a share of 0.1 to 0.3 were 0.17 cells apart, those of 0.6 to 1 0.3, moves 0.16 long
_MOVES = 2.0
# consecutive views that differ by less than this share of the usual difference count as one view
_STILL = 1e-4
# share of the encodings' squares up to which a difference in float32 may be a rounding error
_ROUNDING = 1e-10
# differences so much over the median exceed it: rounding, which depends on the batch, tells no pairs apart
_OVER = 1.001
# the smallest error of a look at a place, in moves
_EXACT = 0.25


@torch.no_grad()
def revisited_steps(sights: Sights, alias: float = 1e-4) -> Landmarks:
    """For each step the one most like it, among those that a view unlike it followed.

    Two views are unlike if they differ by more than views of an episode do at the median.

    :param alias: the share of views that look like another one by chance, in (0, 1): it bounds what a look can prove.
    """
    loc, _ = sights.each
    gap = _differences(loc, loc)
    # an agent that stands still sees the same view
    moved = _moved(loc)
    pairs = torch.where(moved.unsqueeze(-1) & moved.unsqueeze(-2), gap, torch.nan)
    unlike = gap > _OVER * pairs.flatten(1).nanmedian(-1).values[:, None, None] + _rounding(loc)[:, None, None]
    time = torch.arange(loc.shape[1], device=loc.device)
    # of each step the last earlier one with an unlike view; -1 for none
    left = torch.where(unlike & (time < time.unsqueeze(-1)), time, -1).amax(-1)
    nearest, index = gap.masked_fill(time >= left.unsqueeze(-1), torch.inf).min(-1)
    weight, moves = _likeness(nearest, loc, alias)
    index = torch.where(weight.isfinite(), index, 0)
    return Landmarks(
        weight.unsqueeze(-1),
        torch.zeros_like(weight),
        index=index.unsqueeze(-1),
        moves=moves.unsqueeze(-1),
        again=~moved,
    )


@torch.no_grad()
def revisited_entries(sights: Sights, memory: SpatialMemory, num_neighbors: int = 8, alias: float = 1e-4) -> Landmarks:
    """The entries of a known memory that look like each frame; see :func:`revisited_steps`.

    :param memory: values "loc" and "state": a position and a heading.
    """
    loc, _ = sights.each
    stored = {name: value.squeeze(-3) for name, value in memory.values.gather(None).items()}
    shape = stored["loc"].shape[:-1]
    state = stored["state"].expand(*shape, stored["state"].shape[-1])
    found = content_memory(stored["loc"]).write(stored["loc"], {"loc": stored["loc"], "position": state})
    near = found.read(loc, min(num_neighbors, memory.num_entries)).values
    gap = (loc.unsqueeze(-2) - near["loc"]).square().sum(-1)
    weight, moves = _likeness(gap, loc, alias)
    return Landmarks(weight, torch.zeros_like(loc[..., 0]), position=near["position"], moves=moves, again=~_moved(loc))


def _likeness(gap: Tensor, loc: Tensor, alias: float) -> tuple[Tensor, Tensor]:
    """Log weights, and distances in moves, from squared differences of encodings ``(batch, T, ...)``.

    The views of consecutive steps are one move apart and say what a difference means.
    """
    usual = torch.maximum(_consecutive(loc), 10 * _rounding(loc)).view(-1, *(1,) * (gap.dim() - 1))
    share = gap / usual.clamp_min(torch.finfo(gap.dtype).tiny)
    weight = torch.where(share < _LIKE, -math.log(alias), -torch.inf).to(gap)
    return weight, (_MOVES * torch.where(share < _LIKE, share, 1.0)).clamp_min(_EXACT)


def _consecutive(loc: Tensor) -> Tensor:
    """The median squared difference of consecutive encodings that differ, ``(batch,)``; 0 where none do."""
    steps = loc.diff(dim=1).square().sum(-1)
    if not steps.shape[1]:
        return steps.new_zeros(len(loc))
    return torch.where(_moved(loc)[:, 1:], steps, torch.nan).nanmedian(-1).values.nan_to_num(0.0)


def _moved(loc: Tensor) -> Tensor:
    """Whether a view is another one than that of the step before, ``(batch, T)``; the first one is."""
    steps = loc.diff(dim=1).square().sum(-1)
    first = torch.ones_like(loc[:, :1, 0], dtype=torch.bool)
    if not steps.shape[1]:
        return first
    least = torch.maximum(_STILL * steps.amax(-1), _rounding(loc))
    return torch.cat([first, steps > least.unsqueeze(-1)], 1)


def _rounding(loc: Tensor) -> Tensor:
    """Squared differences up to which encodings ``(batch, T, D)`` are the same, ``(batch,)``."""
    return _ROUNDING * loc.square().sum(-1).amax(-1)


def _differences(a: Tensor, b: Tensor) -> Tensor:
    """Squared, ``(batch, T, U)``, by a matrix product of centred encodings."""
    centre = a.mean(-2, keepdim=True)
    a, b = a - centre, b - centre
    square = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return square.baddbmm(a, b.mT, alpha=-2).clamp_min(0.0)
