"""Where the agent may have been: the likeliest sequences of executed actions, given actions and landmarks.

An agent that slips leaves many explanations of what it saw: this action or that one was not carried out. Each
explanation, a hypothesis, places every step and so makes a map of its own; later frames tell the hypotheses apart, and
with a hypothesis its whole past stands or falls. In a discrete space of hypotheses the best particle filter follows
every continuation of every particle and keeps the heaviest (Fearnhead & Clifford 2003); here each also carries the
variance of its position, so that it is a Kalman filter where there is a single continuation.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import check_positive
from gtm_pyro.landmarks import Landmarks
from gtm_pyro.transitions import Transition

Array = np.ndarray[Any, np.dtype[Any]]

# of the heaviest hypotheses one is the best
_LEADERS = 8
# positions at which one content may stand, in one hypothesis
_ALIASES = 3
_NOWHERE = 1e6
# variance of a jump, in units of a slip's: it forgets where it began
_JUMP = 100.0


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
    :param steps: of each hypothesis, batch ``(*batch, N)``.
    :param online: of the best hypothesis at each step, given the frames up to it, batch ``(*batch)``.
    :param filtered: mean of s_t given the frames up to t, under each hypothesis alive then, ``(*batch, T, N, D)``.
    :param filtered_variance: of one coordinate, ``(*batch, T, N)``.
    :param filtered_log_weight: ``(*batch, T, N)``, normalised.
    """

    log_weight: Tensor
    steps: Steps
    online: Steps
    filtered: Tensor
    filtered_variance: Tensor
    filtered_log_weight: Tensor


