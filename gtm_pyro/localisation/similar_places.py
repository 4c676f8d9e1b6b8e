"""Where an agent was that never sees a frame twice: frames that are alike were taken near one another.

With real displacements no two frames are of one place, and landmarks, frames that repeat, are never found. How much
frames of an episode differ a few moves apart says how far apart those are that differ as much: each such pair measures
one step of the path against another, and the path is the one that fits moves and pairs best.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.localisation.explanations import Steps
from gtm_pyro.localisation.moves import one_hot, typical_move
from gtm_pyro.localisation.same_frames import small_frames
from gtm_pyro.localisation.starts import unrolled
from gtm_pyro.transitions import Transition

# moves are noisy where the transition says so: r of at least this share of a typical one
_NOISY = 0.02
# steps that are less apart are measured by their moves alone
_GAP = 8
# frames are compared along so many directions, those in which an episode's differ most: the rest is mostly noise
_DIRECTIONS = 16
# of a step count the others whose frames are most like its own
_PAIRS = 4
# consecutive steps of so many pairs say what a difference means
_ALIKE = 40
# of typical moves: frames that are farther apart say little, and nearer ones are no more exact
_FARTHEST, _NEAREST = 0.6, 0.08
# squared standard deviations, per coordinate, of what the path allows
_GATE = 4.5
# degrees of freedom of a Student distribution: how pairs of look-alikes count less the less they fit
_TAIL = 4.0


class Pairs(NamedTuple):
    """Steps of an episode whose frames are alike: s_t - s_j ~ N(0, variance / state_dim), in each coordinate.

    :ivar other: j, ``(batch, T, K)`` int64.
    :ivar variance: the expected squared distance, ``(batch, T, K)``; infinite for no pair.
    """

    other: Tensor
    variance: Tensor


def similar_steps(frames: Tensor, path: Tensor, noise: Tensor, move: Tensor) -> Pairs:
    """Of each step those whose frames are most like its own, and how far apart they are.

    The expected squared distance of two frames is the mean of that of the ``_ALIKE`` pairs of steps, at most ``_GAP``
    apart, whose frames differ most nearly as much; these are as far apart as their moves say, give or take their noise.
    It depends neither on the unit of frames nor on noise that is on all of them.

    :param frames: ``(batch, T, C, H, W)``.
    :param path: by actions alone, ``(batch, T, state_dim)``.
    :param noise: variance of a move, of each coordinate, ``(batch,)``.
    :param move: a typical one, ``(batch,)``.
    """
    batch, time, dim = path.shape
    flat = _told_apart(small_frames(frames).to(path))
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    lags = range(1, min(_GAP, time - 1) + 1)
    known = torch.cat([apart.diagonal(k, 1, 2) for k in lags], 1)
    moved = [(path[:, k:] - path[:, :-k]).square().sum(-1) + dim * k * noise.unsqueeze(1) for k in lags]
    known, order = known.sort(1)
    total = torch.cat(moved, 1).gather(1, order).cumsum(1)
    total = torch.cat([torch.zeros_like(total[:, :1]), total], 1)
    step = torch.arange(time, device=path.device)
    near = (step - step.unsqueeze(1)).abs() <= _GAP
    least, other = apart.masked_fill(near, torch.inf).topk(min(_PAIRS, time), largest=False)
    width = min(_ALIKE, known.shape[1])
    first = torch.searchsorted(known, least.flatten(1)) - width // 2
    first = first.clamp(0, known.shape[1] - width)
    variance = ((total.gather(1, first + width) - total.gather(1, first)) / width).view_as(least)
    unit = move.square()[:, None, None]
    far = least.isinf() | (variance > _FARTHEST**2 * unit)
    return Pairs(other, torch.where(far, torch.inf, variance.maximum(_NEAREST**2 * unit)))


def _told_apart(frames: Tensor) -> Tensor:
    """The principal components of each episode's frames, ``(batch, T, pixels)`` to ``(batch, T, at most 16)``."""
    left, size, _ = torch.linalg.svd(frames - frames.mean(1, keepdim=True), full_matrices=False)
    return left[..., :_DIRECTIONS] * size[:, None, :_DIRECTIONS]


