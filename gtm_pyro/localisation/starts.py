"""Where an episode may have begun: the first state under which its frames contradict each other least.

An agent that begins somewhere in a room with walls knows its place from what stopped it, and from places that it came
back to: of many first states, all others are unrolled by the actions, and each is judged by what was seen.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.localisation.moves import typical_move
from gtm_pyro.localisation.same_frames import small_frames
from gtm_pyro.transitions import Transition

# two frames are alike to exp(-1) at this share of their usual difference in the episode
_ALIKE = 0.02
# of typical moves: places that are so far apart are others
REACH = 0.5
# pairs of steps that are alike, for each step
_PAIRS = 4


class Resemblance(NamedTuple):
    """Which steps of an episode look alike.

    :ivar other: for each step those whose frames are most like its own, ``(batch, T, K)`` int64.
    :ivar alike: how alike they are, in [0, 1], ``(batch, T, K)``.
    :ivar changed: how much each frame differs from the one before, in [0, 1], ``(batch, T)``; the first does not.
    """

    other: Tensor
    alike: Tensor
    changed: Tensor

    def until(self, time: int) -> "Resemblance":
        """Of the first ``time`` steps alone."""
        other, alike, changed = (values[:, :time] for values in self)
        within = other < time
        return Resemblance(torch.where(within, other, 0), alike * within, changed)


def resemblance(frames: Tensor) -> Resemblance:
    """Compare the frames ``(batch, T, C, H, W)`` of each episode; in any unit, and whatever else is in the batch.

    Differences are counted from the one that is usual between frames that are most alike, so that noise on all of them
    makes none.
    """
    batch, time = frames.shape[:2]
    flat = small_frames(frames)
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    usual = apart.mean((1, 2)).clamp_min(torch.finfo(apart.dtype).tiny)
    apart = apart / (_ALIKE * usual)[:, None, None]
    itself = torch.eye(time, dtype=torch.bool, device=frames.device)
    least, other = apart.masked_fill(itself, torch.inf).topk(min(_PAIRS, time), largest=False)
    floor = least[..., 0].nanquantile(0.05, 1) if time > 1 else least.new_zeros(batch)
    changed = -torch.expm1(-(apart.diagonal(1, 1, 2) - floor.unsqueeze(1)).relu())
    return Resemblance(other, torch.exp(-(least - floor[:, None, None]).relu()), F.pad(changed, (1, 0)))


def contradiction(paths: Tensor, seen: Resemblance, reach: Tensor) -> Tensor:
    """How much frames contradict paths, a step, ``(batch, N)``.

    A pair of steps that look alike counts where the path has them apart, and a step after which the frame changed where
    the path stays: 1 - exp(-d² / (2 reach²)) and exp(-2 d² / reach²) of their distance d.

    :param paths: ``(batch, N, T, state_dim)``.
    :param reach: distance from which places are others, ``(batch,)``.
    """
    batch, num, time, dim = paths.shape
    pairs = seen.other.shape[-1]
    index = seen.other.reshape(batch, 1, -1, 1).expand(-1, num, -1, dim)
    # squared, in units of the reach
    other = paths.gather(2, index).view(batch, num, time, pairs, dim)
    apart = (other - paths.unsqueeze(3)).square().sum(-1) / reach.square()[:, None, None, None]
    step = paths.diff(dim=2).square().sum(-1) / reach.square()[:, None, None]
    lost = (-torch.expm1(-0.5 * apart) * seen.alike.unsqueeze(1)).sum((2, 3))
    stuck = (torch.exp(-2 * step) * seen.changed[:, None, 1:]).sum(2)
    return (lost + stuck) / time


def unrolled(transition: Transition, starts: Tensor, actions: Tensor) -> Tensor:
    """Paths without noise, ``(batch, N, T, state_dim)``, from ``starts`` ``(batch, N, state_dim)``."""
    batch, num, dim = starts.shape
    time = actions.shape[1]
    controls = transition.controls(actions)
    rows = controls.unsqueeze(1).expand(-1, num, -1, -1).reshape(batch * num, time, -1)
    step = transition.stepping(rows)
    path = [starts.reshape(batch * num, dim)]
    for t in range(1, time):
        path.append(step(path[-1], t))
    return torch.stack(path, 1).view(batch, num, time, dim)


def unknown_starts(transition: Transition, initial: TorchDistribution, actions: Tensor) -> Tensor | None:
    """Where p(s_1) leaves open where an episode begins, though walls would tell: it is wider than places are apart.

    :param initial: p(s_1), event shape ``(state_dim,)``.
    :param actions: ``(batch, T, action_dim)``, which tell how far places are apart.
    :returns: for each episode, ``(batch,)``; None for a transition without walls.
    """
    if not transition.walled:
        return None
    return initial.variance.amax(-1).sqrt().reshape(-1) > REACH * typical_move(transition, actions)


def is_unknown(transition: Transition, initial: TorchDistribution, actions: Tensor) -> bool:
    """Whether most of the starts are unknown: see :func:`unknown_starts`."""
    unknown = unknown_starts(transition, initial, actions)
    return unknown is not None and bool(unknown.double().mean() > 0.5)


class Start(NamedTuple):
    """What :class:`StartSearch` found.

    :ivar loc: the first state, ``(batch, state_dim)``.
    :ivar scale: how far apart the first states are that were tried last, ``(batch,)``.
    :ivar contradiction: of its path, see :func:`contradiction`, ``(batch,)``.
    """

    loc: Tensor
    scale: Tensor
    contradiction: Tensor


@dataclass(frozen=True)
class StartSearch:
    """A grid of first states, the best of which are followed to the end and looked at more closely.

    :param num_starts: first states in the grid, at most, but three along each axis; they are half a typical move apart,
        or further where that does not suffice.
    :param early: steps that all of them are judged by.
    :param kept: those of them that are judged by all steps.
    :param closer: how often the grid is halved around the best one.
    :raises ConfigError: a number that is not over 0.
    """

    num_starts: int = 441
    early: int = 96
    kept: int = 48
    closer: int = 2

    def __post_init__(self) -> None:
        check_whole(1, num_starts=self.num_starts, early=self.early, kept=self.kept)
        check_whole(0, closer=self.closer)

    @torch.no_grad()
    def __call__(self, transition: Transition, frames: Tensor, actions: Tensor, loc: Tensor, scale: Tensor) -> Start:
        """
        :param transition: whose walls tell where the agent is; without any, every first state is as good.
        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        :param loc: mean of s_1, ``(batch, state_dim)``.
        :param scale: standard deviation of each of its coordinates, ``(batch,)``; 2.5 of them are searched.
        :raises ConfigError: a transition with a heading.
        """
        if transition.heading:
            raise ConfigError(
                "initial_scale: expected a known start for a transition with a heading, got an unknown one"
            )
        seen = resemblance(frames)
        move = typical_move(transition, actions)
        grid, spacing = self._grid(loc, scale, move)
        inside = self._possible(transition, grid)
        # far behind a wall there is nothing that is not tried before it
        outside = (inside - grid).norm(dim=-1) > spacing.unsqueeze(1)
        outside &= ~outside.all(1, keepdim=True)  # a room that is beyond the grid begins where it is nearest
        tried = ~outside.all(0)
        grid, outside = inside[:, tried], outside[:, tried]
        reach = REACH * move
        early = min(self.early, frames.shape[1])
        score = contradiction(unrolled(transition, grid, actions[:, :early]), seen.until(early), reach)
        score = score.masked_fill(outside, torch.inf)
        best = score.argsort(stable=True)[:, : self.kept]
        # as if the grid were of this episode alone
        best = torch.where(outside.gather(1, best), best[:, :1], best)
        grid = grid.gather(1, best.unsqueeze(-1).expand(-1, -1, grid.shape[-1]))
        start, score = self._best(transition, grid, actions, seen, reach)
        line = torch.tensor([0.0, -1.0, 1.0], dtype=start.dtype, device=start.device)
        around = torch.cartesian_prod(*[line] * loc.shape[-1])
        around = around.view(-1, loc.shape[-1])
        for _ in range(self.closer):
            spacing = spacing / 2
            near = start.unsqueeze(1) + spacing[:, None, None] * around
            start, score = self._best(transition, self._possible(transition, near), actions, seen, reach)
        return Start(start, spacing, score)

    def _grid(self, loc: Tensor, scale: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        dim = loc.shape[-1]
        wide = 2.5 * scale
        most = max(1, int((round(self.num_starts ** (1 / dim)) - 1) / 2))
        spacing = (0.5 * move).maximum(wide / most)
        line = torch.arange(-most, most + 1, dtype=loc.dtype, device=loc.device)
        grid = torch.cartesian_prod(*[line] * dim).view(-1, dim)
        grid = grid[grid.norm(dim=-1).argsort(stable=True)]  # of those that are as good, the one nearest to the mean
        return loc.unsqueeze(1) + spacing[:, None, None] * grid, spacing

    @staticmethod
    def _possible(transition: Transition, starts: Tensor) -> Tensor:
        """Nobody begins behind a wall."""
        slide = getattr(transition, "slide", None)
        return starts if slide is None else slide(starts)

    @staticmethod
    def _best(
        transition: Transition, starts: Tensor, actions: Tensor, seen: Resemblance, reach: Tensor
    ) -> tuple[Tensor, Tensor]:
        score = contradiction(unrolled(transition, starts, actions), seen, reach)
        least, best = score.min(1)
        return starts.gather(1, best[:, None, None].expand(-1, 1, starts.shape[-1])).squeeze(1), least