@dataclass(frozen=True)
class HypothesisSearch:
    """The search's settings.

    :param num_hypotheses: N, kept at each step.
    :param landmark_scale: how far from a landmark a frame that looks like it is taken, in moves, where landmarks do not
        say it in state units.
    :param kidnap: probability, at each step, of being moved to a landmark without an action.
    :param overlap: probability that the frame of one place is seen at another place's position.
    """

    num_hypotheses: int = 256
    landmark_scale: float = 0.2
    kidnap: float = 0.0
    overlap: float = 1e-3

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

        :param actions: ``(batch, T, action_dim)``. One-hot actions may be replaced by one another, with probability
            ``transition.slip``; others are as commanded, or a jump to a landmark.
        :param start: mean of s_1, ``(batch, state_dim)``.
        :param start_variance: of each of its coordinates, ``(batch,)``.
        :param anywhere: the first frame may have been taken at any of its landmarks too.
        """
        search = _Search(self, transition, actions, landmarks, start, start_variance)
        search.begin(anywhere)
        for t in range(1, actions.shape[1]):
            search.advance(t)
        return search.result(actions)


def typical_move(transition: Transition, actions: Tensor) -> float:
    """Root mean square length of a move, in state units; 1 where nothing moves.

    :param actions: ``(batch, T, action_dim)``.
    """
    origin = actions.new_zeros(transition.state_dim)
    free = getattr(transition, "moves", lambda a: transition.loc(origin, a) - origin)
    length = free(actions[:, 1:]).norm(dim=-1)
    moving = length > 0.1 * length.amax() if length.numel() else length > 0
    return float(length[moving].square().mean().sqrt()) if bool(moving.any()) else 1.0


class _Search:
    """The hypotheses of one batch, step by step; arrays are (batch, hypothesis, ...)."""

    def __init__(
        self,
        settings: HypothesisSearch,
        transition: Transition,
        actions: Tensor,
        landmarks: Landmarks,
        start: Tensor,
        start_variance: Tensor,
    ) -> None:
        self.settings, self.transition = settings, transition
        self.device, self.dtype = actions.device, actions.dtype
        self.actions = actions.detach().cpu()
        batch, steps, action_dim = actions.shape
        self.slip = float(transition.slip)
        self.noise = float(transition.scale) ** 2
        self.jump_noise = float(transition.slip_scale) ** 2
        one_hot = bool(((self.actions == 0) | (self.actions == 1)).all() & (self.actions.sum(-1) == 1).all())
        self.replaced = one_hot and self.slip > 0
        self.jumps = settings.kidnap > 0 or (self.slip > 0 and not one_hot)
        self.size = settings.num_hypotheses if self.replaced or self.jumps else 1
        self._read(landmarks, float(typical_move(transition, actions)) * settings.landmark_scale)
        n, dim = self.size, transition.state_dim
        self.rows = np.arange(batch)
        self.pos = np.repeat(start.detach().cpu().double().numpy()[:, None], n, 1)
        self.var = np.repeat(start_variance.detach().cpu().double().numpy()[:, None], n, 1)
        self.logw = np.full((batch, n), -np.inf)
        self.logw[:, 0] = 0.0
        if self.replaced:
            self.options = torch.eye(action_dim, dtype=self.dtype, device=self.device)
            self.chosen = self.actions.argmax(-1).numpy()
            self.prior = np.full((batch, steps, action_dim), np.log(self.slip / (action_dim - 1)))
            np.put_along_axis(self.prior, self.chosen[..., None], np.log1p(-self.slip), -1)
        self.parents = np.zeros((steps, batch, n), np.int64)
        self.picks = np.zeros((steps, batch, n), np.int64)
        self.best = np.zeros((steps, batch), np.int64)
        self.history = {
            "states": np.zeros((steps, batch, n, dim)),
            "target": np.zeros((steps, batch, n, dim)),
            "evidence": np.full((steps, batch, n), np.inf),
            "variance": np.full((steps, batch, n), self.noise),
            "var": np.zeros((steps, batch, n)),
            "logw": np.zeros((steps, batch, n)),
        }

    def _read(self, landmarks: Landmarks, scale: float) -> None:
        """Give every content a number, its place; a place has up to _ALIASES positions in each hypothesis."""
        weight = landmarks.log_weight.detach().cpu().double().numpy()
        batch, steps, k = weight.shape
        self.fixed = landmarks.position is not None
        given = landmarks.scale
        self.scale = np.full((batch, steps, k), scale) if given is None else _expand(given, (batch, steps, k))
        self.background = landmarks.log_background.detach().cpu().double().numpy()
        self.weight = weight
        if self.fixed:
            self.positions = _array(landmarks.position)
            return
        assert landmarks.index is not None
        index = landmarks.index.cpu().numpy()
        best = weight.argmax(-1)
        nearest = np.take_along_axis(index, best[..., None], -1)[..., 0]
        strength = np.take_along_axis(weight, best[..., None], -1)[..., 0]
        # half of what a look can prove, so that a chance resemblance founds no place
        alike = strength > max(0.5 * float(weight[np.isfinite(weight)].max(initial=0.0)), 1.0)
        self.alias = np.exp(-np.where(alike, strength, 0.0))
        # a frame that tells little about its place may well be of a place that is known by another frame
        self.overlap = np.clip(np.exp(np.where(alike, -np.inf, strength)), self.settings.overlap, 1.0)
        self.overlap[:, 0] = 1.0
        label = np.zeros((batch, steps), np.int64)
        found = np.ones(batch, np.int64)
        rows = np.arange(batch)
        for t in range(1, steps):
            label[:, t] = np.where(alike[:, t], label[rows, nearest[:, t]], found)
            found += ~alike[:, t]
        self.label, self.num_places = label, int(found.max())
        shape = (batch, self.size, self.num_places, _ALIASES)
        self.key = np.full((*shape, self.transition.state_dim), _NOWHERE, np.float32)
        self.key_var = np.zeros(shape, np.float32)
        self.known = np.zeros((batch, self.size, self.num_places), np.int64)

    def begin(self, anywhere: bool) -> None:
        if self.fixed:
            if anywhere:
                few = min(self.size - 1, self.positions.shape[2])
                order = np.argsort(-self.weight[:, 0], -1)[:, :few]
                self.pos[:, 1 : 1 + few] = np.take_along_axis(self.positions[:, 0], order[..., None], 1)
                self.logw[:, 1 : 1 + few] = np.take_along_axis(self.weight[:, 0], order, 1)
            target, gain, evidence, log_likelihood = self._fixed_evidence(0, self.pos[:, :, None], self.var[:, :, None])
            self._correct(0, self.pos, self.var, target[:, :, 0], gain[:, :, 0], evidence[:, :, 0])
            self.logw += log_likelihood[:, :, 0]
        else:
            self._write(0, np.ones_like(self.logw, bool))
        self._finish(0)

    def advance(self, t: int) -> None:
        q, log_prior, variance = self._continuations(t)
        var = self.var[:, :, None] + variance
        if self.fixed:
            target, gain, evidence, log_likelihood = self._fixed_evidence(t, q, var)
            matched = None
        else:
            target, gain, evidence, log_likelihood, matched = self._own_evidence(t, q, var)
        score = self.logw[:, :, None] + log_prior + log_likelihood
        parent, pick = self._keep(score)
        self.parents[t], self.picks[t] = parent, pick
        rows = self.rows[:, None]
        self.logw = score[rows, parent, pick]
        where = (rows, parent, pick)
        self.history["variance"][t] = np.broadcast_to(variance, score.shape)[where]
        self._correct(t, q[where], var[where], target[where], gain[where], evidence[where])
        jumped = self.history["variance"][t] > self.noise
        self._pin(t, jumped)
        if matched is not None:
            self._write(t, ~matched[where])
        self._finish(t)

    def _continuations(self, t: int) -> tuple[Array, Array, Array]:
        """Positions (B, N, C, D), log prior and variance, both broadcastable to (B, N, C)."""
        s = torch.from_numpy(self.pos).to(self.dtype)
        if self.replaced:
            options = self.options
            q = self.transition.loc(s.unsqueeze(2).to(options.device), options).cpu().double().numpy()
            log_prior = self.prior[:, t, None]
            log_prior = self._merge(q, np.broadcast_to(log_prior, q.shape[:3]))
        else:
            action = self.actions[:, t, None].to(self.device)
            q = self.transition.loc(s.to(action.device), action).cpu().double().numpy()[:, :, None]
            log_prior = np.zeros((1, 1, 1))
        variance = np.full((1, 1, q.shape[2]), self.noise)
        if not self.jumps:
            return q, log_prior, variance
        places = self.positions[:, t, None] if self.fixed else self.key[self.rows, :, self.label[:, t]]
        places = np.broadcast_to(places, (*self.pos.shape[:2], *places.shape[-2:])).astype(np.float64)
        distance = np.square(places - q[:, :, :1]).sum(-1)
        slips = 0.0 if self.replaced else self.slip
        log_jump = np.log(
            slips * np.exp(-distance / (2 * self.jump_noise)) + self.settings.kidnap / places.shape[2] + 1e-300
        )
        log_jump = np.where(distance < 1e8, log_jump, -np.inf)
        stay = np.log1p(-min(slips + self.settings.kidnap, 0.999))
        prior = np.concatenate([np.broadcast_to(log_prior + stay, q.shape[:3]), log_jump], 2)
        jump = np.full((1, 1, places.shape[2]), _JUMP * self.jump_noise)
        return np.concatenate([q, places], 2), prior, np.concatenate([variance, jump], 2)

    def _merge(self, q: Array, log_prior: Array) -> Array:
        """Continuations of a hypothesis that lead to the same place, at a wall for instance, are one."""
        same = np.square(q[:, :, :, None] - q[:, :, None]).sum(-1) < 1e-2 * self.scale[0, 0, 0] ** 2
        first = same.argmax(-1)
        share = np.exp(log_prior)
        total = (same * share[:, :, None]).sum(-1)
        with np.errstate(divide="ignore"):
            return np.where(first == np.arange(q.shape[2]), np.log(total), -np.inf)

    def _fixed_evidence(self, t: int, q: Array, var: Array) -> tuple[Array, Array, Array, Array]:
        """Target, gain, variance of the measurement and log likelihood, (B, N, C, ...), of fixed landmarks."""
        place, scale = self.positions[:, t, None, None], self.scale[:, t, None, None]
        spread = np.broadcast_to(var, q.shape[:3])[..., None] + scale**2
        distance = np.square(q[..., None, :] - place).sum(-1)
        dim = q.shape[-1]
        log_each = self.weight[:, t, None, None] - distance / (2 * spread) + 0.5 * dim * np.log(scale**2 / spread)
        best = log_each.argmax(-1)[..., None]
        top = np.take_along_axis(log_each, best, -1)[..., 0]
        background = self.background[:, t, None, None]
        log_likelihood = np.logaddexp(background, np.logaddexp.reduce(log_each, -1))
        near = top > background
        target = np.take_along_axis(np.broadcast_to(place, (*log_each.shape, dim)), best[..., None], -2)[..., 0, :]
        noise = np.take_along_axis(np.broadcast_to(scale, log_each.shape), best, -1)[..., 0] ** 2
        evidence = np.where(near, noise, np.inf)
        gain = np.where(near, spread[..., 0] - scale[..., 0] ** 2, 0.0) / np.where(near, var + noise, 1.0)
        return target, gain, evidence, log_likelihood

    def _own_evidence(self, t: int, q: Array, var: Array) -> tuple[Array, Array, Array, Array, Array]:
        """The same for places that each hypothesis has seen itself, and whether one of them is met."""
        label, dim = self.label[:, t], q.shape[-1]
        key = self.key[self.rows, :, label].astype(np.float64)  # (B, N, aliases, D)
        key_var = self.key_var[self.rows, :, label]
        known = self.known[self.rows, :, label]
        distance = np.square(q[:, :, :, None] - key[:, :, None]).sum(-1)
        alias = distance.argmin(-1)
        distance = np.take_along_axis(distance, alias[..., None], -1)[..., 0]
        noise = self.scale[:, t, 0, None, None] ** 2
        # what a landmark and the path share is no uncertainty about where one is relative to the other
        own_var = np.take_along_axis(key_var, alias.reshape(*alias.shape[:2], -1), -1).reshape(alias.shape)
        relative = np.maximum(var - own_var, 0.0)
        spread = relative + noise
        match = np.exp(-distance / (2 * spread)) * (noise / spread) ** (0.5 * dim)
        # a content that was seen at several places is likely to be met at another one
        again = np.maximum(self.alias[:, t, None], (known - 1) / (known + 1))
        elsewhere = np.where(known == 0, 1.0, again)[:, :, None]
        elsewhere = elsewhere * (1 - (1 - self.overlap[:, t, None, None]) * self._taken(q, known, noise))
        likelihood, matched = match + elsewhere, match > elsewhere
        target = np.take_along_axis(
            np.broadcast_to(key[:, :, None], (*alias.shape, *key.shape[-2:])), alias[..., None, None], 3
        )[..., 0, :]
        gain = np.where(matched, relative / spread, 0.0)
        return target, gain, np.where(matched, noise + own_var, np.inf), np.log(likelihood), matched

    def _taken(self, q: Array, known: Array, noise: Array) -> Array:
        """How certainly each position is that of a place with another content, (B, N, C) in [0, 1]."""
        taken = np.zeros(q.shape[:3])
        new = np.flatnonzero((known == 0).any(1))
        if len(new):
            points, keys = q[new].astype(np.float32), self.key[new, :, :, 0]
            distance = sum(np.square(points[..., None, d] - keys[:, :, None, :, d]) for d in range(q.shape[-1]))
            taken[new] = np.exp(-np.asarray(distance).min(-1) / (2 * noise[new]))
        return taken

    def _keep(self, score: Array) -> tuple[Array, Array]:
        """Parent and continuation of each of the N heaviest; the first child keeps its parent's place in the arrays."""
        batch, n, options = score.shape
        if n == 1 and options == 1:
            return np.zeros((batch, 1), np.int64), np.zeros((batch, 1), np.int64)
        flat = score.reshape(batch, -1)
        kept = np.argpartition(-flat, n - 1, 1)[:, :n] if flat.shape[1] > n else np.argsort(-flat, 1)[:, :n]
        kept.sort(1)
        parent = kept // options
        first = np.concatenate([np.ones((batch, 1), bool), parent[:, 1:] != parent[:, :-1]], 1)
        slot = np.full((batch, n), -1)
        rows = np.broadcast_to(self.rows[:, None], (batch, n))
        slot[rows[first], parent[first]] = kept[first]
        # children beyond the first move in where a parent died out; both are in the order of the batch
        slot[slot < 0] = kept[~first]
        parent, pick = slot // options, slot % options
        if not self.fixed:
            moved = parent != np.arange(n)
            to, source = (rows[moved], np.nonzero(moved)[1]), (rows[moved], parent[moved])
            for table in (self.key, self.key_var, self.known):
                table[to] = table[source]
        return parent, pick

    def _correct(self, t: int, pos: Array, var: Array, target: Array, gain: Array, evidence: Array) -> None:
        self.pos = pos + gain[..., None] * (target - pos)
        self.var = var * (1 - gain)
        self.history["target"][t], self.history["evidence"][t] = target, evidence

    def _pin(self, t: int, jumped: Array) -> None:
        """After a jump the path is where the search says, whatever the action."""
        self.history["target"][t][jumped] = self.pos[jumped]
        self.history["evidence"][t][jumped] = self.noise

    def _write(self, t: int, new: Array) -> None:
        """Note the position of a place where a hypothesis has not seen this content before."""
        label = self.label[:, t]
        known = self.known[self.rows, :, label]
        b, n = np.nonzero(new & (known < _ALIASES))
        place, alias = label[b], known[b, n]
        self.key[b, n, place, alias] = self.pos[b, n]
        self.key_var[b, n, place, alias] = self.var[b, n]
        self.known[b, n, place] += 1

    def _finish(self, t: int) -> None:
        self.logw -= np.logaddexp.reduce(self.logw, 1)[:, None]
        self.history["states"][t], self.history["var"][t], self.history["logw"][t] = self.pos, self.var, self.logw
        if self.size == 1:
            return
        # the place with the most weight, not the heaviest hypothesis: many may agree on where the agent is
        few = np.argpartition(-self.logw, min(_LEADERS, self.size) - 1, 1)[:, :_LEADERS]
        leaders = self.pos[self.rows[:, None], few]
        near = np.square(leaders[:, :, None] - self.pos[:, None]).sum(-1) < self.scale[0, 0, 0] ** 2
        weight = np.exp(self.logw)
        mass = (near * weight[:, None]).sum(-1) + 1e-9 * weight[self.rows[:, None], few]
        self.best[t] = few[self.rows, mass.argmax(1)]

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.device, self.dtype)

    def result(self, actions: Tensor) -> Hypotheses:
        steps, batch, n = self.parents.shape
        lineage = np.zeros((steps, batch, n), np.int64)
        lineage[-1] = np.arange(n)
        for t in range(steps - 1, 0, -1):
            lineage[t - 1] = np.take_along_axis(self.parents[t], lineage[t], 1)
        own = {name: _follow(values, lineage) for name, values in self.history.items()}
        picks = _follow(self.picks, lineage)
        best = self.best[..., None]
        live = {name: _follow(values, best) for name, values in self.history.items()}
        # where another hypothesis took over, the path goes there, whatever the action
        came_from = _follow(self.parents, best)[1:, :, 0]
        switched = np.zeros((steps, batch, 1), bool)
        switched[1:, :, 0] = came_from != self.best[:-1]
        live["target"] = np.where(switched[..., None], live["states"], live["target"])
        live["evidence"] = np.where(switched, self.noise, live["evidence"])
        live["variance"] = np.where(switched, _JUMP * self.jump_noise, live["variance"])
        filtered = [self._tensor(self.history[name]).movedim(0, 1) for name in ("states", "var", "logw")]
        return Hypotheses(
            self._tensor(self.logw),
            self._steps(own, picks, actions),
            Steps(*(field.squeeze(1) for field in self._steps(live, _follow(self.picks, best), actions))),
            *filtered,
        )

    def _steps(self, values: dict[str, Array], picks: Array, actions: Tensor) -> Steps:
        """(T, B, N, ...) as (B, N, T, ...)."""
        shape = (picks.shape[1], picks.shape[2])
        carried = actions.unsqueeze(1).expand(shape[0], shape[1], *actions.shape[1:])
        if self.replaced:
            pick = torch.from_numpy(picks).to(self.device).permute(1, 2, 0)
            options = self.options
            first = torch.arange(actions.shape[1], device=self.device) == 0
            # a jump is no action
            carried = torch.where(
                (first | (pick >= len(options))).unsqueeze(-1), carried, options[pick.clamp_max(len(options) - 1)]
            )
        moved = {name: self._tensor(v).movedim(0, 2) for name, v in values.items()}
        return Steps(carried, moved["target"], moved["evidence"], moved["variance"], moved["states"])


def _follow(values: Array, lineage: Array) -> Array:
    """values (T, B, N, ...) at hypotheses ``lineage`` (T, B, M)."""
    index = lineage.reshape(*lineage.shape, *(1,) * (values.ndim - 3))
    return np.take_along_axis(values, index, 2)


def _expand(tensor: Tensor, shape: tuple[int, ...]) -> Array:
    return torch.as_tensor(tensor).detach().cpu().double().expand(shape).numpy()


def _array(tensor: Tensor | None) -> Array:
    assert tensor is not None
    return tensor.detach().cpu().double().numpy()
