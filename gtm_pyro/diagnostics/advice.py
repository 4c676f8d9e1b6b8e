"""What the numbers of each check mean, in one plain sentence each: every threshold and every sentence is here.

A sentence follows from all numbers that it names. Its alarms are raised at a joint rate of ``ALARM`` for each check:
where model and guide are exact, in at most 1% of the cases. Where nothing speaks against them but the numbers are too
uncertain to speak for them, that is what it says.
"""

import math
from collections.abc import Callable, Mapping

Numbers = Mapping[str, float]

# how the names of a check's numbers begin
PREFIXES = {
    "khat": "khat",
    "coverage": "coverage",
    "unseen": "interval",
    "ppc": "ppc",
    "pit": "pit",
    "sbc": "sbc",
}

ALARM = 0.01  # the false-alarm rate of a check: its smallest p-value, corrected for their number, is below it
GOOD_KHAT = 0.7  # Vehtari et al. 2024
SMALL_GAP = 0.1  # nats
NEAR, FAR, UNSURE = 0.02, 0.05, 0.03  # of shares: as good as right; not to be called right; standard error
SAME_WIDTH = 1.5  # ratio of widths
LITTLE = 0.01  # of the outer share
_ROUNDING = 1e-9

_WIDER = {
    "DeadReckoning": "try LandmarkCorrected or Smoothing, which look where the frames say that the agent was",
    "LandmarkCorrected": "try Smoothing, which lets a later loop correct the earlier path, or ParticleGuide",
    "Smoothing": "try ParticleGuide, which keeps several explanations",
    "ParticleGuide": "give it more hypotheses (guide.num_hypotheses), or train longer",
}


