"""One figure for each check."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gtm_pyro.figure_style import FLOOR, MEAN, PREDICTED, TRUE, UNVISITED, canvas, plain
from gtm_pyro.reliability.calibration import BINS, FALSE_ALARM_RATE, NUM_DRAWS
from gtm_pyro.reliability.findings import Finding
from gtm_pyro.reliability.predictive import two_sided_p
from gtm_pyro.reliability.uniformity import binomial_band, ecdf_band, rank_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def khat_figure(finding: Finding) -> "Figure":
    """k-hat of each episode, and the log ratios of its median and its worst one."""
    figure, axes = canvas(1, 2, (9.5, 3.6))
    ax = axes[0, 0]
    for name, colour, label in (
        ("khat", TRUE, "memorised frames"),
        ("khat_predicted", MEAN, "predicted frames, as in the ELBO"),
    ):
        if name in finding.arrays:
            khat = finding.arrays[name].values
            ax.plot(np.arange(len(khat)), khat, "o", color=colour, markersize=5, label=label)
    ax.axhline(0.7, color="black", linewidth=0.8, linestyle="--")
    ax.annotate("0.7: above it, not to be trusted", (0, 0.7), (0, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel="episode", ylabel="Pareto k-hat of the path", yscale="symlog" if _highest(finding) > 5 else "linear")
    ax.set_ylim(min(-0.6, ax.get_ylim()[0]) if _highest(finding) <= 5 else -0.8, 1.3 * max(1.0, _highest(finding)))
    ax.legend(fontsize=8)
    khat, ratios = finding.arrays["khat"].values, finding.arrays["khat_log_ratio"].values
    order = np.argsort(khat)
    for colour, which, label in (
        (FLOOR, order[len(order) // 2], "median episode"),
        (PREDICTED, order[-1], "worst episode"),
    ):
        row = np.sort(ratios[which])[::-1] - ratios[which].max()
        axes[0, 1].plot(np.arange(1, len(row) + 1), row, color=colour, label=f"{label}, k-hat {khat[which]:.2f}")
    axes[0, 1].set(xscale="log", xlabel="draw of the path, best first", ylabel="log p - log q below the best (nats)")
    axes[0, 1].legend(fontsize=8)
    for ax in axes[0]:
        plain(ax)
    return figure


def _highest(finding: Finding) -> float:
    return max(float(finding.arrays[k].values.max()) for k in ("khat", "khat_predicted") if k in finding.arrays)


def coverage_figure(finding: Finding) -> "Figure":
    """Coverage by level; where truths fall in the guide's regions; how far misses are off."""
    level, memorised = finding.arrays["credible_level"].values, finding.arrays["memorised"].values
    figure, axes = canvas(1, 3, (12.5, 3.7))
    nominal = np.linspace(0, 1, 101)
    ax = axes[0, 0]
    for steps, colour, label in ((memorised, TRUE, "memorised steps"), (~memorised, PREDICTED, "predicted steps")):
        if steps.any():
            curve = np.searchsorted(np.sort(level[:, steps].ravel()), nominal, side="right") / level[:, steps].size
            ax.plot(nominal, curve, color=colour, label=label)
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="as it should be")
    ax.set(xlabel="level of the credible region", ylabel="share of true positions inside", aspect="equal")
    ax.legend(fontsize=8)
    axes[0, 1].hist(level[:, memorised].ravel(), bins=np.linspace(0, 1, 21), color=TRUE, density=True)
    axes[0, 1].axhline(1, color="black", linewidth=0.8, linestyle="--")
    axes[0, 1].set(xlabel="smallest region that holds the truth (memorised)", ylabel="density; last bar: missed by all")
    distance, radius = (finding.arrays[name].values[:, memorised].ravel() for name in ("distance", "radius_90"))
    missed = level[:, memorised].ravel() > 0.9
    positive = np.concatenate([distance, radius])
    positive = positive[positive > 0]
    bins = np.geomspace(max(positive.min(), 1e-4), max(positive.max(), 1e-3) * 1.01, 31)
    for values, colour, label in (
        (distance[~missed], FLOOR, "error where the 90% region holds the truth"),
        (distance[missed], PREDICTED, "error where it misses"),
    ):
        axes[0, 2].hist(np.clip(values, bins[0], None), bins=bins, color=colour, alpha=0.7, label=label)
    axes[0, 2].hist(
        np.clip(radius, bins[0], None), bins=bins, color="black", histtype="step", label="radius of the region"
    )
    axes[0, 2].set(xscale="log", xlabel="cells", ylabel="memorised steps")
    axes[0, 2].legend(fontsize=8)
    for ax in axes[0]:
        plain(ax)
    return figure


