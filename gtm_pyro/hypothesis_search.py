"""The search over hypotheses of one batch: arrays, the loop over time, and what was found as tensors."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.hypotheses import Hypotheses, Steps
from gtm_pyro.landmarks import Landmarks
from gtm_pyro.search_kernels import (
    ALIASES,
    EVIDENCE,
    GAIN,
    JUMP,
    LOG_WEIGHT,
    PICK,
    SPREAD,
    STATE,
    VARIANCE,
    advance,
)
from gtm_pyro.selection import Array, lineages, name_places
from gtm_pyro.transitions import Transition

if TYPE_CHECKING:
    from gtm_pyro.hypotheses import HypothesisSearch


class Search:
    """The hypotheses of one batch, step by step.

    :param move: the length of a typical one, in state units.
    :param anywhere: with landmarks at fixed positions, the first frame may have been taken at any of them.
    :param radius: of an agent with a heading, the length of a turn of one radian: such arrays hold headings times it.
        What headings do to positions is in the variance of a step, 1 + radius² times the transition's; tensors that
        leave have the latter's units again.
    """

    def __init__(
        self,
        settings: HypothesisSearch,
        transition: Transition,
        actions: Tensor,
        landmarks: Landmarks,
        move: float,
        anywhere: bool = False,
        radius: float = 0.0,
    ) -> None:
        self.settings, self.given_actions = settings, actions
        self.transition = transition if actions.device.type == "cpu" else copy.deepcopy(transition).cpu()
        self.actions = actions.detach().cpu()
        self.batch, self.steps, action_dim = actions.shape
        slip = float(transition.slip)
        self.unit = np.array([1.0, 1.0, radius]) if radius else None
        # x / 1.0 is x: without a heading no figure changes
        self.period, self.growth = 2 * math.pi * radius, 1 + radius**2
        self.noise, self.slip_noise = self.growth * float(transition.scale) ** 2, float(transition.slip_scale) ** 2
        if radius:
            # who jumps does so to a landmark, give or take two moves: variances of slips say nothing here
            self.slip_noise = (2 * move) ** 2 / JUMP
        one_hot = bool(((self.actions == 0) | (self.actions == 1)).all() & (self.actions.sum(-1) == 1).all())
        self.replaced = one_hot and slip > 0 and action_dim > 1
        self.elsewhere = 0.0 if self.replaced else slip  # probability of a slip that is no other action
        self.anywhere = anywhere and landmarks.position is not None
        several = self.replaced or self.anywhere or self.elsewhere + settings.kidnap > 0
        self.size = settings.num_hypotheses if several else 1
        if self.replaced:
            self.prior = np.full((self.batch, self.steps, action_dim), np.log(slip / (action_dim - 1)))
            np.put_along_axis(self.prior, self.actions.argmax(-1, keepdim=True).numpy(), np.log1p(-slip), -1)
        else:
            self.prior = np.zeros((self.batch, self.steps, 1))
        self._read(landmarks, move if landmarks.moves is not None else move * settings.landmark_scale)
        self.same = float(self.scale[0, 0, 0]) ** 2
        width = STATE + 2 * transition.state_dim
        self.record = np.zeros((self.steps, self.batch, self.size, width))
        self.parents = np.zeros((self.steps, self.batch, self.size), np.int64)
        self.best = np.zeros((self.steps, self.batch), np.int64)
        work = np.float64 if self.actions.dtype == torch.float64 else np.float32
        self.s = np.zeros((self.batch, self.size, self.prior.shape[-1], transition.state_dim), work)

    def _read(self, landmarks: Landmarks, scale: float) -> None:
        """Give every content a number, its place; a place has up to ALIASES positions in each hypothesis."""
        self.weight = _array(landmarks.log_weight)
        shape, dim = self.weight.shape, self.transition.state_dim
        self.fixed = landmarks.position is not None
        if landmarks.scale is None:
            given = scale * (np.ones(()) if landmarks.moves is None else _array(landmarks.moves))
        else:
            given = _array(torch.as_tensor(landmarks.scale))
        self.scale = np.ascontiguousarray(np.broadcast_to(given, shape))
        self.background = _array(landmarks.log_background)
        self.position = np.zeros((1, 1, 1, dim)) if landmarks.position is None else self._scaled(landmarks.position)
        if landmarks.index is None:
            label = found = np.zeros(shape[:2], np.int64)
            look, maps = np.zeros((1, 1, 2)), (1, 1)
        else:
            label, found, look = self._places(landmarks.index.cpu().numpy())
            maps = self.batch, self.size
        places = int(label.max()) + 1
        self.landmarks: tuple[Any, ...] = (
            self.fixed,
            self.position,
            self.weight,
            self.scale,
            self.background,
            label,
            found,
            look,
        )
        key, key_var = np.empty((*maps, ALIASES, dim, places)), np.empty((*maps, ALIASES, places))
        self.maps = key, key_var, np.zeros((*maps, places), np.int64)

    def _places(self, index: Array) -> tuple[Array, Array, Array]:
        best = self.weight.argmax(-1)[..., None]
        nearest = np.take_along_axis(index, best, -1)[..., 0]
        strength = np.take_along_axis(self.weight, best, -1)[..., 0]
        # half of what a look can prove, so that a chance resemblance founds no place
        alike = strength > max(0.5 * float(self.weight[np.isfinite(self.weight)].max(initial=0.0)), 1.0)
        alias = np.exp(-np.where(alike, strength, 0.0))
        # a frame that tells little about its place may well be of a place that is known by another frame
        overlap = np.clip(np.exp(np.where(alike, -np.inf, strength)), self.settings.overlap, 1.0)
        overlap[:, 0] = 1.0
        return *name_places(alike, nearest), np.stack([alias, overlap], -1)

    def begin(self, start: Tensor, start_variance: Tensor) -> None:
        """Step 1: every hypothesis stands at the start, or at one of its landmarks if it may be anywhere."""
        before = self.record[0]
        q = np.repeat(self._scaled(start)[:, None], self.size, 1)
        before[..., SPREAD] = self.growth * _array(start_variance)[:, None]
        before[:, 1:, LOG_WEIGHT] = -np.inf
        if self.anywhere:
            few = min(self.size - 1, self.position.shape[2])
            order = np.argsort(-self.weight[:, 0], -1)[:, :few]
            q[:, 1 : 1 + few] = np.take_along_axis(self.position[:, 0], order[..., None], 1)
            before[:, 1 : 1 + few, LOG_WEIGHT] = np.take_along_axis(self.weight[:, 0], order, 1)
        first = q[:, :, None].astype(self.s.dtype)
        still = np.zeros((self.batch, 1, 1)), 0.0, 0.0, self.slip_noise, 0.0, self.same, self.period
        arrays: tuple[Any, ...] = *still, self.record, self.parents, self.best, self.s, *self.landmarks, *self.maps
        advance(0, first, *arrays)
        self.record[0, ..., VARIANCE] = self.noise

    def run(self) -> None:
        """All further steps: one call of the transition, for all hypotheses and actions at once, and one of numba's."""
        options, dtype = self.prior.shape[-1], self.actions.dtype
        if self.replaced:
            actions = torch.eye(options, dtype=dtype, device=self.actions.device)
            controls = self.transition.controls(actions.repeat(self.batch * self.size, 1).unsqueeze(1))
        else:
            controls = self.transition.controls(self.actions).repeat_interleave(self.size, 0)
        f = self.transition.stepping(controls)
        s = torch.from_numpy(self.s)
        work, shape, s = s.dtype, s.shape, s.view(-1, s.shape[-1])
        rules = self.prior, self.noise, self.elsewhere, self.slip_noise, self.settings.kidnap, self.same, self.period
        arrays = *rules, self.record, self.parents, self.best, self.s, *self.landmarks, *self.maps
        unit = None if self.unit is None else torch.from_numpy(self.unit).to(work)
        for t in range(1, self.steps):
            if unit is None:
                q = f(s.to(dtype), 0 if self.replaced else t)
            else:
                q = f((s / unit).to(dtype), t) * unit
            advance(t, q.to(work).contiguous().view(shape).numpy(), *arrays)

    def result(self) -> Hypotheses:
        rows = self.record.reshape(-1, self.record.shape[-1])
        time, episode = np.arange(self.steps), np.arange(self.batch)[:, None]
        best = self.best.T
        live = rows.take((time * self.batch + episode) * self.size + best, 0)
        # where another hypothesis took over, the path goes there, whatever the action
        switched = np.zeros(best.shape, bool)
        switched[:, 1:] = self.parents[time, episode, best][:, 1:] != best[:, :-1]
        dim = self.transition.state_dim
        live[switched, STATE + dim :] = live[switched, STATE : STATE + dim]
        live[switched, EVIDENCE], live[switched, VARIANCE] = self.noise, JUMP * self.slip_noise
        live[switched, GAIN] = 1.0
        every = self._tensor(self.record).movedim(0, 1)
        return Hypotheses(
            every[:, -1, :, LOG_WEIGHT],
            self._steps(self._tensor(live), self.given_actions),
            self._tensor(live[..., GAIN]),
            self._tensor(live[..., SPREAD] / self.growth),
            self._unscaled(every[..., STATE : STATE + dim]),
            every[..., SPREAD],
            every[..., LOG_WEIGHT],
            self.past,
        )

    def past(self, last: Tensor) -> Steps:
        """The steps of the hypotheses that are numbered ``last`` ``(batch, M)`` in the end, batch ``(batch, M)``."""
        time, episode = np.arange(self.steps), np.arange(self.batch)[:, None, None]
        rows = self.record.reshape(-1, self.record.shape[-1])
        numbers = lineages(self.parents, last.cpu().numpy())
        record = rows.take((time * self.batch + episode) * self.size + numbers, 0)
        return self._steps(self._tensor(record), self.given_actions.unsqueeze(1))

    def _scaled(self, states: Tensor) -> Array:
        return _array(states) if self.unit is None else _array(states) * self.unit

    def _unscaled(self, states: Tensor) -> Tensor:
        return states if self.unit is None else states / states.new_tensor(self.unit)

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.given_actions)

    def _steps(self, record: Tensor, commanded: Tensor) -> Steps:
        """``record`` (*batch, T, STATE + 2 D) by name; ``commanded`` (*batch, T, action_dim) broadcast to it."""
        dim, carried = self.transition.state_dim, commanded.expand(*record.shape[:-1], -1)
        if self.replaced:
            pick = record[..., PICK].long()
            options = torch.eye(carried.shape[-1], dtype=carried.dtype, device=carried.device)
            kept = pick >= len(options)  # a jump is no action
            kept[..., 0] = True
            carried = torch.where(kept.unsqueeze(-1), carried, options[pick.clamp_max(len(options) - 1)])
        return Steps(
            actions=carried,
            target=self._unscaled(record[..., STATE + dim :]),
            evidence=record[..., EVIDENCE] / self.growth,
            variance=record[..., VARIANCE] / self.growth,
            states=self._unscaled(record[..., STATE : STATE + dim]),
        )


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().double().numpy())
