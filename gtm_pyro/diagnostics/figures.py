"""One figure for each check."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gtm_pyro.diagnostics.advice import ALARM, GOOD_KHAT
from gtm_pyro.diagnostics.calibration import BINS, NUM_DRAWS
from gtm_pyro.diagnostics.findings import Finding
from gtm_pyro.diagnostics.pit import BARS, TESTS
from gtm_pyro.diagnostics.uniformity import adjusted_p, binomial_band, ecdf_band, rank_counts
from gtm_pyro.evaluation.style import FLOOR, MEAN, PREDICTED, TRUE, UNVISITED, canvas, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def khat_figure(finding: Finding) -> "Figure":
    """k-hat of each episode, and the log ratios of its median and its worst one."""
    figure, axes = canvas(1, 2, (9.5, 3.6))
    ax = axes[0, 0]
    kinds = {"khat": (TRUE, "memorised frames"), "khat_predicted": (MEAN, "predicted frames, as in the ELBO")}
    kinds = {name: words for name, words in kinds.items() if name in finding.arrays}
    every = np.concatenate([finding.arrays[name].values for name in kinds])
    finite = every[np.isfinite(every)]
    low, high = min(-0.2, *finite), max(1.0, *finite)
    wide = high > 5
    top = 2 * high if wide else 1.15 * high
    for name, (colour, label) in kinds.items():
        khat = finding.arrays[name].values
        ax.plot(np.arange(1, len(khat) + 1), khat, "o", color=colour, markersize=5, label=label)
        beyond = np.flatnonzero(~np.isfinite(khat)) + 1
        ax.plot(beyond, np.full(len(beyond), top), "^", color=colour, markersize=8, clip_on=False)
    if len(finite) < len(every):
        ax.plot([], [], "^", color="black", label="beyond any number")
    ax.axhline(GOOD_KHAT, color="black", linewidth=0.8, linestyle="--", label="0.7: above it, not to be trusted")
    ax.set(xlabel="episode", ylabel="Pareto k-hat of the path", yscale="symlog" if wide else "linear")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylim(low - 0.15 * (1 if wide else high - low), top)
    ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    khat, ratios = finding.arrays["khat"].values, finding.arrays["khat_log_ratio"].values
    order = np.argsort(khat)
    shown = [
        (FLOOR, "-", khat, ratios, order[len(order) // 2], "median episode"),
        (PREDICTED, "-", khat, ratios, order[-1], "worst episode"),
    ]
    if "khat_predicted" in finding.arrays:
        of_elbo = finding.arrays["khat_predicted"].values
        elbo_ratios = finding.arrays["khat_predicted_log_ratio"].values
        shown.append((MEAN, "--", of_elbo, elbo_ratios, of_elbo.argmax(), "worst, predicted frames"))
    for colour, line, values, rows, which, label in shown:
        row = np.sort(rows[which])[::-1] - rows[which].max()
        axes[0, 1].plot(np.arange(1, len(row) + 1), row, line, color=colour, label=f"{label}: {values[which]:.2f}")
    axes[0, 1].set(xscale="log", xlabel="draw of the path, best first", ylabel="log ratio below the best (nats)")
    axes[0, 1].legend(fontsize=8, title="k-hat", title_fontsize=8)
    for ax in axes[0]:
        plain(ax)
    return figure


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
    axes[0, 1].set(xlabel="level of the smallest region that holds the truth", ylabel="density (memorised steps)")
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
    unit = finding.arrays["unit"].values[0]
    axes[0, 2].set(xscale="log", xlabel=f"error, or radius ({unit})", ylabel="memorised steps")
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
    p = adjusted_p(observed.mean(0), replicated.mean(1))
    for i, (ax, name) in enumerate(zip(axes[0], names, strict=True)):
        ax.hist(replicated[..., i].mean(1), bins=20, color=PREDICTED, alpha=0.7, label="predicted")
        ax.axvline(observed[:, i].mean(), color=TRUE, linewidth=2, label="real")
        ax.set_title(f"{name.replace('_', ' ')}, p = {p[i]:.2g}", fontsize=10)
        ax.locator_params(axis="x", nbins=4)
        ax.set_xlabel(_UNITS[str(name)], fontsize=9)
        plain(ax)
    axes[0, 0].set_ylabel("replicates")
    axes[0, 0].legend(fontsize=8)
    return figure


def pit_figure(finding: Finding) -> "Figure":
    """Histogram of PIT, and its distribution function against the uniform one, with bands for both at once."""
    pit = np.sort(finding.arrays["pit"].values, axis=None)
    figure, axes = canvas(1, 2, (9.5, 3.6))
    rate = ALARM / TESTS
    low, high = binomial_band(len(pit), BARS, rate)
    axes[0, 0].axhspan(low, high, color=MEAN, alpha=0.25, linewidth=0, label="where exact ones are")
    axes[0, 0].hist(pit, bins=np.linspace(0, 1, BARS + 1), color=TRUE)
    axes[0, 0].set(xlabel="where a pixel lies in p(x | z)", ylabel="pixels")
    axes[0, 0].legend(fontsize=8)
    half = ecdf_band(len(pit), rate)
    axes[0, 1].axhspan(-half, half, color=MEAN, alpha=0.25, linewidth=0)
    axes[0, 1].plot(pit, np.arange(1, len(pit) + 1) / len(pit) - pit, color=TRUE)
    axes[0, 1].set(xlabel="where a pixel lies in p(x | z)", ylabel="share of pixels below, less expected", xlim=(0, 1))
    for ax in axes[0]:
        plain(ax)
    return figure


def sbc_figure(finding: Finding) -> "Figure":
    """Rank histograms of all quantities, with bands that 99% of exact guides do not leave anywhere."""
    ranks, p = finding.arrays["rank"].values, finding.arrays["p"].values
    names = finding.arrays["quantities"].values
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = canvas(rows, columns, (3 * columns, 2.5 * rows), sharey=True)
    for ax, rank, value, name in zip(axes.flat, ranks, p, names, strict=False):
        # a third each for the path, the frames and the joint; a half for bars; of the path, a third for coordinates
        rate = ALARM / 6 / (3 * (len(names) - 2) if name in names[:-2] else 1)
        low, high = binomial_band(ranks.shape[1], BINS, rate)
        ax.axhspan(low, high, color=MEAN, alpha=0.25, linewidth=0)
        edges = np.arange(BINS) * (NUM_DRAWS + 1) / BINS
        ax.bar(
            edges, rank_counts(rank, NUM_DRAWS + 1, BINS), width=edges[1], align="edge", color=TRUE, edgecolor="white"
        )
        ax.set_title(f"{_quantity(str(name))}, p = {value:.2g}", fontsize=9)
        plain(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("simulations")
    for ax in axes[-1]:
        ax.set_xlabel(f"rank of the truth among {NUM_DRAWS} draws")
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    return figure


def _quantity(name: str) -> str:
    """What a quantity of ``sbc`` is called."""
    if name.startswith("s_"):
        step, _, dimension = name[2:].rstrip("]").partition("[")
        return f"state {dimension} at step {step}"
    return {"frames_given_path": "frames, given the path", "log_joint": "joint density with z"}[name]


# of the four quantities of ppc, of pixels in [0, 1]
_UNITS = {
    "mean": "mean pixel",
    "contrast": "standard deviation of pixels",
    "neighbour_difference": "difference of pixels",
    "memory_error": "squared difference of pixels",
}

FIGURES: dict[str, Callable[[Finding], Any]] = {
    "khat": khat_figure,
    "coverage": coverage_figure,
    "unseen": unseen_figure,
    "ppc": ppc_figure,
    "pit": pit_figure,
    "sbc": sbc_figure,
}
