"""What a report says about figures and measures, in words for a reader who has not seen the code."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A figure of the run folder: its file's name, its heading, and what a reader sees in it."""

    file: str
    title: str
    caption: str


FIGURES = (
    Figure(
        "rollout.gif",
        "A rollout",
        "One held-out episode after memorisation. The model sees actions only. Left: where the agent is (blue, "
        "with its crop) and where the model believes it to be (orange, inside the blue dot where both agree). "
        "Right: what the agent sees and what the model predicts.",
    ),
    Figure(
        "frames.png",
        "Frames at growing horizons",
        "True and predicted frames of two episodes, 1, 2, 4, ... steps after the last memorised frame, up to "
        "the last step. Third row: the true frame encoded and decoded, the best that this decoder can do. A "
        "pink border marks a place that was not visited during memorisation, where the model cannot know what "
        "it will see.",
    ),
    Figure(
        "horizon.png",
        "Error by horizon",
        "Left: squared error a pixel between the trivial predictor (the mean memorised frame) and the floor "
        "(the decoder's own error). Middle: share of visited steps at which the memory entry with the largest "
        "weight was written in the right place. Right: error of the inferred position. Thin: each step; bold: "
        "a running mean over 9.",
    ),
    Figure(
        "walk.png",
        "The walk",
        "Where the agent really went, on the image it walked on. Positions are spread a little, so that "
        "several passes through one cell can be told apart.",
    ),
    Figure(
        "states.png",
        "Inferred positions",
        "The same episode. The model's space has no given axes or unit: its states are shown as they are and "
        "after the best affine and the best similarity fit to the true positions, one fit for all episodes.",
    ),
    Figure(
        "transition.png",
        "The learnt dynamics",
        "Left: what each action adds to the state; middle: the same in cells. Right: the wall gate, the share "
        "of a move that is carried out, by the place where the move would lead. White dots: places where "
        "agents were; white line: a gate of one half.",
    ),
    Figure(
        "training.png",
        "Training",
        "Nats a frame. Dashed lines mark a new stage of the curriculum, whose episodes may be longer and "
        "harder; grey lines are attempts that were given up as stuck.",
    ),
)


CHECKS = {
    "khat": Figure(
        "khat.png",
        "Is the guide's path a good proposal?",
        "Pareto k-hat of the path: below 0.7, importance sampling from the guide would find the posterior. Left: each "
        "episode, over the memorised frames alone (each scored against all earlier ones) and over the predicted "
        "ones as in the ELBO. Right: how far the log ratios of posterior to guide lie below the best draw's; "
        "draws that lie many nats below it have no weight, and where most do, k-hat is high.",
    ),
    "coverage": Figure(
        "coverage.png",
        "Do credible regions hold the true position?",
        "Left: share of true positions inside the guide's regions, by their level; below the dashed line the guide is "
        "too sure. Middle: the smallest region that holds the truth, even if regions can be believed; the last bar are "
        "positions outside the 95% region. Right: how far the guide's mean is off, where its 90% region holds the "
        "truth and where it misses, and how large that region is.",
    ),
    "unseen": Figure(
        "unseen.png",
        "Is it unsure of places never visited?",
        "Left: width of the central 90% predictive intervals of pixels, averaged over each frame. Right: share of a "
        "frame's pixels inside them (box: middle half of the frames; whiskers: 5% to 95%). Pixels of a frame share its "
        "path, so that shares vary from frame to frame; it is their mean that should be 90%.",
    ),
    "ppc": Figure(
        "ppc.png",
        "Do predicted frames look like real ones?",
        "Four quantities of the predicted frames, averaged over episodes: in 99 replicates drawn from the model, "
        "with the decoder's noise (histogram), and in the true frames (line). Contrast: standard deviation of the "
        "pixels of a frame; neighbour difference: between pixels side by side; memory error: squared difference from "
        "the most similar memorised frame. p is corrected for there being four; 0.01 is the least that it can be.",
    ),
    "pit": Figure(
        "pit.png",
        "Is the decoder's noise that of the frames?",
        "Where true pixels fall in p(x | z), z drawn by the guide for their frame: the share of drawn pixels that are "
        "darker. A hill: the predicted spread is too wide; a valley: too narrow; a slope: pixels are brighter or "
        "darker than predicted. Grey: 99% of exact guides and models leave it nowhere, in neither panel.",
    ),
    "sbc": Figure(
        "sbc.png",
        "Is the guide right on the model's own episodes?",
        "Episodes drawn from the model itself, whose true states are known: the rank of the truth among 31 draws "
        "of the guide, for coordinates of the state, for how well a path explains the frames, and for the joint "
        "density with z. Flat for an exact guide. Of coordinates, a valley: too sure; a hill: not sure enough; a "
        "slope: biased. Of the two others, a slope: the truth explains more, or less, than draws do. Grey: 99% of "
        "exact guides leave it in no panel.",
    ),
}


