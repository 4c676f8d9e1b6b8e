"""The map that an explanation of a walk makes of its own, and what a frame says of it, compiled.

Indices as in ``gtm_pyro.localisation.search_kernels``; spot i, I; content, P.
"""

import math
from typing import NamedTuple

import numpy as np

from gtm_pyro.localisation.selection import Array, compiled, difference, inlined

# in place of a landmark: the agent is where it was, or at a place that is in no map
STAYED, NOWHERE = -2, -1
# squared distance, in variances, beyond which two places are certainly different: 4.5 standard deviations
_FAR = 20.0


class Own(NamedTuple):
    """Maps of one's own, of spots: positions at which contents were seen.

    :ivar label: the number of each step's content, (B, T), and how many were seen before it, ``found`` (B, T).
    :ivar look: of each step, how likely another place looks alike, and how likely a place looks otherwise, (B, T, 2).
    :ivar noise: variance of the position from which a place is seen, (B, T).
    :ivar spot: (B, N, D, I), with ``variance`` (B, N, I), and their number ``spots`` (B, N).
    :ivar last: the last spot of each content, (B, N, P), and of each spot the one of its content ``before`` it,
        (B, N, I); -1 for none.
    :ivar copies: spots of each content, (B, N, P).
    :ivar every_look: whether frames that show the same again are measurements too.
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
    every_look: bool


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
def at_place(distance: float, relative: float, noise: float, dim: int) -> float:
    """w of a spot at this squared distance, whose difference from the point has variance ``relative``."""
    spread = max(relative, 0.0) + noise
    if distance > _FAR * spread:
        return 0.0
    ratio = noise / spread
    return math.exp(-distance / (2 * spread)) * (ratio if dim == 2 else ratio ** (0.5 * dim))


@inlined
def look_at_own(
    point: Array, n: int, c: int, var: float, stayed: float, again: bool, own: Own, b: int, t: int, period: float,
    least: float, distances: Array,
) -> tuple[float, int, float, float]:  # fmt: skip
    """The same for the spots of a map of one's own.

    The agent at s is at the place of spot i with probability w_i = (noise / v)^(D/2) exp(-|s - s_i|² / 2v), v the
    variance of s - s_i and the noise, and 0 beyond 4.5 deviations; if these sum to over 1 they are divided by their
    sum W. Where it was at the step before is a spot as well. With g of ``new_place`` and e the overlap, the content c
    is seen with probability

        p(c | s) = sum_i w_i ((1 - e) [c_i = c] + e g(c)) + (1 - min(W, 1)) g(c),

    which sums to 1 over all contents, that never seen included.

    :param stayed: w of the step before.
    :param again: whether the frame shows what the one before it showed.
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
        # errors that a spot and the path share cancel in the position of one relative to the other
        one = at_place(distance, var - own.variance[b, n, i], noise, dim)
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
                everything += at_place(distances[i], var - own.variance[b, n, i], noise, dim)
    overlap, unknown = own.look[b, t, 1], max(1 - everything, 0.0)
    share = 1 / max(everything, 1.0)
    likelihood = math.log(share * (here * (1 - overlap) + everything * overlap * new) + unknown * new + 1e-300)
    if not share * here * (1 - overlap) > (unknown + share * everything * overlap) * new:
        return likelihood, NOWHERE, 0.0, np.inf
    if again and (best == NOWHERE or (stayed > 0.5 and not own.every_look)):
        return likelihood, STAYED, 0.0, np.inf
    if best == NOWHERE:
        return likelihood, NOWHERE, 0.0, np.inf
    relative = max(var - own.variance[b, n, best], 0.0)
    return likelihood, best, relative / (relative + noise), noise + own.variance[b, n, best]


@inlined
def write(own: Own, b: int, n: int, t: int, state: Array, first: int, variance: float) -> None:
    """Write a spot at ``state[first : first + D]``."""
    i, label, dim = own.spots[b, n], own.label[b, t], own.spot.shape[2]
    own.variance[b, n, i], own.before[b, n, i], own.last[b, n, label] = variance, own.last[b, n, label], i
    for d in range(dim):
        own.spot[b, n, d, i] = state[first + d]
        for j in range(2):
            # of either sign, and not small: one spot elsewhere is always seen in the sum
            sign = math.sin(12.9898 * (label + 1) + 78.233 * j)
            own.sketch[b, n, j, d] += (sign + math.copysign(1.0, sign)) * state[first + d]
    own.spots[b, n] += 1
    own.copies[b, n, label] += 1


@inlined
def copy(own: Own, b: int, p: int, n: int, contents: int) -> None:
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
