"""One time step of the search over hypotheses, compiled; ``localisation.hypotheses`` says what it does and why.

Plain loops over episodes, hypotheses and their continuations, in float64. A continuation is an executed action or a
jump to a place. Indices and sizes: time t, T; episode b, B; hypothesis n, N; continuation c, C; coordinate d, D;
landmark k, K; spot i, I. A heading is a third coordinate that is the same after a ``period``; 0 where there is none.
"""

import math
from typing import NamedTuple

import numpy as np

from gtm_pyro.localisation.own_maps import NOWHERE, STAYED, Own, at_place, copy, look_at_own, write
from gtm_pyro.localisation.selection import (
    HEADING,
    Array,
    best_hypothesis,
    compiled,
    difference,
    inlined,
    join,
    keep,
    log_add,
    merge,
    nearest_turn,
    replace_smallest,
)

# so many jumps are tried to each content of the episode's own map
JUMPS = 3
# variance of a jump, in variances of a slip: so large that the start of the jump does not matter
JUMP = 100.0
# what is recorded of each hypothesis, then its state and its target, each of D numbers
EVIDENCE, VARIANCE, SPREAD, GAIN, LOG_WEIGHT, PICK, STILL, STATE = range(8)


class Rules(NamedTuple):
    """What is the same for all hypotheses of an episode.

    :ivar log_prior: of the actions, (B, T, A).
    :ivar moves: whether they displace the agent where nothing is in the way, (B, T, A).
    :ivar step_noise: variance of a step, (B,); ``slip_noise`` (B,) that of a slip.
    :ivar same: squared distance up to which positions are the same place, (B,).
    :ivar period: of a heading, in the unit of positions, (B,); 0 for states without one.
    :ivar again: whether the frame shows what the frame before it showed, (B, T).
    :ivar slip: probability of a slip to anywhere, and so to a landmark; ``kidnap`` of being moved to one.
    """

    log_prior: Array
    moves: Array
    step_noise: Array
    slip_noise: Array
    same: Array
    period: Array
    again: Array
    slip: float
    kidnap: float


class Tracks(NamedTuple):
    """The hypotheses: ``record`` (T, B, N, STATE + 2 D), ``parents`` (T, B, N), the ``best`` one (T, B), and ``s``, the
    states at step t, (B, N, A, D), once for each action."""

    record: Array
    parents: Array
    best: Array
    s: Array


class Fixed(NamedTuple):
    """Landmarks at known positions: ``position`` (B, T, K, D), ``weight``, ``scale`` (B, T, K), ``background`` and
    ``most``, the largest log likelihood, (B, T)."""

    position: Array
    weight: Array
    scale: Array
    background: Array
    most: Array


@inlined
def _moved(point: Array, n: int, c: int, before: Array, b: int, period: float) -> float:
    """Squared distance from ``point[n, c]`` to the place of the step before."""
    distance = 0.0
    for d in range(point.shape[2]):
        distance += difference(point[n, c, d], before[b, n, STATE + d], d, period) ** 2
    return distance


@inlined
def look_at_landmarks(
    point: Array, n: int, c: int, var: float, stayed: float, fixed: Fixed, b: int, t: int, period: float
) -> tuple[float, int, float, float]:
    """Log likelihood of ``point[n, c]``, the landmark that it is taken for, gain and variance of that measurement.

    Where the agent is taken to be where it was, the landmark is ``STAYED``: the frame is the one before, and says
    nothing new. For a hypothesis that stayed p(x_t | x_{t-1}, s) is 1, otherwise L(s) / max L, as of ``Landmarks``.

    :param stayed: how certainly it is the place of the step before, where the frame shows the same; otherwise 0.
    """
    total, top, best, dim = -np.inf, -np.inf, 0, point.shape[2]
    for k in range(fixed.weight.shape[2]):
        noise, distance = fixed.scale[b, t, k] ** 2, 0.0
        for d in range(dim):
            distance += difference(point[n, c, d], fixed.position[b, t, k, d], d, period) ** 2
        spread = var + noise
        one = fixed.weight[b, t, k] - distance / (2 * spread) + 0.5 * dim * math.log(noise / spread)
        total = log_add(total, one)
        if one > top:
            top, best = one, k
    background = fixed.background[b, t]
    total = log_add(background, total)
    if stayed > 0:
        moved = (1 - stayed) * math.exp(min(total - fixed.most[b, t], 0.0))
        total = fixed.most[b, t] + math.log(stayed + moved)
        if stayed > 0.5:
            return total, STAYED, 0.0, np.inf
    if not top > background:
        return total, NOWHERE, 0.0, np.inf
    noise = fixed.scale[b, t, best] ** 2
    return total, best, var / (var + noise), noise


class Room(NamedTuple):
    """What one time step writes on its way, for one episode after the other.

    :ivar point: where continuations lead, (N, C, D); ``prior`` and ``score`` (N, C), their log weights before and after
        the frame is seen; ``likely`` (N,), of each hypothesis the one of the largest prior.
    :ivar which: the landmark that each was taken for, with ``gain`` and ``evidence`` of that measurement, (N, C).
    :ivar pick: the continuation that each hypothesis of the next step is, (N,).
    """

    point: Array
    prior: Array
    likely: Array
    score: Array
    which: Array
    gain: Array
    evidence: Array
    pick: Array
    later: Array
    share: Array
    gone: Array
    weights: Array
    heap: Array
    mine: Array
    used: Array
    distances: Array


