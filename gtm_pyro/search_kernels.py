"""One time step of the search over hypotheses, compiled; ``gtm_pyro.hypotheses`` says what it does and why.

Plain loops over episodes, hypotheses and their continuations, in float64. A continuation is an executed action or a
jump to a place. Indices and sizes: time t, T; episode b, B; hypothesis n, N; continuation c, C; coordinate d, D;
landmark k, K; spot i, I. A heading is a third coordinate that is the same after a ``period``; 0 where there is none.
"""

import math
from typing import NamedTuple

import numpy as np

from gtm_pyro.selection import (
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

# jumps that lead to one content of one's own map
JUMPS = 3
# variance of a jump, in units of a slip's: it forgets where it began
JUMP = 100.0
# in place of a landmark: the agent is where it was, or at a place that is in no map
STAYED, NOWHERE = -2, -1
# what is recorded of each hypothesis, then its state and its target, each of D numbers
EVIDENCE, VARIANCE, SPREAD, GAIN, LOG_WEIGHT, PICK, STATE = range(7)
# squared distance, in variances, from which on a place is another one for sure: 4.5 deviations
_FAR = 20.0


class Rules(NamedTuple):
    """What is the same for all hypotheses of an episode.

    :ivar log_prior: of the actions, (B, T, A).
    :ivar step_noise: variance of a step, (B,); ``slip_noise`` (B,) that of a slip.
    :ivar same: squared distance up to which positions are the same place, (B,).
    :ivar period: of a heading, in the unit of positions, (B,); 0 for states without one.
    :ivar again: whether the frame shows what the frame before it showed, (B, T).
    :ivar slip: probability of a slip to anywhere, and so to a landmark; ``kidnap`` of being moved to one.
    """

    log_prior: Array
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


class Own(NamedTuple):
    """Maps of one's own, of spots: positions at which contents were seen.

    :ivar label: the number of each step's content, (B, T), and how many were seen before it, ``found`` (B, T).
    :ivar look: of each step, how likely another place looks alike, and how likely a place looks otherwise, (B, T, 2).
    :ivar noise: variance of the position from which a place is seen, (B, T).
    :ivar spot: (B, N, D, I), with ``variance`` (B, N, I), and their number ``spots`` (B, N).
    :ivar last: the last spot of each content, (B, N, P), and of each spot the one of its content ``before`` it,
        (B, N, I); -1 for none.
    :ivar copies: spots of each content, (B, N, P).
    :ivar sketch: two random sums over a map's spots, (B, N, 2, D): equal for equal maps.
    """

    label: Array
    found: Array
    look: Array
    noise: Array
    spot: Array
    variance: Array
    spots: Array
    last: Array
    before: Array
    copies: Array
    sketch: Array


@inlined
def new_place(copies: int, spots: int, contents: int, alike: float) -> float:
    """The probability that a place that is not in the map has a content of which the map has ``copies`` spots.

    p(c) = (copies_c - 1 + alike (contents + 1)) / (spots + 1), and that of a content that was never seen, copies 0,
    p = (1 - contents alike)(contents + 1) / (spots + 1): they sum to 1. It is the two-parameter Chinese restaurant
    process with discount and strength 1 (Pitman & Yor 1997), for true copies, among whose new contents a share
    ``alike`` resembles each old one by chance.
    """
    chance = min(alike, 1 / (contents + 1))
    new = (contents + 1) / (spots + 1)
    return (copies - 1) / (spots + 1) + new * chance if copies > 0 else new * (1 - contents * chance)


def _distances(point: Array, n: int, c: int, spot: Array, b: int, count: int, period: float, out: Array) -> float:
    """Squared distances from ``point[n, c]`` (D,) to the spots of a hypothesis, ``out`` (I,), and the smallest one."""
    dim, best = point.shape[2], np.inf
    if dim == 2:
        x, y = point[n, c, 0], point[n, c, 1]
        for i in range(count):
            out[i] = (x - spot[b, n, 0, i]) ** 2 + (y - spot[b, n, 1, i]) ** 2
            best = min(best, out[i])
        return best
    for i in range(count):
        total = 0.0
        for d in range(dim):
            total += difference(point[n, c, d], spot[b, n, d, i], d, period) ** 2
        out[i] = total
        best = min(best, total)
    return best


# without NaN and signed zeros a minimum is taken of several numbers at once
_distances = compiled(_distances, fastmath={"nnan", "nsz"})


@inlined
def _at(distance: float, relative: float, noise: float, dim: int) -> float:
    """w of a spot at this squared distance, whose difference from the point has variance ``relative``."""
    spread = max(relative, 0.0) + noise
    if distance > _FAR * spread:
        return 0.0
    ratio = noise / spread
    return math.exp(-distance / (2 * spread)) * (ratio if dim == 2 else ratio ** (0.5 * dim))


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


@inlined
def look_at_own(
    point: Array, n: int, c: int, var: float, stayed: float, own: Own, b: int, t: int, period: float, least: float,
    distances: Array,
) -> tuple[float, int, float, float]:  # fmt: skip
    """The same for the spots of a map of one's own.

    The agent at s is at the place of spot i with probability w_i = (noise / v)^(D/2) exp(-|s - s_i|² / 2v), v the
    variance of s - s_i and the noise; if these sum to over 1 they are divided by the sum W. Where it was at the step
    before is a spot as well. With g of ``new_place`` and e the overlap, the content c is seen with probability

        p(c | s) = sum_i w_i ((1 - e) [c_i = c] + e g(c)) + (1 - min(W, 1)) g(c),

    which sums to 1 over all contents, that never seen included.

    :param stayed: w of the step before.
    :param least: a log likelihood that is surely under it is not worked out, and -inf.
    :param distances: (I,), overwritten.
    """
    dim, count, label, noise = point.shape[2], own.spots[b, n], own.label[b, t], own.noise[b, t]
    same = t > 0 and label == own.label[b, t - 1]
    here, best, most = stayed if same else 0.0, NOWHERE, 0.0
    i = own.last[b, n, label]
    while i >= 0:
        distance = 0.0
        for d in range(dim):
            distance += difference(point[n, c, d], own.spot[b, n, d, i], d, period) ** 2
        # what a spot and the path share is no uncertainty about where one is relative to the other
        one = _at(distance, var - own.variance[b, n, i], noise, dim)
        here += one
        if one > most:
            most, best = one, i
        i = own.before[b, n, i]
    new = new_place(own.copies[b, n, label], count, own.found[b, t], own.look[b, t, 0])
    if math.log(here + new) < least:
        return -np.inf, NOWHERE, 0.0, np.inf
    everything, reach = stayed, _FAR * (var + noise)  # none is further
    if _distances(point, n, c, own.spot, b, count, period, distances) < reach:
        for i in range(count):
            if distances[i] < reach:
                everything += _at(distances[i], var - own.variance[b, n, i], noise, dim)
    overlap, unknown = own.look[b, t, 1], max(1 - everything, 0.0)
    share = 1 / max(everything, 1.0)
    likelihood = math.log(share * (here * (1 - overlap) + everything * overlap * new) + unknown * new + 1e-300)
    if not share * here * (1 - overlap) > (unknown + share * everything * overlap) * new:
        return likelihood, NOWHERE, 0.0, np.inf
    if best == NOWHERE or (same and stayed > 0.5):
        return likelihood, STAYED, 0.0, np.inf
    relative = max(var - own.variance[b, n, best], 0.0)
    return likelihood, best, relative / (relative + noise), noise + own.variance[b, n, best]


@inlined
def _write(own: Own, b: int, n: int, t: int, state: Array, variance: float) -> None:
    """Write a spot at ``state[STATE : STATE + D]``."""
    i, label, dim = own.spots[b, n], own.label[b, t], own.spot.shape[2]
    own.variance[b, n, i], own.before[b, n, i], own.last[b, n, label] = variance, own.last[b, n, label], i
    for d in range(dim):
        own.spot[b, n, d, i] = state[STATE + d]
        for j in range(2):
            # of either sign, and not small: one spot elsewhere is always seen in the sum
            sign = math.sin(12.9898 * (label + 1) + 78.233 * j)
            own.sketch[b, n, j, d] += (sign + math.copysign(1.0, sign)) * state[STATE + d]
    own.spots[b, n] += 1
    own.copies[b, n, label] += 1


@inlined
def _copy(own: Own, b: int, p: int, n: int, contents: int) -> None:
    """Give hypothesis n the map of p, of the first ``contents`` contents."""
    count = own.spots[b, p]
    own.spots[b, n] = count
    for d in range(own.spot.shape[2]):
        own.sketch[b, n, 0, d], own.sketch[b, n, 1, d] = own.sketch[b, p, 0, d], own.sketch[b, p, 1, d]
        for i in range(count):
            own.spot[b, n, d, i] = own.spot[b, p, d, i]
    for i in range(count):
        own.variance[b, n, i], own.before[b, n, i] = own.variance[b, p, i], own.before[b, p, i]
    for i in range(contents):
        own.copies[b, n, i], own.last[b, n, i] = own.copies[b, p, i], own.last[b, p, i]


@compiled
def advance(t: int, q: Array, rules: Rules, tracks: Tracks, is_fixed: bool, fixed: Fixed, own: Own) -> None:
    """All continuations of all hypotheses at step t, of which the heaviest are kept.

    :param q: where the actions lead, (B, N, A, D).
    :param tracks: the hypotheses at step t are written from those before it, or from themselves at step 0.
    :param is_fixed: whether landmarks are ``fixed``, otherwise one's ``own``.
    """
    batch, size, actions, dim = q.shape
    before, now = tracks.record[max(t - 1, 0)], tracks.record[t]
    parents = tracks.parents[t]
    slip, kidnap = rules.slip, rules.kidnap
    jumps = (fixed.position.shape[2] if is_fixed else JUMPS) if slip + kidnap > 0 else 0
    options = actions + jumps
    point, prior = np.zeros((size, options, dim)), np.empty((size, options))
    score, which = np.empty((size, options)), np.zeros((size, options), np.int64)
    gain, evidence = np.empty((size, options)), np.empty((size, options))
    pick, likely, later = np.zeros(size, np.int64), np.empty(size, np.int64), np.empty(size * options, np.int64)
    share, used, gone = np.empty(actions), np.empty(size, np.bool_), np.empty(actions, np.bool_)
    weights, heap, mine, distances = np.empty(size), np.empty(size), np.empty(size), np.empty(own.before.shape[2])
    stay = math.log1p(-min(slip + kidnap, 0.999))
    for b in range(batch):
        step_noise, same, period = rules.step_noise[b], rules.same[b], rules.period[b]
        variance = JUMP * rules.slip_noise[b]
        most = fixed.most[b, t] if is_fixed else 0.0  # the largest log likelihood
        for c in range(actions):
            share[c] = math.exp(rules.log_prior[b, t, c])
        prior[:] = -np.inf
        score[:] = -np.inf
        gain[:] = 0.0
        evidence[:] = np.inf
        for n in range(size):
            for c in range(actions):
                for d in range(dim):
                    point[n, c, d] = q[b, n, c, d]
            logw = before[b, n, LOG_WEIGHT]
            likely[n] = 0
            if logw == -np.inf:
                continue
            merge(q, b, n, rules.log_prior[b, t], share, 1e-2 * same, prior, gone)
            i = 0 if is_fixed else own.last[b, n, own.label[b, t]]
            for c in range(actions, options):
                if i < 0:
                    break
                distance = 0.0
                for d in range(dim):
                    point[n, c, d] = fixed.position[b, t, i, d] if is_fixed else own.spot[b, n, d, i]
                    if period > 0 and d == HEADING:
                        point[n, c, d] = nearest_turn(point[n, c, d], q[b, n, 0, d], period)
                    distance += (point[n, c, d] - q[b, n, 0, d]) ** 2
                prior[n, c] = math.log(slip * math.exp(-distance / (2 * rules.slip_noise[b])) + kidnap / jumps + 1e-300)
                i = i + 1 if is_fixed else own.before[b, n, i]
            for c in range(options):
                prior[n, c] += logw + (stay if c < actions else 0.0)
                if prior[n, c] > prior[n, likely[n]]:
                    likely[n] = c
        # the likeliest continuation of each first: others that cannot be among the heaviest are not looked at
        heap[:] = -np.inf
        for others in range(2):
            for n in range(size):
                for c in range(options):
                    if (c == likely[n]) == (others == 1) or not prior[n, c] + most > heap[0]:
                        continue
                    step = step_noise if c < actions else variance
                    var, stayed, scale = before[b, n, SPREAD] + step, 0.0, same if is_fixed else own.noise[b, t]
                    moved = 0.0
                    if t > 0 and (rules.again[b, t] or not is_fixed):
                        moved = _moved(point, n, c, before, b, period)
                        stayed = _at(moved, step, scale, dim)
                    if is_fixed:
                        seen = look_at_landmarks(point, n, c, var, stayed, fixed, b, t, period)
                    else:
                        least = heap[0] - prior[n, c]
                        seen = look_at_own(point, n, c, var, stayed, own, b, t, period, least, distances)
                    score[n, c] = prior[n, c] + seen[0]
                    which[n, c], gain[n, c], evidence[n, c] = seen[1], seen[2], seen[3]
                    if seen[1] == STAYED:
                        # what was expected says so little that, however long the stay, one knows where one is as from
                        # one look, no better; where a move was expected, as through a wall, it is a look
                        told = moved / (scale * (scale + moved)) + step / (scale * (scale + step))
                        evidence[n, c] = 1 / told
                        gain[n, c] = var / (var + evidence[n, c])
                    if score[n, c] > heap[0]:
                        replace_smallest(heap, score[n, c])
        keep(score, heap[0], parents, b, pick, later)
        for n in range(size):
            if parents[b, n] != n and not is_fixed:
                _copy(own, b, parents[b, n], n, own.found[b, t])
        top = -np.inf
        for n in range(size):
            p, c = parents[b, n], pick[n]
            noise, mark = variance if c >= actions else step_noise, which[p, c]
            spread = (before[b, p, SPREAD] + noise) * (1 - gain[p, c])
            if period > 0 and not is_fixed and gain[p, c] > 0 and mark >= 0:
                # a landmark of one's own is no surer than it was then; with rare ones, what is left matters
                spread += gain[p, c] * (evidence[p, c] - own.noise[b, t])
            now[b, n, GAIN] = gain[p, c]
            now[b, n, EVIDENCE], now[b, n, VARIANCE], now[b, n, SPREAD] = evidence[p, c], noise, spread
            now[b, n, LOG_WEIGHT], now[b, n, PICK] = score[p, c], c
            top = max(top, score[p, c])
            # after a jump the path is where the search says, whatever the action
            pinned = c >= actions and variance > step_noise
            if pinned:
                now[b, n, EVIDENCE] = step_noise
            for d in range(dim):
                at = target = point[p, c, d]
                if evidence[p, c] < np.inf:
                    if mark == STAYED:
                        target = before[b, p, STATE + d]
                    else:
                        target = fixed.position[b, t, mark, d] if is_fixed else own.spot[b, n, d, mark]
                    if period > 0 and d == HEADING:
                        target = nearest_turn(target, at, period)
                    at += gain[p, c] * (target - at)
                now[b, n, STATE + d], now[b, n, STATE + dim + d] = at, at if pinned else target
                for a in range(tracks.s.shape[2]):
                    tracks.s[b, n, a, d] = at
            # a content that has not been seen here before
            if not is_fixed and mark == NOWHERE and score[p, c] > -np.inf:
                _write(own, b, n, t, now[b, n], spread)
        for n in range(size):
            weights[n] = math.exp(now[b, n, LOG_WEIGHT] - top)
        if size > 1:
            # explanations with one map differ in when the agent slipped between look-alikes: were their weights added,
            # a long stay would speak for look-alikes all around, where slips are not seen
            join(weights, heap, now, b, STATE, dim, 1e-2 * same, period, own.spots, own.sketch, same, is_fixed, mine)
        total = 0.0
        for n in range(size):
            total += weights[n]
        for n in range(size):
            now[b, n, LOG_WEIGHT] = math.log(weights[n] / total) if weights[n] > 0 else -np.inf
        tracks.best[t, b] = best_hypothesis(weights, used, now, b, STATE, dim, same, period)
