"""What a report says of the checks of a posterior, in words for a reader who has not seen the code."""

from gtm_pyro.tasks.base import Caption

CHECKS = {
    "khat": Caption(
        "khat.png",
        "Is the guide's path a good proposal?",
        "Pareto k-hat of the path: below 0.7, importance sampling from the guide would find the posterior. Left: each "
        "episode, over the memorised frames alone (each scored against all earlier ones) and over the predicted "
        "ones as in the ELBO. Right: how far the log ratios of posterior to guide lie below the best draw's; "
        "draws that lie many nats below it have no weight, and where most do, k-hat is high.",
    ),
    "coverage": Caption(
        "coverage.png",
        "Do credible regions hold the true position?",
        "Left: share of true positions inside the guide's regions, by their level; below the dashed line the guide is "
        "too sure. Middle: the smallest region that holds the truth, even if regions can be believed; the last bar are "
        "positions outside the 95% region. Right: how far the guide's mean is off, where its 90% region holds the "
        "truth and where it misses, and how large that region is.",
    ),
    "unseen": Caption(
        "unseen.png",
        "Is it unsure of places never visited?",
        "Left: width of the central 90% predictive intervals of pixels, averaged over each frame. Right: share of a "
        "frame's pixels inside them (box: middle half of the frames; whiskers: 5% to 95%). Pixels of a frame share its "
        "path, so that shares vary from frame to frame; it is their mean that should be 90%.",
    ),
    "ppc": Caption(
        "ppc.png",
        "Do predicted frames look like real ones?",
        "Four quantities of the predicted frames, averaged over episodes: in 99 replicates drawn from the model, "
        "with the decoder's noise (histogram), and in the true frames (line). Contrast: standard deviation of the "
        "pixels of a frame; neighbour difference: between pixels side by side; memory error: squared difference from "
        "the most similar memorised frame. p is corrected for there being four; 0.01 is the least that it can be.",
    ),
    "pit": Caption(
        "pit.png",
        "Is the decoder's noise that of the frames?",
        "Where true pixels fall in p(x | z), z drawn by the guide for their frame: the share of drawn pixels that are "
        "darker. A hill: the predicted spread is too wide; a valley: too narrow; a slope: pixels are brighter or "
        "darker than predicted. Grey: 99% of exact guides and models leave it nowhere, in neither panel.",
    ),
    "sbc": Caption(
        "sbc.png",
        "Is the guide right on the model's own episodes?",
        "Episodes drawn from the model itself, whose true states are known: the rank of the truth among 31 draws "
        "of the guide, for coordinates of the state, for how well a path explains the frames, and for the joint "
        "density with z. Flat for an exact guide. Of coordinates, a valley: too sure; a hill: not sure enough; a "
        "slope: biased. Of the two others, a slope: the truth explains more, or less, than draws do. Grey: 99% of "
        "exact guides leave it in no panel.",
    ),
}


def percent(share: float) -> str:
    """A share in words; 99.997 % does not read as 100 %."""
    if share == 1 or share < 0.99:
        return f"{100 * share:.3g} %"
    return f"{min(100 * share, 99.99):.2f} %" if share < 1 else f"{100 * share:.4g} %"
