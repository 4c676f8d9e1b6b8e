"""The measures that every task shares, each described once.

Pixels are in [0, 1]; squared errors are means over pixels and predicted steps. A step is visited where the agent
was within half a cell of it while memorising; with headings, where its view was memorised: nearly the same pose.
"""

from collections.abc import Iterable, Mapping

from gtm_pyro.inference.capabilities import Capability
from gtm_pyro.storage.json import finite
from gtm_pyro.tasks.base import Measure, Truth

_IMAGINES, _POSES, _HEADINGS = Capability.IMAGINES, Truth.POSES, Truth.HEADINGS
_RECONSTRUCTS, _PATH = Capability.RECONSTRUCTS, Capability.PATH
_RETRIEVED = (_IMAGINES, Capability.RETRIEVES, _POSES)
_PLACED = (_IMAGINES, _PATH, _POSES)
LAST_STEPS = 32
FIRST_STEPS = 8

MEASURES = (
    Measure(
        "elbo", "ELBO", "lower bound on the log density of the predicted frames, one draw of the guide",
        unit="nats a frame", better="higher", form=".2f", column="ELBO",
    ),
    Measure(
        "iwae", "importance-weighted bound",
        "a tighter bound, of several draws; far above the ELBO, the guide is a poor posterior",
        unit="nats a frame", better="higher", form=".2f", column="IWAE",
    ),
    Measure(
        "kl_per_step", "KL", "what the guide knows of a frame beyond the model's prediction",
        unit="nats a frame", form=".2f",
    ),
    Measure(
        "retrieval_accuracy", "right {place} retrieved",
        "share of steps {visited} whose memory entry was written there",
        better="higher", needs=_RETRIEVED, form=".4f", column="retrieval",
    ),
    Measure(
        "retrieval_accuracy_last_32", "... over the last 32 steps", "the same, at the far end of the prediction",
        better="higher", needs=_RETRIEVED, form=".4f",
    ),
    Measure("visited_share", "steps {visited}", "share of predicted steps {visited}", needs=(_POSES,)),
    Measure(
        "cell_size", "size of a cell",
        "poses in one cell are one place: evaluation.cell_size, or what the data says, or read off the poses",
        unit="pose units", needs=(_POSES,),
    ),
    Measure(
        "view_distance", "one view, distance",
        "up to which a view is the same one: evaluation.view_tolerance, or what the data says, or read off the poses",
        unit="pose units", needs=(_HEADINGS,),
    ),
    Measure(
        "view_angle", "one view, turn", "up to which, at that distance at most, a view is the same one",
        unit="radians", needs=(_HEADINGS,),
    ),
    Measure(
        "mse", "error of predicted frames", "squared error a pixel over all predicted steps, of what the model expects",
        better="lower", needs=(_IMAGINES,), column="mse",
    ),
    Measure("mse_first_8", "... first 8 steps", "where the prediction begins", better="lower", needs=(_IMAGINES,)),
    Measure("mse_last_32", "... last 32 steps", "at its far end", better="lower", needs=(_IMAGINES,)),
    Measure(
        "mse_drift", "... late over early", "over the last 50 steps, divided by that over the 50 before them",
        better="lower", needs=(_IMAGINES,),
    ),
    Measure(
        "mse_visited", "... {visited}", "where the memory holds the answer", better="lower", needs=(_IMAGINES, _POSES)
    ),
    Measure(
        "mse_unvisited", "... {new}", "where nothing that was memorised shows the frame",
        better="lower", needs=(_IMAGINES, _POSES),
    ),
    Measure(
        "mse_visited_sampled", "... {visited}, sampled", "with what the model leaves to chance drawn, not its mean",
        better="lower", needs=(_IMAGINES, _POSES),
    ),
    Measure(
        "mean_frame_mse_all", "mean memorised frame", "showing the mean of an episode's memorised frames at every step",
        better="lower", column="mean frame",
    ),
    Measure("mean_frame_mse", "... {visited}", "the same at those steps", better="lower", needs=(_POSES,)),
    Measure("mean_frame_mse_unvisited", "... {new}", "the same at those steps", better="lower", needs=(_POSES,)),
    Measure(
        "last_frame_mse", "last memorised frame", "showing the frame that was memorised last at every step",
        better="lower", column="last frame",
    ),
    Measure(
        "closest_copy_mse", "best copy",
        "showing the memorised frame that looks most like the true one, which only the truth tells",
        better="lower", column="best copy",
    ),
    Measure(
        "copy_mse", "copy by pose", "showing the memorised frame whose true pose is nearest",
        better="lower", needs=(_HEADINGS,),
    ),
    Measure("copy_mse_unvisited", "... {new}", "the same at those steps", better="lower", needs=(_HEADINGS,)),
    Measure(
        "best_copy_mse_unvisited", "... or mean frame, {new}", "the lower one of this and of the mean frame's error",
        better="lower", needs=(_HEADINGS,),
    ),
    Measure(
        "reconstruction_mse_all", "floor, all steps", "true frames encoded and decoded: the decoder's own error",
        better="lower", needs=(_RECONSTRUCTS,),
    ),
    Measure(
        "reconstruction_mse", "... {visited}", "what a perfect memory reaches",
        better="lower", needs=(_RECONSTRUCTS, _POSES),
    ),
    Measure(
        "heading_correlation", "correlation of headings",
        "inferred with true ones, all steps of all episodes, as seen from where each starts",
        better="higher", needs=(*_PLACED, _HEADINGS), form=".6f",
    ),
    Measure(
        "heading_rmse", "heading error", "all steps, the short way round; not fitted, but for the sign",
        unit="radians", better="lower", needs=(*_PLACED, _HEADINGS),
    ),
    Measure(
        "position_error_last", "position error at the last step",
        "best similarity fit, as a share of the path's length", better="lower", needs=(*_PLACED, _HEADINGS),
    ),
    Measure(
        "cell_accuracy", "right cell",
        "share of predicted steps within half a cell of the truth, after a rigid fit to each episode's memorised steps",
        better="higher", needs=(*_PLACED, _HEADINGS), form=".4f", column="right cell",
    ),
    Measure(
        "cell_accuracy_memorised", "... while frames are seen", "of memorised steps, after the same fit",
        better="higher", needs=(*_PLACED, _HEADINGS), form=".4f",
    ),
    Measure(
        "heading_accuracy", "right heading",
        "share of predicted steps within half of the usual turn of the truth, after the same fit",
        better="higher", needs=(*_PLACED, _HEADINGS), form=".4f",
    ),
    Measure(
        "heading_accuracy_memorised", "... while frames are seen", "of memorised steps, after the same fit",
        better="higher", needs=(*_PLACED, _HEADINGS), form=".4f",
    ),
    Measure(
        "position_error_predicted", "position error of the prediction",
        "distance at the last step, after the same fit, over the length of the true path since the first predicted "
        "step: the mean of all episodes over their mean length",
        better="lower", needs=(*_PLACED, _HEADINGS), column="position error",
    ),
    Measure(
        "position_error_predicted_median", "... median", "of each episode's own share",
        better="lower", needs=(*_PLACED, _HEADINGS),
    ),
    Measure(
        "localisation_rmse", "position error", "all steps, after the best affine fit of states to true positions",
        unit="pose units", better="lower", needs=_PLACED, column="localisation",
    ),
    Measure(
        "localisation_rmse_similarity", "... similarity fit",
        "after the best rotation, reflection, scale and shift only", better="lower", needs=_PLACED,
    ),
    Measure(
        "localisation_rmse_last_32", "... over the last 32 steps", "affine fit, at the far end of the prediction",
        better="lower", needs=_PLACED,
    ),
    Measure(
        "localisation_rmse_memorised_path", "... while frames are seen",
        "memorised steps only, after an affine fit of their own",
        better="lower", needs=(_PATH, _POSES), column="memorised path",
    ),
    Measure(
        "localisation_rmse_tracked_end", "... at the last memorised step",
        "the same fit, where the prediction begins", better="lower", needs=(_PATH, _POSES), column="tracked end",
    ),
    Measure(
        "regret", "regret",
        "median cost of reading the memory by place and not by content; near 0 where the map was found",
        unit="nats a frame", better="lower", needs=(_IMAGINES, _PATH, Capability.REGRET),
    ),
    Measure(
        "regret_by_chance", "... at places by chance", "the same at places of other predicted steps",
        needs=(_IMAGINES, _PATH, Capability.REGRET),
    ),
    Measure(
        "familiar_error", "error of familiar frames", "over the mean memorised frame's, of frames nearly memorised",
        better="lower", needs=(_IMAGINES,), form=".4f",
    ),
    Measure("familiar_share", "familiar steps", "share of predicted frames that are nearly memorised ones"),
    Measure("num_episodes", "episodes", "held out from training", form=".0f"),
    Measure("num_observed", "memorised steps", "frames that the model saw", form=".0f"),
    Measure("num_predicted", "predicted steps", "from actions alone", form=".0f"),
)  # fmt: skip

DESCRIBED = {measure.name: measure for measure in MEASURES}


def measured(metrics: Mapping[str, float], order: Iterable[Measure] = MEASURES) -> dict[str, float]:
    """The numbers that are finite, in the order in which they are described, then those that nobody describes."""
    known = finite(metrics)
    return {m.name: known[m.name] for m in order if m.name in known} | known
