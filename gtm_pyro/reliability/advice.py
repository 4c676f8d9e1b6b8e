"""What the numbers of each check mean, in one plain sentence each: every threshold and every sentence is here."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

Numbers = Mapping[str, float]

# how the names of a check's numbers begin
PREFIXES = {
    "khat": "khat",
    "coverage": "coverage",
    "unseen": "interval",
    "ppc": "ppc",
    "loo_pit": "loo_pit",
    "sbc": "sbc",
}

GOOD_KHAT, POOR_KHAT = 0.7, 1.0  # Vehtari et al. 2024
ALARM = 0.01  # p-values below it speak: the false-alarm rate of a test; of each of the four of ppc it is twice that
COVERAGE = (0.85, 0.95)  # of a 90% region
NARROW, SAME_WIDTH = 0.8, 1.5  # coverage of a 90% interval; ratio of widths


class Rule(NamedTuple):
    """The first rule of a check that applies gives its sentence, a format string over the check's numbers."""

    check: str
    applies: Callable[[Numbers], bool]
    sentence: str


def _ppc_worst(n: Numbers) -> str:
    return min((name for name in n if name.startswith("ppc_p_")), key=lambda name: n[name])


RULES = (
    Rule(
        "khat",
        lambda n: n["khat_median"] > POOR_KHAT,
        "k-hat {khat_median:.1f} (worst {khat_max:.1f}): the guide misses where the frames say that the agent "
        "was, in most "
        "episodes; unless it is one of them, try Smoothing, which lets a later loop correct the earlier path, or "
        "ParticleGuide.",
    ),
    Rule(
        "khat",
        lambda n: n["khat_max"] > GOOD_KHAT,
        "k-hat {khat_median:.1f}, but {khat_max:.1f} in the worst episode: the guide is too narrow for some "
        "episodes, those "
        "with loops as a rule; try Smoothing unless it is that, and look at figures/khat.png for which.",
    ),
    Rule(
        "khat",
        lambda n: True,
        "k-hat {khat_median:.1f} (worst {khat_max:.1f}): the guide's paths can be trusted, and so can its ELBO.",
    ),
    Rule(
        "coverage",
        lambda n: n["coverage_90"] < COVERAGE[0],
        "90% regions hold the true position in {coverage_90:.0%} of the memorised steps: the guide is too sure; "
        "its misses "
        "are off by {coverage_miss_distance:.2g} cells (median), its regions are of radius {coverage_radius:.2g}; try "
        "LandmarkCorrected or Smoothing.",
    ),
    Rule(
        "coverage",
        lambda n: n["coverage_90"] > COVERAGE[1],
        "90% regions hold the true position in {coverage_90:.0%} of the memorised steps: the guide is less sure "
        "than it "
        "could be, by regions of {coverage_radius:.2g} cells; positions are safe to use.",
    ),
    Rule(
        "coverage",
        lambda n: True,
        "90% regions hold the true position in {coverage_90:.0%} of the memorised steps: their width can be believed.",
    ),
    Rule(
        "unseen",
        lambda n: n["interval_coverage_unvisited"] < NARROW,
        "90% intervals hold {interval_coverage_unvisited:.0%} of the pixels at places never visited and are "
        "{interval_width_ratio:.1f} times as wide there: the model believes to know what it has not seen; give "
        "its prior a "
        "background component for places far from every memory.",
    ),
    Rule(
        "unseen",
        lambda n: n["interval_coverage_visited"] < NARROW,
        "90% intervals hold only {interval_coverage_visited:.0%} of the pixels at visited places: positions drift "
        "in the "
        "prediction, or the decoder's noise scale is too small.",
    ),
    Rule(
        "unseen",
        lambda n: n["interval_width_ratio"] < SAME_WIDTH,
        "Intervals at places never visited are {interval_width_ratio:.1f} times as wide as at visited ones: they "
        "hold the "
        "truth, but do not tell the known from the unknown; a smaller decoder noise scale would.",
    ),
    Rule(
        "unseen",
        lambda n: True,
        "90% intervals hold {interval_coverage_visited:.0%} of the pixels at visited places and "
        "{interval_coverage_unvisited:.0%} at others, where they are {interval_width_ratio:.1f} times as wide: "
        "the model "
        "knows what it has not seen.",
    ),
    Rule(
        "ppc",
        lambda n: n[_ppc_worst(n)] < 2 * ALARM + 1e-9 and n["ppc_p_neighbour_difference"] < 2 * ALARM + 1e-9,
        "Predicted frames do not have the grain of real ones (neighbouring pixels differ by "
        "{ppc_replicated_neighbour_difference:.2g}, really by {ppc_observed_neighbour_difference:.2g}): the "
        "decoder's noise "
        "scale does not fit, set it or learn it.",
    ),
    Rule(
        "ppc",
        lambda n: n[_ppc_worst(n)] < 2 * ALARM + 1e-9,
        "Predicted frames differ from real ones in a test quantity (p = {ppc_worst:.2g}): look at figures/ppc.png "
        "for which.",
    ),
    Rule(
        "ppc", lambda n: True, "Predicted frames look like real ones in every test quantity (least p {ppc_worst:.2g})."
    ),
    Rule(
        "loo_pit",
        lambda n: n["loo_pit_ks_p"] < ALARM and n["loo_pit_outer_share"] < 0.1,
        "Pixels fall in the outer tenth of their prediction in {loo_pit_outer_share:.0%} of the cases: the spread "
        "of p(x | z) "
        "is too wide; lower model.decoder.scale, or learn it.",
    ),
    Rule(
        "loo_pit",
        lambda n: n["loo_pit_ks_p"] < ALARM,
        "Pixels fall in the outer tenth of their prediction in {loo_pit_outer_share:.0%} of the cases: the spread "
        "of p(x | z) "
        "is too narrow or its mean off; train longer, raise model.decoder.scale, or learn it.",
    ),
    Rule("loo_pit", lambda n: True, "Pixels are spread as p(x | z) says (p = {loo_pit_ks_p:.2g})."),
    Rule(
        "sbc",
        lambda n: n["sbc_p_path"] < ALARM,
        "On simulated episodes the guide's positions are not calibrated (p = {sbc_p_path:.1g}): it is biased or "
        "too sure; "
        "figures/sbc.png shows how.",
    ),
    Rule(
        "sbc",
        lambda n: n["sbc_p_frames_given_path"] < ALARM,
        "On simulated episodes the true path explains the frames {explains} than the guide's draws do (p = "
        "{sbc_p_frames_given_path:.1g}): the guide does not use what the frames say; try LandmarkCorrected or "
        "Smoothing.",
    ),
    Rule(
        "sbc",
        lambda n: n["sbc_p_log_joint"] < ALARM,
        "On simulated episodes the path is calibrated, the joint with z is not (p = {sbc_p_log_joint:.1g}): the "
        "encoder's "
        "q(z | x) is not the posterior of the decoder; train longer.",
    ),
    Rule("sbc", lambda n: True, "On simulated episodes the guide is calibrated (least p, corrected: {sbc_p_min:.2g})."),
)


def of_check(check: str, numbers: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers of one check among all those of evaluation.json, without those that are not defined."""
    prefix = f"{PREFIXES[check]}_"
    return {k: v for k, v in numbers.items() if k.startswith(prefix) and v is not None and math.isfinite(v)}


def advise(check: str, numbers: Mapping[str, float | None]) -> str:
    """The sentence for a check.

    :param numbers: at least its own; those that are not defined may be missing, None or NaN.
    """
    known: dict[str, object] = {**of_check(check, numbers)}
    own = of_check(check, numbers)
    if check == "ppc" and own:
        known["ppc_worst"] = own[_ppc_worst(own)]
    if check == "sbc" and own:
        known["explains"] = "better" if own["sbc_mean_rank_frames_given_path"] > 0.5 else "worse"
    for rule in RULES:
        try:
            if rule.check == check and rule.applies(own):
                return rule.sentence.format_map(known)
        except KeyError:  # a number that is not defined, of unvisited places where all are visited for instance
            continue
    return "Some of its numbers are not defined on these episodes."