def unseen_figure(finding: Finding) -> "Figure":
    """Widths of intervals at visited and at unvisited places, and how often they hold the truth."""
    width, covered, visited = (finding.arrays[name].values for name in ("width", "covered", "visited"))
    figure, axes = canvas(1, 2, (9.5, 3.6))
    kinds = [("visited", visited, PREDICTED), ("never visited", ~visited, UNVISITED)]
    kinds = [kind for kind in kinds if kind[1].any()]
    bins = np.linspace(0, max(1e-3, float(width.max())), 41)
    for label, chosen, colour in kinds:
        axes[0, 0].hist(width[chosen], bins=bins, density=True, color=colour, alpha=0.7, label=label)
    axes[0, 0].set(
        xlabel="mean width of a frame's 90% intervals (pixels in [0, 1])", ylabel="density of predicted steps"
    )
    axes[0, 0].legend(fontsize=8)
    axes[0, 1].boxplot(
        [covered[chosen] for _, chosen, _ in kinds],
        tick_labels=[kind[0] for kind in kinds],
        whis=(5, 95),
        showfliers=False,
    )
    axes[0, 1].axhline(0.9, color="black", linewidth=0.8, linestyle="--")
    axes[0, 1].set(ylabel="share of a frame's pixels inside (dashed: 90%)", ylim=(-0.02, 1.02))
    for ax in axes[0]:
        plain(ax)
    return figure


def ppc_figure(finding: Finding) -> "Figure":
    """Test quantities, means over episodes: replicated as a histogram, observed as a line."""
    observed, replicated = (finding.arrays[name].values for name in ("observed", "replicated"))
    names = finding.arrays["quantities"].values
    figure, axes = canvas(1, len(names), (3.2 * len(names), 3.2))
    p = two_sided_p(observed.mean(0), replicated.mean(1))
    for i, (ax, name) in enumerate(zip(axes[0], names, strict=True)):
        ax.hist(replicated[..., i].mean(1), bins=20, color=PREDICTED, alpha=0.7, label="predicted")
        ax.axvline(observed[:, i].mean(), color=TRUE, linewidth=2, label="real")
        ax.set_title(f"{name.replace('_', ' ')}, p = {p[i]:.2g}", fontsize=10)
        ax.locator_params(axis="x", nbins=4)
        plain(ax)
    axes[0, 0].set_ylabel("replicates")
    axes[0, 0].legend(fontsize=8)
    return figure


def loo_pit_figure(finding: Finding) -> "Figure":
    """Histogram of LOO-PIT, and its distribution function against the uniform one with a 99% band."""
    pit = np.sort(finding.arrays["pit"].values)
    figure, axes = canvas(1, 2, (9.5, 3.6))
    bins = 20
    low, high = binomial_band(len(pit), bins, FALSE_ALARM_RATE)
    axes[0, 0].axhspan(low, high, color=MEAN, alpha=0.25, linewidth=0, label="99% of uniform ones")
    axes[0, 0].hist(pit, bins=np.linspace(0, 1, bins + 1), color=TRUE)
    axes[0, 0].set(xlabel="LOO-PIT of a pixel", ylabel="pixels")
    axes[0, 0].legend(fontsize=8)
    half = ecdf_band(len(pit), FALSE_ALARM_RATE)
    axes[0, 1].axhspan(-half, half, color=MEAN, alpha=0.25, linewidth=0)
    axes[0, 1].plot(pit, np.arange(1, len(pit) + 1) / len(pit) - pit, color=TRUE)
    axes[0, 1].set(xlabel="LOO-PIT of a pixel", ylabel="share below it minus itself", xlim=(0, 1))
    for ax in axes[0]:
        plain(ax)
    return figure


def sbc_figure(finding: Finding) -> "Figure":
    """Rank histograms of all quantities with a band of 99% for each."""
    ranks, p = finding.arrays["rank"].values, finding.arrays["p"].values
    names = finding.arrays["quantities"].values
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = canvas(rows, columns, (3 * columns, 2.5 * rows), sharey=True)
    low, high = binomial_band(ranks.shape[1], BINS, FALSE_ALARM_RATE)
    for ax, rank, value, name in zip(axes.flat, ranks, p, names, strict=False):
        ax.axhspan(low, high, color=MEAN, alpha=0.25, linewidth=0)
        edges = np.arange(BINS) * (NUM_DRAWS + 1) / BINS
        ax.bar(
            edges, rank_counts(rank, NUM_DRAWS + 1, BINS), width=edges[1], align="edge", color=TRUE, edgecolor="white"
        )
        ax.set_title(f"{name.replace('_', ' ')}, p = {value:.2g}", fontsize=9)
        plain(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("simulations")
    for ax in axes[-1]:
        ax.set_xlabel("rank of the truth")
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    return figure


FIGURES: dict[str, Callable[[Finding], Any]] = {
    "khat": khat_figure,
    "coverage": coverage_figure,
    "unseen": unseen_figure,
    "ppc": ppc_figure,
    "loo_pit": loo_pit_figure,
    "sbc": sbc_figure,
}
