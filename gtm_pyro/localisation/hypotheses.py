"""Where the agent may have been: the likeliest sequences of executed actions, given actions and landmarks.

An agent that slips leaves many explanations of what it saw: this action or that one was not carried out. Each
explanation, a hypothesis, places every step and so makes a map of its own; later frames tell the hypotheses apart, and
with a hypothesis its whole past stands or falls. In a discrete space of hypotheses the best particle filter follows
every continuation of every particle and keeps the heaviest (Fearnhead & Clifford 2003); here each also carries the
variance of its position, so that it is a Kalman filter where there is a single continuation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.localisation.landmarks import Landmarks
from gtm_pyro.transitions import Transition


class Steps(NamedTuple):
    """How every step of a path came about.

    :ivar actions: those carried out, ``(*batch, T, action_dim)``.
    :ivar variance: of the transition, ``(*batch, T)``: large where the agent was moved without an action.
    :ivar target: a landmark's position, which measures s_t, ``(*batch, T, state_dim)``.
    :ivar evidence: the variance of that measurement, ``(*batch, T)``; infinite where there is none.
    :ivar states: the positions that result, ``(*batch, T, state_dim)``.
    """

    actions: Tensor
    target: Tensor
    evidence: Tensor
    variance: Tensor
    states: Tensor

    def unsqueeze(self, dim: int) -> "Steps":
        """Every field with one more dimension of size 1."""
        return Steps(*(field.unsqueeze(dim) for field in self))

    def pick(self, which: Tensor) -> "Steps":
        """Of batch ``(batch, N)``, the ones numbered ``which`` ``(batch, M)``."""
        rows = torch.arange(len(which), device=which.device).unsqueeze(-1)
        return Steps(*(field[rows, which] for field in self))


class Hypotheses(NamedTuple):
    """What :meth:`HypothesisSearch.__call__` finds.

    :param log_weight: log p(hypothesis | x, a), normalised over the hypotheses, ``(*batch, N)``; -inf for none.
    :param online: of the best hypothesis at each step, given the frames up to it, batch ``(*batch)``.
    :param online_gain: how far each online state was drawn from the prediction to its target, ``(*batch, T)``.
    :param online_variance: of a coordinate of the online states, in the unit of a step's variance, ``(*batch, T)``.
    :param filtered: mean of s_t given the frames up to t, under each hypothesis alive then, ``(*batch, T, N, D)``.
    :param filtered_variance: of one coordinate, with a heading that of a position's, ``(*batch, T, N)``.
    :param filtered_log_weight: ``(*batch, T, N)``, normalised.
    :param past: the steps of the hypotheses of these numbers, ``(*batch, M)``, as a batch of that shape.
    """

    log_weight: Tensor
    online: Steps
    online_gain: Tensor
    online_variance: Tensor
    filtered: Tensor
    filtered_variance: Tensor
    filtered_log_weight: Tensor
    past: Callable[[Tensor], Steps]

    @property
    def steps(self) -> Steps:
        """Of each hypothesis, batch ``(*batch, N)``."""
        return self.past(
            torch.arange(self.log_weight.shape[-1], device=self.log_weight.device).expand(self.log_weight.shape)
        )

    @property
    def best(self) -> Steps:
        """Of the heaviest hypothesis, batch ``(*batch, 1)``."""
        return self.past(self.log_weight.argmax(-1, keepdim=True))


@dataclass(frozen=True)
class HypothesisSearch:
    """The search's settings.

    :param num_hypotheses: N, kept at each step.
    :param landmark_scale: how far from a landmark a frame that looks like it is taken, in moves, where landmarks do not
        say it in state units.
    :param kidnap: probability, at each step, of being moved to a landmark without an action.
    :param overlap: probability that the frame of one place is seen at another place's position.
    :param every_look: let frames that show the same again, while the agent stands still or pushes against a wall, be
        measurements of where it is, each as good as the first. It makes a path too sure; walls are learnt from it.
    """

    num_hypotheses: int = 256
    landmark_scale: float = 0.2
    kidnap: float = 0.0
    overlap: float = 1e-3
    every_look: bool = False

    def __post_init__(self) -> None:
        check_positive(num_hypotheses=self.num_hypotheses, landmark_scale=self.landmark_scale, overlap=self.overlap)

    @torch.no_grad()
    def __call__(
        self,
        transition: Transition,
        actions: Tensor,
        landmarks: Landmarks,
        start: Tensor,
        start_variance: Tensor,
        anywhere: bool = False,
    ) -> Hypotheses:
        """Search, one episode of the batch like the other, on the CPU.

        The steps are compiled by numba in the first call, which takes ten seconds or more; a cache keeps the result.

        :param actions: ``(batch, T, action_dim)``. One-hot actions may be replaced by one another, with probability
            ``transition.slip``; others, or a single one, are as commanded, or a jump to a landmark.
            An agent with a heading must not slip: what a replaced action does depends on those before it.
        :param start: mean of s_1, ``(batch, state_dim)``.
        :param start_variance: of each of its coordinates, ``(batch,)``.
        :param anywhere: the first frame may have been taken at any of its landmarks too.
        :raises ConfigError: slips of an agent with a heading.
        """
        if transition.heading and transition.slips:
            raise ConfigError(f"slip: expected 0 for a transition with a heading, got {float(transition.slip):g}")
        from gtm_pyro.localisation.hypothesis_search import Search  # numba takes a while to import

        radius = turning_radius(transition, actions) if transition.heading else None
        move = typical_move(transition, actions, radius)
        # one-hot actions in another unit are one-hot too
        replaced = _one_hot(transition.standard(actions)) & (float(transition.slip) > 0) & (actions.shape[-1] > 1)
        kinds = [which for which in (replaced, ~replaced) if bool(which.any())]
        found = []
        for which in kinds:
            rows = which.nonzero().squeeze(-1)
            part = landmarks if len(kinds) == 1 else landmarks.of(rows)
            turn = None if radius is None else radius[rows]
            one_kind = bool(replaced[rows][0])
            search = Search(self, transition, actions[rows], part, one_kind, move[rows], anywhere, turn)
            search.begin(start[rows], start_variance[rows])
            search.run()
            found.append(search.result())
        return found[0] if len(found) == 1 else _together(found, kinds)


def _one_hot(actions: Tensor) -> Tensor:
    """Whether all actions of an episode but the first, which is not used, are one-hot: ``(batch,)``."""
    used = actions[:, 1:]
    return ((used == 0) | (used == 1)).all(-1).all(-1) & (used.sum(-1) == 1).all(-1)


def _together(parts: list[Hypotheses], which: list[Tensor]) -> Hypotheses:
    """What was found of the episodes ``which`` ``(batch,)``, in their order."""
    order = torch.cat([rows.nonzero().squeeze(-1) for rows in which]).argsort()

    def join(fields: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(fields))[order]

    def join_steps(fields: Sequence[Steps]) -> Steps:
        return Steps(*(join(field) for field in zip(*fields, strict=True)))

    def past(last: Tensor) -> Steps:
        return join_steps([part.past(last[rows]) for part, rows in zip(parts, which, strict=True)])

    fields = parts[0]._asdict()
    joined = {name: join([getattr(part, name) for part in parts]) for name in fields if name not in ("online", "past")}
    return Hypotheses(online=join_steps([part.online for part in parts]), past=past, **joined)


def turning_radius(transition: Transition, actions: Tensor) -> Tensor:
    """How far a turn of one radian moves things, in state units, ``(batch,)``: the unit of headings in distances.

    It is how far, as a root mean square over the steps that move, the episode's path by actions alone is from its
    middle: so much is the position at one end changed by a wrong heading at the other. 1 for a path without extent.

    :param transition: one with a heading.
    :param actions: ``(batch, T, action_dim)``.
    """
    start = actions.new_zeros(len(actions), transition.state_dim)
    still = start.unsqueeze(1).expand(-1, actions.shape[1], -1)
    path = transition.rollout(start, actions, still).detach()
    if actions.shape[1] < 2:
        return actions.new_ones(len(actions))
    step = path.diff(dim=1).abs()
    length = step.sum(-1, keepdim=True)
    moved = length > 1e-3 * length.amax(1, keepdim=True)
    # steps that stand still do not draw the middle to them
    counted = torch.cat([torch.ones_like(moved[:, :1]), moved], 1).to(path)
    place = path[..., :2]
    middle = (counted * place).sum(1, keepdim=True) / counted.sum(1, keepdim=True)
    away = (counted * (place - middle).square().sum(-1, keepdim=True)).sum(1) / counted.sum(1)
    radius = away.squeeze(-1).sqrt()
    turn = (counted[:, 1:, 0] * step[..., 2]).sum(1) / counted[:, 1:, 0].sum(1).clamp_min(1)
    return torch.where(radius > turn, radius, 1.0)


def typical_move(transition: Transition, actions: Tensor, radius: Tensor | None = None) -> Tensor:
    """Root mean square length of the moves of each episode, in state units, ``(batch,)``; 1 where nothing moves.

    :param actions: ``(batch, T, action_dim)``.
    :param radius: the length of a turn of one radian, ``(batch,)``; None where no coordinate is a heading.
    """
    moves = free_moves(transition, actions, radius)[:, 1:]
    if not moves.shape[1]:
        return actions.new_ones(len(actions))
    length = moves.norm(dim=-1)
    moving = length > 0.1 * length.amax(-1, keepdim=True)
    square = (length.square() * moving).sum(-1) / moving.sum(-1).clamp_min(1)
    return torch.where(moving.any(-1), square.sqrt(), 1.0)


def free_moves(transition: Transition, actions: Tensor, radius: Tensor | None = None) -> Tensor:
    """Where actions lead from the origin if nothing is in the way, ``(batch, T, state_dim)``.

    :param actions: ``(batch, T, action_dim)``.
    :param radius: as of :func:`typical_move`: headings are in state units.
    """
    origin = actions.new_zeros(transition.state_dim)
    free = getattr(transition, "moves", lambda a: transition.loc(origin, transition.controls(a)) - origin)
    moves: Tensor = free(actions).detach()
    if radius is None:
        return moves
    return moves * torch.stack([torch.ones_like(radius), torch.ones_like(radius), radius], -1).unsqueeze(1)