@inlined
def _room(size: int, actions: int, options: int, dim: int, spots: int) -> Room:
    shape = (size, options)
    return Room(
        np.zeros((size, options, dim)), np.empty(shape), np.empty(size, np.int64), np.empty(shape),
        np.zeros(shape, np.int64), np.empty(shape), np.empty(shape), np.zeros(size, np.int64),
        np.empty(size * options, np.int64), np.empty(actions), np.empty(actions, np.bool_), np.empty(size),
        np.empty(size), np.empty(size), np.empty(size, np.bool_), np.empty(spots),
    )  # fmt: skip


@compiled
def advance(t: int, q: Array, rules: Rules, tracks: Tracks, is_fixed: bool, fixed: Fixed, own: Own) -> None:
    """All continuations of all hypotheses at step t, of which the heaviest are kept.

    :param q: where the actions lead, (B, N, A, D).
    :param tracks: the hypotheses at step t are written from those before it, or from themselves at step 0.
    :param is_fixed: whether landmarks are ``fixed``, otherwise one's ``own``.
    """
    batch, size, actions, dim = q.shape
    jumps = (fixed.position.shape[2] if is_fixed else JUMPS) if rules.slip + rules.kidnap > 0 else 0
    room = _room(size, actions, actions + jumps, dim, own.before.shape[2])
    for b in range(batch):
        _propose(t, b, q, jumps, rules, tracks, is_fixed, fixed, own, room)
        _weigh(t, b, actions, rules, tracks, is_fixed, fixed, own, room)
        keep(room.score, room.heap[0], tracks.parents[t], b, room.pick, room.later)
        _record(t, b, actions, rules, tracks, is_fixed, fixed, own, room)
        _normalise(t, b, rules, tracks, is_fixed, own, room)


@inlined
def _propose(
    t: int, b: int, q: Array, jumps: int, rules: Rules, tracks: Tracks, is_fixed: bool, fixed: Fixed, own: Own,
    room: Room,
) -> None:  # fmt: skip
    """Where each hypothesis may go on to, and how likely that is before the frame is seen."""
    size, actions, dim = q.shape[1:]
    point, prior, likely, share = room.point, room.prior, room.likely, room.share
    before, options = tracks.record[max(t - 1, 0)], actions + jumps
    same, period, slip, kidnap = rules.same[b], rules.period[b], rules.slip, rules.kidnap
    stay = math.log1p(-min(slip + kidnap, 0.999))
    for c in range(actions):
        share[c] = math.exp(rules.log_prior[b, t, c])
    prior[:] = -np.inf
    for n in range(size):
        for c in range(actions):
            for d in range(dim):
                point[n, c, d] = q[b, n, c, d]
        logw = before[b, n, LOG_WEIGHT]
        likely[n] = 0
        if logw == -np.inf:
            continue
        merge(q, b, n, rules.log_prior[b, t], share, 1e-2 * same, prior, room.gone)
        i = 0 if is_fixed else own.last[b, n, own.label[b, t]]
        for c in range(actions, options):
            if i < 0:
                break
            distance = 0.0
            for d in range(dim):
                at = fixed.position[b, t, i, d] if is_fixed else own.spot[b, n, d, i]
                if period > 0 and d == HEADING:
                    at = nearest_turn(at, q[b, n, 0, d], period)
                point[n, c, d] = at
                distance += (at - q[b, n, 0, d]) ** 2
            chance = slip * math.exp(-distance / (2 * rules.slip_noise[b])) + kidnap / jumps
            prior[n, c] = math.log(chance + 1e-300)
            i = i + 1 if is_fixed else own.before[b, n, i]
        for c in range(options):
            prior[n, c] += logw + (stay if c < actions else 0.0)
            if prior[n, c] > prior[n, likely[n]]:
                likely[n] = c


