"""One time step of the search over hypotheses, compiled; ``gtm_pyro.hypotheses`` says what it does and why.

Plain loops over episodes, hypotheses and their continuations, in float64. A continuation is an executed action or a
jump to a place. Indices and sizes: time t, T; episode b, B; hypothesis n, N; continuation c, C; coordinate d, D;
landmark k, K. A heading is a third coordinate that is the same after a ``period``; 0 where there is none.
"""

import math

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

# positions at which one content may stand, in one hypothesis
ALIASES = 3
# variance of a jump, in units of a slip's: it forgets where it began
JUMP = 100.0
# what is recorded of each hypothesis, then its state and its target, each of D numbers
EVIDENCE, VARIANCE, SPREAD, GAIN, LOG_WEIGHT, PICK, STATE = range(7)
# squared distance, in variances, at which a match is nothing, even beside the share of look-alikes
_FAR = 200.0


def _nearest_place(point: Array, n: int, c: int, key: Array, b: int, found: int, period: float) -> float:
    """Squared distance from ``point[n, c]`` (D,) to the nearest of the first ``found`` places of a hypothesis."""
    dim, best = point.shape[2], np.inf
    if dim == 2:
        x, y = point[n, c, 0], point[n, c, 1]
        for p in range(found):
            best = min(best, (x - key[b, n, 0, 0, p]) ** 2 + (y - key[b, n, 0, 1, p]) ** 2)
        return best
    for p in range(found):
        total = 0.0
        for d in range(dim):
            total += difference(point[n, c, d], key[b, n, 0, d, p], d, period) ** 2
        best = min(best, total)
    return best


# without NaN and signed zeros a minimum is taken of several numbers at once
_nearest_place = compiled(_nearest_place, fastmath={"nnan", "nsz"})


@inlined
def _look_at_landmarks(
    point: Array,
    n: int,
    c: int,
    var: float,
    position: Array,
    weight: Array,
    scale: Array,
    background: Array,
    b: int,
    t: int,
    period: float,
) -> tuple[float, int, float, float]:
    """Log likelihood of ``point[n, c]``, the landmark that it is taken for, gain and variance of that measurement."""
    total, top, best, dim = -np.inf, -np.inf, 0, point.shape[2]
    for k in range(weight.shape[2]):
        noise, distance = scale[b, t, k] ** 2, 0.0
        for d in range(dim):
            distance += difference(point[n, c, d], position[b, t, k, d], d, period) ** 2
        spread = var + noise
        one = weight[b, t, k] - distance / (2 * spread) + 0.5 * dim * math.log(noise / spread)
        total = log_add(total, one)
        if one > top:
            top, best = one, k
    total = log_add(background[b, t], total)
    if not top > background[b, t]:
        return total, best, 0.0, np.inf
    noise = scale[b, t, best] ** 2
    return total, best, var / (var + noise), noise


@inlined
def _look_at_own(
    point: Array, n: int, c: int, var: float, key: Array, key_var: Array, known: int, b: int, place: int, found: int,
    noise: float, again: float, overlap: float, period: float,
) -> tuple[float, int, float, float]:  # fmt: skip
    """The same for a place of one's own, which stands at ``known`` positions.

    :param again: how likely the content is to be met at a new place.
    :param overlap: how likely the frame of one place is to be seen at another one's position.
    """
    if known == 0:
        # how certainly the point is the position of a place with another content
        distance = _nearest_place(point, n, c, key, b, found, period) if found > 0 else np.inf
        if distance > _FAR * noise:
            return 0.0, 0, 0.0, np.inf
        return math.log(1 - (1 - overlap) * math.exp(-distance / (2 * noise))), 0, 0.0, np.inf
    nearest, distance, dim = 0, np.inf, point.shape[2]
    for a in range(known):
        one = 0.0
        for d in range(dim):
            one += difference(point[n, c, d], key[b, n, a, d, place], d, period) ** 2
        if one < distance:
            nearest, distance = a, one
    # what a landmark and the path share is no uncertainty about where one is relative to the other
    relative = max(var - key_var[b, n, nearest, place], 0.0)
    spread = relative + noise
    if distance > _FAR * spread:
        return math.log(again), nearest, 0.0, np.inf
    ratio = noise / spread
    match = math.exp(-distance / (2 * spread)) * (ratio if dim == 2 else ratio ** (0.5 * dim))
    if match > again:
        return math.log(match + again), nearest, relative / spread, noise + key_var[b, n, nearest, place]
    return math.log(match + again), nearest, 0.0, np.inf


