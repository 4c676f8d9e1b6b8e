"""The search over hypotheses of one batch: arrays, the loop over time, and what was found as tensors."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.localisation.explanations import Hypotheses, SearchSettings, Steps
from gtm_pyro.localisation.landmarks import Landmarks
from gtm_pyro.localisation.moves import free_moves
from gtm_pyro.localisation.own_maps import Own
from gtm_pyro.localisation.search_kernels import (
    EVIDENCE,
    GAIN,
    JUMP,
    LOG_WEIGHT,
    PICK,
    SPREAD,
    STATE,
    STILL,
    VARIANCE,
    Fixed,
    Rules,
    Tracks,
    advance,
)
from gtm_pyro.localisation.selection import HEADING, Array, lineages, name_places
from gtm_pyro.transitions import Transition

# size of a fixed draw that is added to log probabilities and so decides between equally likely explanations: larger
# than rounding errors of float64, smaller than any difference that frames make
_TIE = 1e-7
# a map begins with one spot for each content and so many more, and grows when they are used up
_SPARE = 16


class Search:
    """The hypotheses of one batch, step by step. What is found of an episode does not depend on the others.

    :param replaced: whether a slip is another action in place of the one commanded; otherwise it leads anywhere.
    :param move: the length of a typical one, in state units, ``(batch,)``.
    :param anywhere: with landmarks at fixed positions, the first frame may have been taken at any of them.
    :param radius: of an agent with a heading, the length of a turn of one radian, ``(batch,)``: such arrays hold
        headings times it. What headings do to positions is in the variance of a step, 1 + radius² times the
        transition's; tensors that leave have the latter's units again.
    """

    def __init__(
        self,
        settings: SearchSettings,
        transition: Transition,
        actions: Tensor,
        landmarks: Landmarks,
        replaced: bool,
        move: Tensor,
        anywhere: bool = False,
        radius: Tensor | None = None,
    ) -> None:
        self.settings, self.given_actions = settings, actions
        # rounding errors depend on the batch; in float64 they are far smaller than _TIE
        done = actions.device.type == "cpu" and actions.dtype == torch.float64
        self.transition = transition if done else copy.deepcopy(transition).cpu().double()
        self.actions = actions.detach().cpu().double()
        self.batch, self.steps, action_dim = actions.shape
        slip, ones = float(transition.slip), np.ones(self.batch)
        turn = None if radius is None else _array(radius)
        self.unit = None if turn is None else np.stack([ones, ones, turn], -1)[:, None]
        self.growth = ones if turn is None else 1 + turn**2
        self.noise = self.growth * float(transition.scale) ** 2
        slip_noise = ones * float(transition.slip_scale) ** 2
        if radius is not None:
            # a jump ends within two moves of a landmark; the variance of a slip does not apply
            slip_noise = (2 * _array(move)) ** 2 / JUMP
        self.replaced = replaced
        elsewhere = 0.0 if replaced else slip  # probability of a slip that does not execute another action
        self.anywhere = anywhere and landmarks.position is not None
        several = replaced or self.anywhere or elsewhere + settings.kidnap > 0
        self.size = settings.num_hypotheses if several else 1
        if replaced:
            prior = np.full((self.batch, self.steps, action_dim), np.log(slip / (action_dim - 1)))
            np.put_along_axis(prior, self.actions.argmax(-1, keepdim=True).numpy(), np.log1p(-slip), -1)
        else:
            prior = np.zeros((self.batch, self.steps, 1))
        prior -= _TIE * np.random.default_rng(0).random(prior.shape[1:])
        options, dim = prior.shape[-1], transition.state_dim
        same = self._read(landmarks, move if landmarks.moves is not None else move * settings.landmark_scale)
        period = 0 * ones if turn is None else 2 * math.pi * turn
        moves = self._moves(move, radius)
        self.rules = Rules(prior, moves, self.noise, slip_noise, same, period, self.again, elsewhere, settings.kidnap)
        self.tracks = Tracks(
            np.zeros((self.steps, self.batch, self.size, STATE + 2 * dim)),
            np.zeros((self.steps, self.batch, self.size), np.int64),
            np.zeros((self.steps, self.batch), np.int64),
            np.zeros((self.batch, self.size, options, dim)),
        )

    def _moves(self, move: Tensor, radius: Tensor | None) -> Array:
        """Whether actions displace the agent by a tenth of a typical move or more, (batch, T, options)."""
        actions = self.actions
        if self.replaced:
            actions = torch.diag(self.transition.action_unit).expand(self.batch, -1, -1)
        length = free_moves(self.transition, actions, None if radius is None else radius.cpu().double()).norm(dim=-1)
        moves = _array(length) > 0.1 * _array(move)[:, None]
        return (
            np.broadcast_to(moves[:, None], (self.batch, self.steps, moves.shape[-1])).copy()
            if self.replaced
            else moves[..., None]
        )

    def _read(self, landmarks: Landmarks, scale: Tensor) -> Array:
        """Landmarks as arrays; of an episode's own each content has a number. The squared distance that is none."""
        weight = _array(landmarks.log_weight)
        shape, dim = weight.shape, self.transition.state_dim
        if landmarks.scale is None:
            given = _array(scale)[:, None, None] * (1 if landmarks.moves is None else _array(landmarks.moves))
        else:
            given = _array(torch.as_tensor(landmarks.scale))
        scales = np.broadcast_to(given, shape).copy()  # a view that cannot be written to is compiled for anew
        background = _array(landmarks.log_background)
        self.again = np.zeros(shape[:2], np.bool_)
        self.is_fixed = landmarks.position is not None
        if landmarks.position is not None:
            position = self._scaled(landmarks.position)
            # several entries at one place count as one look
            apart = position[..., :, None, :] - position[..., None, :, :]
            if self.unit is not None:  # headings that differ by whole turns are equal
                turn = 2 * math.pi * self.unit[..., None, HEADING : HEADING + 1]
                apart[..., HEADING] -= turn * np.round(apart[..., HEADING] / turn)
            near = np.exp(-(apart**2).sum(-1) / (2 * scales[..., :, None] ** 2)) * np.isfinite(weight)[..., None, :]
            weight = weight - np.log(np.maximum(near.sum(-1), 1.0))
            most = np.logaddexp(np.logaddexp.reduce(weight, -1), background)
            self.fixed = Fixed(position, weight, scales, background, most)
            if landmarks.again is not None:
                self.again = landmarks.again.cpu().numpy()
            label = found = np.zeros(shape[:2], np.int64)
            look, room = np.zeros((*shape[:2], 2)), (1, 1)
        else:
            assert landmarks.index is not None
            none = np.zeros((*shape, dim))
            self.fixed = Fixed(none, weight, scales, background, background)
            label, found, look = self._contents(weight, landmarks.index.cpu().numpy())
            self.again[:, 1:] = label[:, 1:] == label[:, :-1]
            if landmarks.again is not None:
                self.again &= landmarks.again.cpu().numpy()
            room = self.batch, self.size
        contents = int(label.max()) + 1
        spots = min(self.steps, contents + _SPARE)
        self.own = Own(
            label, found, look, np.ascontiguousarray(scales[..., 0] ** 2), np.zeros((*room, dim, spots)),
            np.zeros((*room, spots)), np.zeros((self.batch, self.size), np.int64),
            np.full((*room, contents), -1), np.full((*room, spots), -1), np.zeros((*room, contents), np.int64),
            np.zeros((self.batch, self.size, 2, dim)), self.settings.every_look,
        )  # fmt: skip
        same: Array = scales[:, 0, 0] ** 2
        return same

    def _contents(self, weight: Array, index: Array) -> tuple[Array, Array, Array]:
        best = weight.argmax(-1)[..., None]
        nearest = np.take_along_axis(index, best, -1)[..., 0]
        strength = np.take_along_axis(weight, best, -1)[..., 0]
        # half of the evidence that a look of this episode can give, so that a chance resemblance does not prove a place
        proof = np.where(np.isfinite(strength), strength, 0.0).max(-1, keepdims=True, initial=0.0)
        alike = strength > np.maximum(0.5 * proof, 1.0)
        alias = np.exp(-np.where(alike, strength, 0.0))
        # a frame that says little about its place may show a place that is already known by another frame
        overlap = np.clip(np.exp(np.where(alike, -np.inf, strength)), self.settings.overlap, 1.0)
        overlap[:, 0] = 1.0
        return *name_places(alike, nearest), np.stack([alias, overlap], -1)

    def _grow(self) -> None:
        """Make room for more spots where a map is full."""
        spots = self.own.before.shape[-1]
        if not self.is_fixed and int(self.own.spots.max()) == spots:
            room = [(0, 0)] * 2, (0, spots)
            self.own = self.own._replace(
                spot=np.pad(self.own.spot, [*room[0], (0, 0), room[1]]),
                variance=np.pad(self.own.variance, [*room[0], room[1]]),
                before=np.pad(self.own.before, [*room[0], room[1]]),
            )

    def begin(self, start: Tensor, start_variance: Tensor) -> None:
        """Step 1: every hypothesis stands at the start, or at one of its landmarks if it may be anywhere."""
        before, position, weight = self.tracks.record[0], self.fixed.position, self.fixed.weight
        q = np.repeat(self._scaled(start)[:, None], self.size, 1)
        before[..., SPREAD] = (self.growth * _array(start_variance))[:, None]
        before[:, 1:, LOG_WEIGHT] = -np.inf
        if self.anywhere:
            few = min(self.size - 1, position.shape[2])
            order = np.argsort(-weight[:, 0], -1, kind="stable")[:, :few]
            q[:, 1 : 1 + few] = np.take_along_axis(position[:, 0], order[..., None], 1)
            before[:, 1 : 1 + few, LOG_WEIGHT] = np.take_along_axis(weight[:, 0], order, 1)
        still = self.rules._replace(
            log_prior=np.zeros((self.batch, 1, 1)),
            moves=self.rules.moves[..., :1].copy(),
            step_noise=0 * self.noise,
            slip=0.0,
            kidnap=0.0,
        )
        advance(0, q[:, :, None], still, self.tracks, self.is_fixed, self.fixed, self.own)
        self.tracks.record[0, ..., VARIANCE] = self.noise[:, None]

    def run(self) -> None:
        """All further steps: one call of the transition, for all hypotheses and actions at once, and one of numba's."""
        options = self.rules.log_prior.shape[-1]
        if self.replaced:
            actions = torch.diag(self.transition.action_unit)
            controls = self.transition.controls(actions.repeat(self.batch * self.size, 1).unsqueeze(1))
        else:
            controls = self.transition.controls(self.actions).repeat_interleave(self.size, 0)
        f = self.transition.stepping(controls)
        s = torch.from_numpy(self.tracks.s)
        shape, s = s.shape, s.view(-1, s.shape[-1])
        unit = None
        if self.unit is not None:
            unit = torch.from_numpy(self.unit).expand(*shape[:2], -1).repeat(1, options, 1).view_as(s)
        for t in range(1, self.steps):
            self._grow()
            if unit is None:
                q = f(s, 0 if self.replaced else t)
            else:
                q = f(s / unit, t) * unit
            given = q.contiguous().view(shape).numpy()
            advance(t, given, self.rules, self.tracks, self.is_fixed, self.fixed, self.own)

    def result(self) -> Hypotheses:
        rows = self.tracks.record.reshape(-1, self.tracks.record.shape[-1])
        time, episode = np.arange(self.steps), np.arange(self.batch)[:, None]
        best = self.tracks.best.T
        live = rows.take((time * self.batch + episode) * self.size + best, 0)
        # where another hypothesis took over, the path goes there, whatever the action
        switched = np.zeros(best.shape, bool)
        switched[:, 1:] = self.tracks.parents[time, episode, best][:, 1:] != best[:, :-1]
        dim = self.transition.state_dim
        live[switched, STATE + dim :] = live[switched, STATE : STATE + dim]
        which = np.nonzero(switched)[0]
        live[switched, EVIDENCE], live[switched, VARIANCE] = self.noise[which], JUMP * self.rules.slip_noise[which]
        live[switched, GAIN] = 1.0
        every = self._tensor(self.tracks.record).movedim(0, 1)
        return Hypotheses(
            every[:, -1, :, LOG_WEIGHT],
            self._steps(self._tensor(live), self.given_actions),
            self._tensor(live[..., GAIN]),
            self._tensor(live[..., SPREAD] / self.growth[:, None]),
            self._unscaled(every[..., STATE : STATE + dim]),
            every[..., SPREAD],
            every[..., LOG_WEIGHT],
            self.past,
        )

    def past(self, last: Tensor) -> Steps:
        """The steps of the hypotheses that are numbered ``last`` ``(batch, M)`` in the end, batch ``(batch, M)``."""
        time, episode = np.arange(self.steps), np.arange(self.batch)[:, None, None]
        rows = self.tracks.record.reshape(-1, self.tracks.record.shape[-1])
        numbers = lineages(self.tracks.parents, last.cpu().numpy())
        record = rows.take((time * self.batch + episode) * self.size + numbers, 0)
        return self._steps(self._tensor(record), self.given_actions.unsqueeze(1))

    def _scaled(self, states: Tensor) -> Array:
        return _array(states) if self.unit is None else _array(states) * self._units(states.dim())

    def _unscaled(self, states: Tensor) -> Tensor:
        return states if self.unit is None else states / torch.from_numpy(self._units(states.dim())).to(states)

    def _units(self, dims: int) -> Array:
        """(batch, 1, ..., 3), of ``dims`` dimensions."""
        assert self.unit is not None
        units: Array = self.unit.reshape(self.batch, *(1,) * (dims - 2), 3)
        return units

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.given_actions)

    def _steps(self, record: Tensor, commanded: Tensor) -> Steps:
        """``record`` (*batch, T, STATE + 2 D) by name; ``commanded`` (*batch, T, action_dim) broadcast to it."""
        growth = self._tensor(self.growth).view(-1, *(1,) * (record.dim() - 2))
        dim, carried = self.transition.state_dim, commanded.expand(*record.shape[:-1], -1)
        if self.replaced:
            pick = record[..., PICK].long()
            options = torch.diag(self.transition.action_unit).to(carried)
            kept = pick >= len(options)  # a jump replaces the action
            kept[..., 0] = True
            carried = torch.where(kept.unsqueeze(-1), carried, options[pick.clamp_max(len(options) - 1)])
        if not self.transition.heading:
            # who stayed did not move at all, whatever the transition has learnt of such actions; with momentum, an
            # action bears on later steps too
            carried = torch.where(record[..., STILL, None] > 0, 0.0, carried)
        return Steps(
            actions=carried,
            target=self._unscaled(record[..., STATE + dim :]),
            evidence=record[..., EVIDENCE] / growth,
            variance=record[..., VARIANCE] / growth,
            states=self._unscaled(record[..., STATE : STATE + dim]),
        )


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().double().numpy())