@inlined
def _weigh(
    t: int, b: int, actions: int, rules: Rules, tracks: Tracks, is_fixed: bool, fixed: Fixed, own: Own, room: Room
) -> None:
    """What the frame says of each continuation; of those that cannot be among the heaviest nothing is asked."""
    size, options, dim = room.point.shape
    point, priors, likely, scores, which = room.point, room.prior, room.likely, room.score, room.which
    gains, evidences, heap, distances = room.gain, room.evidence, room.heap, room.distances
    before, same, period = tracks.record[max(t - 1, 0)], rules.same[b], rules.period[b]
    step_noise, variance = rules.step_noise[b], JUMP * rules.slip_noise[b]
    most = fixed.most[b, t] if is_fixed else 0.0  # the largest log likelihood
    scores[:] = -np.inf
    gains[:] = 0.0
    evidences[:] = np.inf
    heap[:] = -np.inf
    # each hypothesis's likeliest continuation comes first, so that those that cannot be kept are never scored
    for others in range(2):
        for n in range(size):
            for c in range(options):
                prior = priors[n, c]
                if (c == likely[n]) == (others == 1) or not prior + most > heap[0]:
                    continue
                step = step_noise if c < actions else variance
                var, stayed, scale = before[b, n, SPREAD] + step, 0.0, same if is_fixed else own.noise[b, t]
                moved = 0.0
                if t > 0 and (rules.again[b, t] or not is_fixed):
                    moved = _moved(point, n, c, before, b, period)
                    stayed = at_place(moved, step, scale, dim)
                if is_fixed:
                    seen = look_at_landmarks(point, n, c, var, stayed, fixed, b, t, period)
                else:
                    seen = look_at_own(
                        point, n, c, var, stayed, rules.again[b, t], own, b, t, period, heap[0] - prior,
                        distances,
                    )  # fmt: skip
                score = prior + seen[0]
                scores[n, c], which[n, c] = score, seen[1]
                gains[n, c], evidences[n, c] = seen[2], seen[3]
                if seen[1] == STAYED and moved > 0 and (c >= actions or rules.moves[b, t, c]):
                    # that a move led nowhere, as at a wall, says so much about it as it was not expected
                    evidences[n, c] = scale * (scale + moved) / moved
                    gains[n, c] = var / (var + evidences[n, c])
                if score > heap[0]:
                    replace_smallest(heap, score)


@inlined
def _record(
    t: int, b: int, actions: int, rules: Rules, tracks: Tracks, is_fixed: bool, fixed: Fixed, own: Own, room: Room
) -> None:
    """The hypotheses of this step, from those that were kept; a place that is new is written into their maps."""
    size, dim = room.point.shape[0], room.point.shape[2]
    point, pick, which = room.point, room.pick, room.which
    gains, evidences, scores = room.gain, room.evidence, room.score
    before, now, parents = tracks.record[max(t - 1, 0)], tracks.record[t], tracks.parents[t]
    step_noise, period, variance = rules.step_noise[b], rules.period[b], JUMP * rules.slip_noise[b]
    for n in range(size):
        if parents[b, n] != n and not is_fixed:
            copy(own, b, parents[b, n], n, own.found[b, t])
    for n in range(size):
        p, c = parents[b, n], pick[n]
        noise, mark = variance if c >= actions else step_noise, which[p, c]
        gain, evidence, score = gains[p, c], evidences[p, c], scores[p, c]
        spread = (before[b, p, SPREAD] + noise) * (1 - gain)
        if period > 0 and not is_fixed and gain > 0 and mark >= 0:
            # a landmark of one's own is no surer than it was then; with rare ones, what is left matters
            spread += gain * (evidence - own.noise[b, t])
        # after a jump the search gives the position, and the action is ignored
        pinned = c >= actions and variance > step_noise
        still = mark == STAYED and c < actions and not rules.moves[b, t, c]
        now[b, n, EVIDENCE] = step_noise if pinned else evidence
        now[b, n, VARIANCE], now[b, n, SPREAD], now[b, n, GAIN] = noise, spread, gain
        now[b, n, LOG_WEIGHT], now[b, n, PICK], now[b, n, STILL] = score, c, still
        for d in range(dim):
            at = target = before[b, p, STATE + d] if still else point[p, c, d]
            if evidence < np.inf:
                if mark == STAYED:
                    target = before[b, p, STATE + d]
                else:
                    target = fixed.position[b, t, mark, d] if is_fixed else own.spot[b, n, d, mark]
                if period > 0 and d == HEADING:
                    target = nearest_turn(target, at, period)
                at += gain * (target - at)
            now[b, n, STATE + d], now[b, n, STATE + dim + d] = at, at if pinned else target
            for a in range(tracks.s.shape[2]):
                tracks.s[b, n, a, d] = at
        # this content was not seen at this place before
        if not is_fixed and mark == NOWHERE and score > -np.inf:
            write(own, b, n, t, now[b, n], STATE, spread)


@inlined
def _normalise(t: int, b: int, rules: Rules, tracks: Tracks, is_fixed: bool, own: Own, room: Room) -> None:
    """Weights that sum to one, and the best hypothesis."""
    now, same, period, weights = tracks.record[t], rules.same[b], rules.period[b], room.weights
    size, dim = room.point.shape[0], room.point.shape[2]
    top = -np.inf
    for n in range(size):
        top = max(top, now[b, n, LOG_WEIGHT])
    for n in range(size):
        weights[n] = math.exp(now[b, n, LOG_WEIGHT] - top)
    if size > 1:
        # explanations with one map differ in when the agent slipped between look-alikes: were their weights added,
        # a long stay would speak for look-alikes all around, where slips are not seen
        join(
            weights, room.heap, now, b, STATE, dim, 1e-2 * same, period, own.spots, own.sketch, same, is_fixed,
            room.mine,
        )  # fmt: skip
    total = 0.0
    for n in range(size):
        total += weights[n]
    for n in range(size):
        now[b, n, LOG_WEIGHT] = math.log(weights[n] / total) if weights[n] > 0 else -np.inf
    tracks.best[t, b] = best_hypothesis(weights, room.used, now, b, STATE, dim, same, period)