@compiled
def advance(
    t: int,
    q: Array,
    log_prior: Array,
    step_noise: float,
    slip: float,
    slip_noise: float,
    kidnap: float,
    same: float,
    period: float,
    record: Array,
    parents: Array,
    best: Array,
    s: Array,
    fixed: bool,
    position: Array,
    weight: Array,
    scale: Array,
    background: Array,
    label: Array,
    found: Array,
    look: Array,
    key: Array,
    key_var: Array,
    known: Array,
) -> None:
    """All continuations of all hypotheses at step t, of which the heaviest are kept.

    :param q: where the actions lead, (B, N, A, D).
    :param log_prior: of the actions, (B, T, A).
    :param step_noise: variance of a step; ``slip_noise`` that of a slip.
    :param slip: probability of a slip to anywhere, and so to a landmark.
    :param same: squared distance up to which positions are the same place.
    :param period: of a heading, in the unit of positions; 0 for states without one.
    :param record: the hypotheses, (T, B, N, STATE + 2 D); those at step t are written from those before it, or from
        themselves at step 0.
    :param parents: (T, B, N), written; ``best`` (T, B) too.
    :param s: the states at step t, written, (B, N, A, D), once for each action.
    :param fixed: landmarks ``position`` (B, T, K, D), ``weight``, ``scale`` (B, T, K) and ``background`` (B, T);
        otherwise own places: ``label``, ``found`` (B, T), ``look`` (B, T, 2), and the maps, written: ``key``
        (B, N, ALIASES, D, P), ``key_var``, ``known`` (B, N, P).
    """
    batch, size, actions, dim = q.shape
    before, now = record[max(t - 1, 0)], record[t]
    jumps = (position.shape[2] if fixed else ALIASES) if slip + kidnap > 0 else 0
    options = actions + jumps
    point, prior = np.zeros((size, options, dim)), np.empty((size, options))
    score, which = np.empty((size, options)), np.zeros((size, options), np.int64)
    gain, evidence = np.empty((size, options)), np.empty((size, options))
    pick, likely, later = np.zeros(size, np.int64), np.empty(size, np.int64), np.empty(size * options, np.int64)
    share, used, gone = np.empty(actions), np.empty(size, np.bool_), np.empty(actions, np.bool_)
    weights, heap = np.empty(size), np.empty(size)
    stay, variance = math.log1p(-min(slip + kidnap, 0.999)), JUMP * slip_noise
    for b in range(batch):
        place, old = label[b, t], found[b, t]
        most = background[b, t] if fixed else 0.0  # the largest log likelihood
        if fixed:
            for k in range(weight.shape[2]):
                most = log_add(most, weight[b, t, k])
        for c in range(actions):
            share[c] = math.exp(log_prior[b, t, c])
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
            merge(q, b, n, log_prior[b, t], share, 1e-2 * same, prior, gone)
            for c in range(actions, actions + (jumps if fixed else min(jumps, known[b, n, place]))):
                distance = 0.0
                for d in range(dim):
                    point[n, c, d] = position[b, t, c - actions, d] if fixed else key[b, n, c - actions, d, place]
                    if period > 0 and d == HEADING:
                        point[n, c, d] = nearest_turn(point[n, c, d], q[b, n, 0, d], period)
                    distance += (point[n, c, d] - q[b, n, 0, d]) ** 2
                prior[n, c] = math.log(slip * math.exp(-distance / (2 * slip_noise)) + kidnap / jumps + 1e-300)
            for c in range(options):
                prior[n, c] += logw + (stay if c < actions else 0.0)
                if prior[n, c] > prior[n, likely[n]]:
                    likely[n] = c
        # the likeliest continuation of each first: others that cannot be among the heaviest are not looked at
        heap[:] = -np.inf
        for others in range(2):
            for n in range(size):
                again, ceiling = 1.0, most
                if not fixed and known[b, n, place] > 0:
                    # a content that was seen at several places is likely to be met at another one
                    again = max(look[b, t, 0], (known[b, n, place] - 1) / (known[b, n, place] + 1))
                    ceiling = math.log1p(again)
                for c in range(options):
                    if (c == likely[n]) == (others == 1) or not prior[n, c] + ceiling > heap[0]:
                        continue
                    var = before[b, n, SPREAD] + (step_noise if c < actions else variance)
                    if fixed:
                        seen = _look_at_landmarks(point, n, c, var, position, weight, scale, background, b, t, period)
                    else:
                        seen = _look_at_own(
                            point, n, c, var, key, key_var, known[b, n, place], b, place, old,
                            scale[b, t, 0] ** 2, again, look[b, t, 1], period,
                        )  # fmt: skip
                    score[n, c] = prior[n, c] + seen[0]
                    which[n, c], gain[n, c], evidence[n, c] = seen[1], seen[2], seen[3]
                    if score[n, c] > heap[0]:
                        replace_smallest(heap, score[n, c])
        keep(score, heap[0], parents[t], b, pick, later)
        for n in range(size):
            p = parents[t, b, n]
            if p != n and not fixed:
                deep = 0
                for i in range(old):
                    known[b, n, i] = known[b, p, i]
                    deep = max(deep, known[b, p, i])
                for a in range(deep):
                    for i in range(old):
                        key_var[b, n, a, i] = key_var[b, p, a, i]
                    for d in range(dim):
                        for i in range(old):
                            key[b, n, a, d, i] = key[b, p, a, d, i]
        top = -np.inf
        for n in range(size):
            p, c = parents[t, b, n], pick[n]
            noise = variance if c >= actions else step_noise
            spread = (before[b, p, SPREAD] + noise) * (1 - gain[p, c])
            if period > 0 and not fixed and gain[p, c] > 0:
                # a landmark of one's own is no surer than it was then; with rare ones, what is left matters
                spread += gain[p, c] * (evidence[p, c] - scale[b, t, 0] ** 2)
            now[b, n, GAIN] = gain[p, c]
            now[b, n, EVIDENCE], now[b, n, VARIANCE], now[b, n, SPREAD] = evidence[p, c], noise, spread
            now[b, n, LOG_WEIGHT], now[b, n, PICK] = score[p, c], c
            top = max(top, score[p, c])
            # after a jump the path is where the search says, whatever the action
            pinned = c >= actions and variance > step_noise
            if pinned:
                now[b, n, EVIDENCE] = step_noise
            # a content that has not been seen here before
            new = not fixed and evidence[p, c] == np.inf and known[b, n, place] < ALIASES
            for d in range(dim):
                at = target = point[p, c, d]
                if evidence[p, c] < np.inf:
                    target = position[b, t, which[p, c], d] if fixed else key[b, n, which[p, c], d, place]
                    if period > 0 and d == HEADING:
                        target = nearest_turn(target, at, period)
                    at += gain[p, c] * (target - at)
                now[b, n, STATE + d], now[b, n, STATE + dim + d] = at, at if pinned else target
                for a in range(s.shape[2]):
                    s[b, n, a, d] = at
                if new:
                    key[b, n, known[b, n, place], d, place] = at
            if new:
                key_var[b, n, known[b, n, place], place] = spread
                known[b, n, place] += 1
        total = 0.0
        for n in range(size):
            weights[n] = math.exp(now[b, n, LOG_WEIGHT] - top)
            total += weights[n]
        if fixed:
            join(weights, heap, now, b, STATE, dim, 1e-2 * same, period)
        for n in range(size):
            now[b, n, LOG_WEIGHT] = math.log(weights[n] / total) if weights[n] > 0 else -np.inf
        best[t, b] = best_hypothesis(weights, used, now, b, STATE, dim, same, period)