@dataclass(frozen=True)
class SimilarPlaces:
    """The path that fits moves and pairs of similar frames best, by iterated least squares.

    Every move is N(f(s_{t-1}, a_t), r² I), and every pair a measurement of Student's
    distribution, so that look-alikes elsewhere count little. A pair that the path so far makes unlikely is left out,
    and asked again in the next round.

    :param move_noise: r in typical moves; 0: the transition's ``scale``.
    :param rounds: rounds of least squares; each costs a matrix inversion of T state_dim squared.
    :param training_rounds: the same in training mode.
    """

    move_noise: float = 0.0
    rounds: int = 6
    training_rounds: int = 3

    def __post_init__(self) -> None:
        if not self.move_noise >= 0:
            raise ConfigError(f"move_noise: expected a number of typical moves of at least 0, got {self.move_noise}")
        check_whole(1, rounds=self.rounds, training_rounds=self.training_rounds)

    def applies(self, transition: Transition, actions: Tensor) -> bool:
        """Whether moves are noisy, none of them one of a few, and an agent has no heading: otherwise frames repeat.

        :param actions: ``(batch, T, action_dim)``.
        """
        if transition.heading or transition.slips or actions.shape[1] <= _GAP + 1:
            return False
        if bool(one_hot(transition.standard(actions)).any()):
            return False
        if self.move_noise:
            return self.move_noise >= _NOISY
        return bool((transition.scale >= _NOISY * typical_move(transition, actions)).all())

    @torch.no_grad()
    def __call__(
        self,
        transition: Transition,
        frames: Tensor,
        actions: Tensor,
        start: Tensor,
        start_variance: Tensor,
        training: bool = False,
    ) -> Steps:
        """The steps of the path, batch ``(batch,)``; each is told where the others that it resembles have it.

        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        :param start: mean of s_1, ``(batch, state_dim)``, and the variance of each coordinate, ``(batch,)``.
        """
        move = typical_move(transition, actions).double()
        scale = self.move_noise * move if self.move_noise else transition.scale.double().expand(len(move))
        path = unrolled(transition, start.unsqueeze(1), actions).squeeze(1).double()
        pairs = similar_steps(frames, path, scale.square(), move)
        chain = _Chain(transition, actions, scale, start, start_variance)
        covariance = None
        for _ in range(self.training_rounds if training else self.rounds):
            gradient, hessian = chain(path)
            if covariance is None:
                covariance = _inverse(hessian)
            laplacian = _laplacian(pairs, path, covariance)
            gradient = gradient + laplacian @ path
            hessian = hessian + _each(laplacian, path.shape[-1])
            covariance = _inverse(hessian)
            path = path - (covariance @ gradient.flatten(1).unsqueeze(-1)).view_as(path)
        assert covariance is not None
        weight = laplacian.diagonal(dim1=1, dim2=2)
        spread = covariance.diagonal(dim1=1, dim2=2).unflatten(1, path.shape[1:]).mean(-1)
        # the others' places are known as far as the path is
        others = ((-laplacian).clamp_min(0) @ spread.unsqueeze(-1)).squeeze(-1)
        evidence = torch.where(weight > 0, (1 + others) / weight, torch.inf)
        # so that moves and evidence are in balance where the path is
        pull = torch.where(weight.unsqueeze(-1) > 0, evidence.unsqueeze(-1) * (laplacian @ path), 0.0)
        return Steps(
            actions=actions,
            target=(path - pull).to(start),
            evidence=evidence.to(start),
            variance=scale.square().unsqueeze(1).expand(actions.shape[:-1]).to(start),
            states=path.to(start),
        )