def of_check(check: str, numbers: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers of one check among all those of evaluation.json, without those that are not defined."""
    prefix = f"{PREFIXES[check]}_"
    return {k: v for k, v in numbers.items() if k.startswith(prefix) and v is not None and math.isfinite(v)}


def advise(check: str, numbers: Mapping[str, float | None], guide: str = "") -> str:
    """The sentence for a check.

    :param numbers: at least its own; those that are not defined may be missing, None or NaN.
    :param guide: the class of the guide that they are of, which is then not advised.
    """
    try:
        return _SENTENCES[check](of_check(check, numbers), guide)
    except KeyError:
        return "Some of its numbers are missing, or not defined on these episodes."


def _khats(n: Numbers, name: str) -> str:
    # what is infinite is not among the numbers
    median, worst = (f"{max(n[k], 0):.1f}" if k in n else "infinite" for k in (f"{name}_median", f"{name}_max"))
    return f"{median} (worst {worst}"


def _khat(n: Numbers, guide: str) -> str:
    """No test: an exact guide has k-hat 0."""
    said = f"k-hat {_khats(n, 'khat')}, each ± {n['khat_standard_error']:.1f})"
    share = n["khat_share_above_0.7"]
    if share > 0:
        where = "most" if share > 0.5 else _percent(share) + " of the"
        said += (
            f", above 0.7 in {where} episodes: most of the guide's paths are not where the frames say that the agent "
            f"was; {_wider(guide)}"
        )
    elif n["khat_gap"] > SMALL_GAP:
        said += (
            f": the guide is {n['khat_gap']:.2g} nats an episode off the posterior, which importance weights can make "
            f"good; its own paths are not the posterior's"
        )
    else:
        gap = max(n["khat_gap"], 0)
        said += f": the guide's paths are the model's own posterior, to within {gap:.1g} nats an episode"
    if "khat_predicted_share_above_0.7" not in n:
        return said + "."
    of_elbo = n["khat_predicted_share_above_0.7"]
    said += f". Over the predicted frames, as in the ELBO, {_khats(n, 'khat_predicted')}): "
    if of_elbo > 0:
        return f"{said}above 0.7 in {_percent(of_elbo)} of the episodes, where bounds say little of the evidence."
    return said + f"the ELBO can be trusted to within {max(n['khat_predicted_gap'], 0):.1g} nats."


def _coverage(n: Numbers, guide: str) -> str:
    unit = "radians" if n["coverage_of_headings"] else "cells"
    held = f"90% regions hold the true position in {_share(n, 'coverage_90')} of the memorised steps"
    parts = {"": "the memorised steps"}
    if "coverage_90_predicted" in n:
        held += f" and {_share(n, 'coverage_90', '_predicted')} of the predicted ones"
        parts["_predicted"] = "the predicted steps"
    off = {part: _furthest_level(n, part) for part in parts}
    alarms = [p for p in parts if n[f"coverage_p{p}"] <= ALARM + _ROUNDING and abs(off[p][1] - off[p][0]) > NEAR]
    if not alarms:
        sure = [part for part in parts if _sure(n, "coverage_90", part, 0.9)]
        if not sure:
            return f"{held}: too few episodes to tell more."
        unsure = [steps for part, steps in parts.items() if part not in sure]
        rest = f"; too few episodes to tell of {unsure[0]}." if unsure else "."
        return f"{held}: their width can be believed{rest}"
    part = alarms[0]
    level, share = off[part]
    p = _p(n[f"coverage_p{part}"], n["coverage_draws"])
    held += f", {level:.0%} regions in {_percent(share)} of {parts[part]} ({p})"
    if share > level:
        rest = "" if part else f", by regions of {n['coverage_radius']:.2g} {unit}; positions are safe to use"
        return f"{held}: the guide is less sure there than it could be{rest}."
    if part:
        return held + ": paths stray more than model.transition.scale says, or start from too sure a guide."
    return (
        f"{held}: the guide is too sure; its misses are off by {n['coverage_miss_distance']:.2g} {unit} (median), its "
        f"regions are of radius {n['coverage_radius']:.2g}, and {_percent(n['coverage_beyond_all_draws'])} of the "
        f"positions lie beyond all draws; {_wider(guide)}."
    )


def _unseen(n: Numbers, guide: str) -> str:
    kinds = {
        kind: place
        for kind, place in (("visited", "visited places"), ("unvisited", "places never visited"))
        if f"interval_coverage_{kind}" in n
    }
    held = " and ".join(
        f"{_share(n, 'interval_coverage', f'_{kind}')} of the pixels at {place}" for kind, place in kinds.items()
    )
    held = f"90% intervals hold {held}"
    if len(kinds) == 2:
        held += f", where they are {n['interval_width_ratio']:.1f} times as wide"
    off = {kind: n[f"interval_coverage_{kind}"] - 0.9 for kind in kinds}
    p = {kind: n[f"interval_coverage_p_{kind}"] for kind in kinds}
    alarms = {kind: off[kind] for kind in kinds if p[kind] <= ALARM + _ROUNDING and abs(off[kind]) > NEAR}
    if alarms:
        held += f" ({_p(min(p.values()), n['interval_replicates'])})"
    if alarms.get("unvisited", 0) < 0:
        return (
            f"{held}: the model believes to know what it has not seen; give its prior a background component for "
            "places far from every memory."
        )
    if alarms.get("visited", 0) < 0:
        return f"{held}: positions drift in the prediction, or the decoder's noise scale is too small."
    if alarms:
        places = " and ".join(kinds[kind] for kind in alarms)
        return f"{held}: wider at {places} than they need to be; the prior or the decoder's noise scale is too wide."
    if not all(_sure(n, "interval_coverage", f"_{kind}", 0.9) for kind in kinds):
        return f"{held}: too few episodes to tell more."
    if len(kinds) < 2:
        return f"{held}: as they should; what it knows of other places cannot be told."
    if n["interval_width_ratio"] < SAME_WIDTH:
        return (
            f"{held}: they hold the truth, but do not tell the known from the unknown, unless all is known alike; a "
            "smaller decoder noise scale might."
        )
    return f"{held}: the model knows what it has not seen."


def _ppc(n: Numbers, guide: str) -> str:
    names = [name.removeprefix("ppc_p_") for name in n if name.startswith("ppc_p_")]
    least = f"{_p(n['ppc_p'], n['ppc_replicates'])}, corrected for {len(names)} quantities"
    off = [name for name in names if n[f"ppc_p_{name}"] <= ALARM + _ROUNDING]
    if not off:
        return f"Predicted frames look like real ones in every test quantity (least {least})."
    shown = ", ".join(
        f"{name.replace('_', ' ')} {n[f'ppc_replicated_{name}']:.3g}, really {n[f'ppc_observed_{name}']:.3g}"
        for name in off
    )
    said = f"Predicted frames differ from real ones: {shown} ({least})"
    if "neighbour_difference" not in off:
        return f"{said}: figures/ppc.png shows by how much."
    more = n["ppc_replicated_neighbour_difference"] > n["ppc_observed_neighbour_difference"]
    if more:
        return (
            f"{said}: they are grainier than real ones; the decoder's noise scale is larger than what differs from "
            "pixel to pixel. Where residuals are larger still (check pit), frames are off as wholes: train longer."
        )
    return (
        f"{said}: they are smoother than real ones; the decoder's noise scale is too small, or its frames are too "
        "blurred: set it or learn it."
    )


def _pit(n: Numbers, guide: str) -> str:
    outer, mean, number = n["pit_outer_share"], n["pit_mean"], n["pit_pixels"]
    error = (0.09 / number) ** 0.5
    said = (
        f"Of {number:.0f} pixels, {_percent(outer)} (± {100 * error:.1g}%) fall in the outer tenth of p(x | z), and "
        f"they lie at {mean:.3f} of it on average ({_p(n['pit_p'])} for all that figures/pit.png shows)"
    )
    if n["pit_p"] >= ALARM:
        return f"{said}: pixels are spread as p(x | z) says, as far as so many pixels tell."
    # in standard errors
    tilt, spread = (mean - 0.5) * (12 * number) ** 0.5, (outer - 0.1) / error
    ratio = n["pit_noise_ratio"]
    if abs(tilt) > abs(spread):
        return f"{said}: pixels are {'brighter' if tilt > 0 else 'darker'} than predicted; train longer."
    little = ", by little" if abs(outer - 0.1) < LITTLE else ""
    if spread > 0:
        return (
            f"{said}: the spread of p(x | z) is too narrow or its mean off{little} (residuals are "
            f"{ratio:.2f} times what it says); train longer, then raise model.decoder.scale, or learn it."
        )
    return (
        f"{said}: the spread of p(x | z) is too wide{little} (residuals are {ratio:.2f} times what it says); lower "
        "model.decoder.scale, or learn it."
    )


def _sbc(n: Numbers, guide: str) -> str:
    p = {part: n[f"sbc_p_{part}"] for part in ("path", "frames_given_path", "log_joint")}
    said = (
        f"On {n['sbc_simulations']:.0f} simulated episodes: positions {_p(p['path'])}, frames given the path "
        f"{_p(p['frames_given_path'])}, joint with z {_p(p['log_joint'])}"
    )
    off = [part for part, value in p.items() if value < ALARM / len(p)]
    if not off:
        return f"{said}: the guide is calibrated, as far as so many episodes tell."
    found = []
    if "path" in off:
        how = "too sure" if n["sbc_spread"] > 1 else "less sure than they could be"
        if min(n["sbc_spread_p"], n["sbc_shift_p"]) > ALARM:
            how = "of another shape"
        elif n["sbc_shift_p"] < n["sbc_spread_p"]:
            how = "biased"
        found.append(f"the guide's positions are not calibrated, but {how}")
    if "frames_given_path" in off:
        better = n["sbc_mean_rank_frames_given_path"] > 0.5
        found.append(
            f"the true path explains the frames {'better' if better else 'worse'} than the guide's draws do"
            + ("" if "path" in off or not better else f": it does not use all that the frames say; {_wider(guide)}")
        )
    if "log_joint" in off:
        more = "more" if n["sbc_mean_rank_log_joint"] > 0.5 else "less"
        why = ": q(z | x) is not the posterior of the decoder, or paths are off as a whole; train longer"
        found.append(f"the joint with z is off, the truth {more} probable than draws" + ("" if off[:-1] else why))
    return f"{said}: {'; '.join(found)}."


_SENTENCES: dict[str, Callable[[Numbers, str], str]] = {
    "khat": _khat,
    "coverage": _coverage,
    "unseen": _unseen,
    "ppc": _ppc,
    "pit": _pit,
    "sbc": _sbc,
}


def _wider(guide: str) -> str:
    return _WIDER.get(guide, "compare it with Smoothing or ParticleGuide")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _p(value: float, replicates: float = math.inf) -> str:
    """A p-value, and whether it is the least that a rank among replicates can give."""
    if value <= 1 / (replicates + 1) + _ROUNDING and replicates < math.inf:
        return f"p = {value:.2g}, the least that {replicates:.0f} draws can give"
    return f"p = {value:.2g}" if value > 0 else "p < 1e-300"


def _share(n: Numbers, name: str, part: str = "") -> str:
    """A share, with its standard error where there is one."""
    error = n.get(f"{name}_standard_error{part}")
    return _percent(n[f"{name}{part}"]) + ("" if error is None else f" (± {100 * error:.2g}%)")


def _sure(n: Numbers, name: str, part: str, expected: float) -> bool:
    """Whether a share is known to be near what it should be."""
    return n.get(f"{name}_standard_error{part}", 1.0) <= UNSURE and abs(n[f"{name}{part}"] - expected) <= FAR


def _furthest_level(n: Numbers, part: str) -> tuple[float, float]:
    """The level whose coverage is furthest off, and that coverage."""
    levels = [int(words[1]) for name in n if (words := name.split("_"))[1].isdigit() and len(words) == 2]
    return max(((x / 100, n[f"coverage_{x}{part}"]) for x in levels), key=lambda pair: abs(pair[1] - pair[0]))