class Measure(NamedTuple):
    """A number of evaluation.json: its name there, a label, and what it means."""

    name: str
    label: str
    meaning: str


MEASURES = (
    Measure(
        "retrieval_accuracy",
        "right place retrieved",
        "share of steps at a visited place whose memory entry was written there",
    ),
    Measure(
        "retrieval_accuracy_last_32",
        "... over the last 32 steps",
        "the same, at the far end of the prediction",
    ),
    Measure(
        "visited_share",
        "steps at visited places",
        "share of predicted steps at a place seen during memorisation",
    ),
    Measure(
        "cell_size",
        "size of a cell (pose units)",
        "poses in one cell are one place: evaluation.cell_size, or what the data says, or read off the poses",
    ),
    Measure("mse", "error of predicted frames", "squared error a pixel over all predicted steps"),
    Measure(
        "mse_drift", "... late over early", "the same over the last 50 steps, divided by that over the 50 before them"
    ),
    Measure("mse_visited", "... at visited places", "where the memory holds the answer"),
    Measure("mse_unvisited", "... at new places", "where nothing that was memorised shows the frame"),
    Measure(
        "mse_visited_sampled",
        "... at visited places, sampled",
        "with z drawn from p(z | s, m) in place of the mean of the entry shown",
    ),
    Measure(
        "reconstruction_mse",
        "floor at visited places",
        "true frames encoded and decoded: what a perfect memory reaches",
    ),
    Measure(
        "mean_frame_mse",
        "mean frame at visited places",
        "predicting the episode's mean memorised frame every time",
    ),
    Measure("reconstruction_mse_all", "floor, all steps", "encoded and decoded, over all predicted steps"),
    Measure(
        "mean_frame_mse_all",
        "mean frame, all steps",
        "the mean memorised frame, over all predicted steps",
    ),
    Measure(
        "localisation_rmse",
        "position error (pose units)",
        "all steps, after the best affine fit of states to true positions",
    ),
    Measure(
        "localisation_rmse_similarity",
        "... similarity fit",
        "after the best rotation, reflection, scale and shift only",
    ),
    Measure(
        "localisation_rmse_last_32",
        "... over the last 32 steps",
        "affine fit, at the far end of the prediction",
    ),
    Measure(
        "localisation_rmse_memorised_path",
        "... while frames are seen",
        "memorised steps only, after an affine fit of their own",
    ),
    Measure(
        "localisation_rmse_tracked_end",
        "... at the last memorised step",
        "the same fit, where the prediction begins",
    ),
    Measure(
        "regret",
        "regret (nats a frame)",
        "median cost of reading the memory by place and not by content; near 0 where the map was found",
    ),
    Measure("regret_by_chance", "... at places by chance", "the same at places of other predicted steps"),
    Measure(
        "familiar_share", "... of steps", "share of predicted frames that are nearly memorised ones: both are of these"
    ),
    Measure(
        "elbo",
        "ELBO (nats a frame)",
        "lower bound on the log density of the predicted frames, one draw of the guide",
    ),
    Measure(
        "iwae",
        "importance-weighted bound (nats a frame)",
        "a tighter bound; far above the ELBO, the guide is a poor posterior",
    ),
    Measure(
        "kl_per_step",
        "KL (nats a frame)",
        "what the guide knows of a frame beyond the model's prediction",
    ),
    Measure("num_episodes", "episodes", "held out from training"),
    Measure("num_observed", "memorised steps", "frames that the model saw"),
    Measure("num_predicted", "predicted steps", "from actions alone"),
)


def percent(share: float) -> str:
    """A share in words; 99.997 % does not read as 100 %."""
    if share == 1 or share < 0.99:
        return f"{100 * share:.3g} %"
    return f"{min(100 * share, 99.99):.2f} %" if share < 1 else f"{100 * share:.4g} %"