class _Chain:
    """How much moves contradict a path: gradient and Gauss-Newton matrix of -log p(s_{1:T} | a_{1:T})."""

    def __init__(
        self, transition: Transition, actions: Tensor, scale: Tensor, start: Tensor, start_variance: Tensor
    ) -> None:
        self.transition, self.controls = transition, transition.controls(actions)[:, 1:]
        self.start, self.start_variance, self.scale = start.double(), start_variance.double(), scale

    def __call__(self, path: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, T, D)``, and ``(batch, T D, T D)``."""
        batch, time, dim = path.shape
        loc, slope = self._move(path[:, :-1])
        precision = self.scale.square().reciprocal().view(-1, 1, 1)
        error = precision * (path[:, 1:] - loc)
        first = (path[:, 0] - self.start) / self.start_variance.unsqueeze(-1)
        back = torch.einsum("btij,bti->btj", slope, error)
        gradient = torch.cat([first.unsqueeze(1), error], 1) - torch.cat([back, torch.zeros_like(first[:, None])], 1)
        hessian = path.new_zeros(batch, time, time, dim, dim)
        t, one = torch.arange(time, device=path.device), torch.eye(dim).to(path)
        precision = precision.unsqueeze(-1)
        hessian[:, t[1:], t[1:]] += precision * one
        hessian[:, 0, 0] += one / self.start_variance[:, None, None]
        hessian[:, t[:-1], t[:-1]] += precision * (slope.mT @ slope)
        hessian[:, t[1:], t[:-1]] -= precision * slope
        hessian[:, t[:-1], t[1:]] -= precision * slope.mT
        return gradient, hessian.transpose(2, 3).reshape(batch, time * dim, time * dim)

    def _move(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """f and its slope, means over points that are as far from s as noise takes an agent: walls have edges."""
        dim = s.shape[-1]
        wide = self.scale.view(-1, 1, 1) * dim**0.5
        points = wide * torch.eye(dim).to(s).view(dim, 1, 1, dim)
        ahead, behind = (self._loc(s + p) for p in (points, -points))
        return (ahead + behind).mean(0) / 2, ((ahead - behind) / (2 * wide)).permute(1, 2, 3, 0)

    def _loc(self, s: Tensor) -> Tensor:
        return self.transition.loc(s.to(self.controls), self.controls).double()


def _laplacian(pairs: Pairs, path: Tensor, covariance: Tensor) -> Tensor:
    """Of the graph of pairs, each weighted by its precision, for one coordinate: ``(batch, T, T)``."""
    batch, time, dim = path.shape
    cross = covariance.view(batch, time, dim, time, dim).diagonal(dim1=2, dim2=4).sum(-1)
    own = cross.diagonal(dim1=1, dim2=2)
    apart = (own.unsqueeze(1) + own.unsqueeze(2) - 2 * cross).gather(2, pairs.other).clamp_min(0)
    other = path.gather(1, pairs.other.flatten(1).unsqueeze(-1).expand(-1, -1, dim)).view(*pairs.other.shape, dim)
    square = (path.unsqueeze(2) - other).square().sum(-1)
    likely = square < _GATE * dim / 2 * (pairs.variance + apart)
    # half, since mostly each of a pair is most like the other
    share = 0.5 * (_TAIL + dim) / (_TAIL + dim * square / pairs.variance)
    weight = torch.where(likely, share * dim / pairs.variance, 0.0)
    graph = path.new_zeros(batch, time, time).scatter_add_(2, pairs.other, weight)
    graph = graph + graph.mT
    return torch.diag_embed(graph.sum(-1)) - graph


def _each(laplacian: Tensor, dim: int) -> Tensor:
    """For every coordinate, ``(batch, T D, T D)``."""
    return torch.stack([torch.kron(rows, torch.eye(dim).to(rows)) for rows in laplacian])


def _inverse(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
