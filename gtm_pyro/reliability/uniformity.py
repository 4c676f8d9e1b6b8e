"""Tests that numbers or ranks are uniform, and the bands that their figures show."""

import numpy as np


def kolmogorov_smirnov_p(values: np.ndarray) -> float:
    """The p-value of independent values against the uniform distribution on [0, 1]."""
    from scipy.stats import kstest

    return float(kstest(values, "uniform").pvalue)


def rank_counts(ranks: np.ndarray, num_ranks: int, bins: int) -> np.ndarray:
    """How many ranks 0 .. num_ranks - 1 fall in each of ``bins`` equal bins, which must divide ``num_ranks``."""
    if num_ranks % bins:
        raise ValueError(f"bins: expected a divisor of {num_ranks}, got {bins}")
    return np.bincount(ranks * bins // num_ranks, minlength=bins)


def rank_chi_square_p(ranks: np.ndarray, num_ranks: int, bins: int) -> float:
    """Pearson's p-value of independent ranks against equally likely ones; wants five or more a bin."""
    from scipy.stats import chisquare

    return float(chisquare(rank_counts(ranks, num_ranks, bins)).pvalue)


def binomial_band(number: int, bins: int, false_alarm_rate: float) -> tuple[int, int]:
    """Counts between which all ``bins`` bins of uniform ranks lie but for the false-alarm rate (Bonferroni)."""
    from scipy.stats import binom

    half = false_alarm_rate / bins / 2
    return int(binom.ppf(half, number, 1 / bins)), int(binom.ppf(1 - half, number, 1 / bins))


def ecdf_band(number: int, false_alarm_rate: float) -> float:
    """Half the width of the band that holds the whole empirical distribution function (Massart 1990)."""
    return float(np.sqrt(np.log(2 / false_alarm_rate) / (2 * number)))
