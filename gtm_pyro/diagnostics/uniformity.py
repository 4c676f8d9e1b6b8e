"""Tests that numbers or ranks are uniform, or like those of replicates, and the bands that their figures show."""

from collections.abc import Iterable

import numpy as np


def adjusted_p(observed: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    """Two-sided p-values ``(quantities,)``, the least of which is as good as a single one (Westfall and Young 1993).

    The share, among the replicates and the observation, of those whose furthest quantity is at least as far from the
    mean of all, in standard deviations, as this quantity is in the observation. Where the observation is a draw like
    the replicates, the least p-value is at or below ``k / (replicates + 1)`` in ``k`` of as many cases, whatever
    depends on what within a replicate.

    :param observed: ``(quantities,)``.
    :param replicated: ``(replicates, quantities)``.
    """
    every = np.concatenate([observed[None], replicated])
    spread = every.std(0)
    far = np.abs(every - every.mean(0)) / np.where(spread > 0, spread, 1.0)
    # ties that rounding breaks are ties
    p: np.ndarray = (far.max(1)[:, None] >= far[0] - 1e-9).mean(0)
    return p


def joint_p(values: Iterable[float]) -> float:
    """The p-value of several tests at once, which may depend on each other (Bonferroni); NaN where none is defined."""
    known = [value for value in values if not np.isnan(value)]
    return min(1.0, len(known) * min(known)) if known else float("nan")


def mean_p(off: float, variance: float, tests: int = 1) -> float:
    """The two-sided p-value of a mean of many, the furthest off of ``tests`` (Bonferroni)."""
    from scipy.stats import norm

    return min(1.0, 2 * tests * float(norm.sf(abs(off) / variance**0.5)))


def student_p(values: np.ndarray) -> float:
    """The two-sided p-value of independent values against a mean of 0; NaN where all are the same."""
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, 0.0).pvalue) if np.ptp(values) > 0 else float("nan")


def kolmogorov_smirnov_p(values: np.ndarray) -> float:
    """The p-value of independent values against the uniform distribution on [0, 1]."""
    from scipy.stats import kstest

    return float(kstest(values, "uniform").pvalue)


def binomial_p(successes: int, number: int, share: float) -> float:
    """The two-sided p-value of a number of independent successes."""
    from scipy.stats import binomtest

    return float(binomtest(successes, number, share).pvalue)


def rank_counts(ranks: np.ndarray, num_ranks: int, bins: int) -> np.ndarray:
    """How many ranks 0 .. num_ranks - 1 fall in each of ``bins`` equal bins, which must divide ``num_ranks``."""
    if num_ranks % bins:
        raise ValueError(f"bins: expected a divisor of {num_ranks}, got {bins}")
    return np.bincount(ranks * bins // num_ranks, minlength=bins)


def rank_p(ranks: np.ndarray, num_ranks: int, bins: int) -> float:
    """The p-value of independent ranks against equally likely ones: Pearson's and that of :func:`bars_p`, jointly.

    Wants five or more a bin.
    """
    from scipy.stats import chisquare

    counts = rank_counts(ranks, num_ranks, bins)
    return joint_p([float(chisquare(counts).pvalue), bars_p(counts)])


def bars_p(counts: np.ndarray) -> float:
    """The p-value of the bar that is furthest off among those of a histogram of uniform values (Bonferroni).

    Below ``rate`` just where a bar leaves ``binomial_band(number, bins, rate)``.
    """
    from scipy.stats import binom

    number, bins = int(counts.sum()), len(counts)
    tail = np.minimum(binom.cdf(counts, number, 1 / bins), binom.sf(counts - 1, number, 1 / bins))
    return min(1.0, 2 * bins * float(tail.min()))


def binomial_band(number: int, bins: int, false_alarm_rate: float) -> tuple[int, int]:
    """Counts between which all ``bins`` bins of uniform ranks lie but for the false-alarm rate (Bonferroni)."""
    from scipy.stats import binom

    half = false_alarm_rate / bins / 2
    return int(binom.ppf(half, number, 1 / bins)), int(binom.ppf(1 - half, number, 1 / bins))


def ecdf_band(number: int, false_alarm_rate: float) -> float:
    """Half the width of the band that holds the whole empirical distribution function (Massart 1990)."""
    return float(np.sqrt(np.log(2 / false_alarm_rate) / (2 * number)))
