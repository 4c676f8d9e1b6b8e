"""Parts of the search over hypotheses that know nothing of landmarks, compiled: which continuations are kept.

Indices and sizes: hypothesis n, N; continuation c, C; coordinate d, D; place p, P; episode B, time T.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

Array = np.ndarray[Any, np.dtype[Any]]
F = TypeVar("F", bound=Callable[..., Any])

# the coordinate of a state that is an angle, where there is one
HEADING = 2
# so many of the heaviest hypotheses are compared to choose the best
LEADERS = 8


def compiled(function: F, **options: Any) -> F:
    """``function`` as machine code, made in its first call and kept in a cache beside its file.

    The cache follows changes of that file alone: touch the file of a caller after a change here.
    """
    options.update(nogil=True, error_model="numpy")
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache is writable
        return njit(**options)(function)


def inlined(function: F) -> F:
    """``function`` as a part of those that call it, where the ranges of its indices are known."""
    return compiled(function, inline="always")


@inlined
def log_add(x: float, y: float) -> float:
    top = max(x, y)
    return top if top == -np.inf else top + math.log1p(math.exp(min(x, y) - top))


@inlined
def nearest_turn(angle: float, other: float, period: float) -> float:
    """``angle``, whole turns apart, where it is nearest to ``other``."""
    return angle - period * math.floor((angle - other) / period + 0.5)


@inlined
def difference(x: float, y: float, d: int, period: float) -> float:
    """x - y of coordinate d; of headings, the smallest one, in a ``period`` over 0."""
    gap = x - y
    if period > 0 and d == HEADING:
        gap -= period * math.floor(gap / period + 0.5)
    return gap


@compiled
def name_places(alike: Array, nearest: Array) -> tuple[Array, Array]:
    """The place of each frame, a number, and how many places were known before it; all (B, T)."""
    label, found = np.zeros(alike.shape, np.int64), np.zeros(alike.shape, np.int64)
    for b in range(alike.shape[0]):
        count = 1
        for t in range(1, alike.shape[1]):
            found[b, t] = count
            if alike[b, t]:
                label[b, t] = label[b, nearest[b, t]]
            else:
                label[b, t] = count
                count += 1
    return label, found


@inlined
def merge(q: Array, b: int, n: int, log_prior: Array, share: Array, tolerance: float, out: Array, gone: Array) -> None:
    """Continuations of a hypothesis that lead to the same place, at a wall for instance, are one: the likeliest.

    :param q: where they lead, ``q[b, n]`` (C, D).
    :param share: exp of their ``log_prior`` (C,).
    :param out: their log probability, ``out[n]`` (C,), written.
    :param gone: (C,), overwritten.
    """
    options, dim = q.shape[2:]
    gone[:] = False
    for c in range(options):
        out[n, c] = share[c]
    for c in range(options):
        for other in range(c + 1, options):
            distance = 0.0
            for d in range(dim):
                distance += (np.float64(q[b, n, c, d]) - np.float64(q[b, n, other, d])) ** 2
            if distance < tolerance:
                out[n, c] += share[other]
                out[n, other] += share[c]
                gone[c if share[other] > share[c] else other] = True
    for c in range(options):
        if gone[c]:
            out[n, c] = -np.inf
        else:
            out[n, c] = math.log(out[n, c]) if out[n, c] > share[c] else log_prior[c]


@inlined
def join(
    weight: Array,
    heaviest: Array,
    states: Array,
    b: int,
    first: int,
    dim: int,
    tolerance: float,
    period: float,
    count: Array,
    sketch: Array,
    alike: float,
    add: bool,
    mine: Array,
) -> None:
    """Hypotheses with the same place and the same map have the same future: the heaviest stands for all of them.

    :param weight: (N,), of which the others' become 0; ``heaviest`` and ``mine`` (N,) are overwritten.
    :param add: whether it has the weight of all, or keeps its own.
    :param states: ``states[b, :, first : first + dim]`` are the positions, the same within the squared ``tolerance``.
    :param count: how many spots a map has, (B, N), and its ``sketch`` (B, N, 2, D), the same within ``alike``, squared.
    """
    heaviest[:] = weight
    reach = math.sqrt(alike)
    for n in range(len(weight)):
        mine[n] = sketch[b, n, 0, 0]
        if weight[n] == 0:
            continue
        for other in range(n):
            if abs(mine[other] - mine[n]) >= reach or weight[other] == 0 or count[b, n] != count[b, other]:
                continue
            distance, apart = 0.0, 0.0
            for d in range(dim):
                distance += difference(states[b, n, first + d], states[b, other, first + d], d, period) ** 2
                for j in range(2):
                    apart += (sketch[b, n, j, d] - sketch[b, other, j, d]) ** 2
            if distance < tolerance and apart < alike:
                both = weight[n] + weight[other] if add else max(weight[n], weight[other])
                if heaviest[n] > heaviest[other]:
                    weight[n], weight[other] = both, 0.0
                else:
                    weight[n], weight[other] = 0.0, both
                break


@inlined
def replace_smallest(heap: Array, value: float) -> None:
    """Put ``value`` in place of the smallest of a binary heap, its first."""
    i = 0
    while 2 * i + 1 < len(heap):
        child = 2 * i + 1
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = value


@inlined
def keep(score: Array, threshold: float, parents: Array, b: int, pick: Array, later: Array) -> None:
    """Parent and continuation of each of the N heaviest of ``score`` (N, C); what is left over keeps no weight.

    The first child keeps its parent's place in the arrays, so that few maps are copied.

    :param threshold: the N-th largest score; -inf where there are fewer.
    """
    size, options = score.shape
    ties = size if threshold > -np.inf else 0
    for n in range(size):
        parents[b, n] = -1
        for c in range(options):
            ties -= score[n, c] > threshold
    waiting = 0
    for n in range(size):
        for c in range(options):
            if not score[n, c] > threshold:
                if score[n, c] < threshold or ties <= 0:
                    continue
                ties -= 1
            if parents[b, n] < 0:
                parents[b, n], pick[n] = n, c
            else:
                later[waiting] = n * options + c
                waiting += 1
    # second and later children take the rows of parents without children
    moved = 0
    for n in range(size):
        if parents[b, n] < 0 and moved < waiting:
            parents[b, n], pick[n] = later[moved] // options, later[moved] % options
            moved += 1
        elif parents[b, n] < 0:
            parents[b, n], pick[n] = n, 0


@inlined
def best_hypothesis(
    weight: Array, used: Array, states: Array, b: int, first: int, dim: int, radius: float, period: float
) -> int:
    """A leader where the most weight is, not the heaviest hypothesis: many may agree on where the agent is.

    :param used: (N,), overwritten.
    :param states: ``states[b, :, first : first + dim]`` are the positions.
    """
    best, most = 0, -1.0
    used[:] = False
    for _ in range(min(LEADERS, len(weight))):
        leader = -1
        for n in range(len(weight)):
            if not used[n] and (leader < 0 or weight[n] > weight[leader]):
                leader = n
        used[leader] = True
        mass = 1e-9 * weight[leader]
        for n in range(len(weight)):
            distance = 0.0
            for d in range(first, first + dim):
                distance += difference(states[b, n, d], states[b, leader, d], d - first, period) ** 2
            if distance < radius:
                mass += weight[n]
        if mass > most:
            best, most = leader, mass
    return best


@compiled
def lineages(parents: Array, last: Array) -> Array:
    """The numbers that the last hypotheses ``last`` (B, M) had at each step, (B, M, T), from ``parents`` (T, B, N)."""
    batch, size = last.shape
    numbers = np.empty((batch, size, len(parents)), np.int64)
    for b in range(batch):
        for m in range(size):
            n = last[b, m]
            for t in range(len(parents) - 1, -1, -1):
                numbers[b, m, t] = n
                n = parents[t, b, n]
    return numbers


@compiled
def backward_precision(evidence: Array, variance: Array) -> tuple[Array, Array]:
    """J_t = 1 / evidence_t + K_t with K_t = J_{t+1} / (1 + variance_{t+1} J_{t+1}), and K_t / J_t; all (rows, T)."""
    precision, share = np.empty_like(evidence), np.zeros_like(evidence)
    for row in range(evidence.shape[0]):
        last = evidence.shape[1] - 1
        precision[row, last] = 1 / evidence[row, last]
        for t in range(last - 1, -1, -1):
            later = precision[row, t + 1] / (1 + variance[row, t + 1] * precision[row, t + 1])
            precision[row, t] = 1 / evidence[row, t] + later
            if later > 0:
                share[row, t] = later / precision[row, t]
    return precision, share
