"""What a report says about agents with a heading: of views in place of places, of turns and of walks."""

import math
from collections.abc import Mapping

from gtm_pyro.poses.places import VIEW_TOLERANCE
from gtm_pyro.report.words import FIGURES, MEASURES, Figure, Measure, percent
from gtm_pyro.tasks.labyrinth.room_words import ROOM_FIGURE, ROOM_MEASURES, room_sentences

_STILL = 4e-3  # of what counts as one view: an error that is possible only where no agent has moved


def has_views(metrics: Mapping[str, float | None]) -> bool:
    """Whether numbers are of agents with a heading."""
    return _defined(metrics.get("copy_mse"))


def _defined(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def turns_in_place(metrics: Mapping[str, float | None]) -> bool:
    """Whether these agents never leave their place, so that no number about positions means anything."""
    error, near = metrics.get("localisation_rmse"), metrics.get("view_distance") or VIEW_TOLERANCE[0]
    return not _defined(metrics.get("position_error_last")) and error is not None and error < _STILL * near


_MAP = (
    "The episode of the rollout, seen from above: walls, floors, pillars (dark) and things (dots) in the mean colours "
    "of their textures. "
)
_HEADINGS = (
    "the true and the inferred heading since the first step, full turns counted, and how far the inferred one is off "
    "in every held-out episode; headings are not fitted, but for the sign. "
)
_TURNS = {
    "map.png": Figure(
        "map.png",
        "Headings",
        _MAP
        + "The agent turns in place; the spirals show where it looks, time running outwards, wide blue what is true "
        "and orange what is inferred, paler while frames are seen. Dotted: the first and the last memorised direction. "
        "Middle and right: " + _HEADINGS + "Pink: views that were not memorised.",
    ),
    "last_frames.png": Figure(
        "last_frames.png",
        "Frames around the end of the memory, and the last ones",
        "True frames, predicted ones, and of all memorised frames the one whose true pose is nearest, which a model "
        "that only copies would show at best. A pink border marks a view that was not memorised.",
    ),
    "horizon.png": Figure(
        "horizon.png",
        "Error by horizon",
        "Left: squared error a pixel; below the blue line, a model knows more than the memorised frame of the nearest "
        "true pose shows, and it can fall no lower than the floor (the decoder's own error). Middle: share of steps "
        "with a memorised view at which the memory entry with the largest weight was written at that view. Right: "
        "error of the inferred heading. Thin: each step; bold: a running mean over 9.",
    ),
    "transition.png": Figure(
        "transition.png",
        "The learnt dynamics",
        "By how much the agent turns in a frame, once an action has been repeated until nothing changes any more.",
    ),
}
_WALKS = {
    "map.png": Figure(
        "map.png",
        "The map",
        _MAP
        + "Blue: the true path; orange: where the model believes the agent to be, after the best similarity fit, one "
        "for all episodes; arrows: headings, every 10 steps. Left: while frames are seen; right: from actions alone. "
        "Below: " + _HEADINGS,
    ),
    "last_frames.png": Figure(
        "last_frames.png",
        "The last frames",
        "Every second one of the last steps of two episodes: true frames, predicted ones, and of all memorised frames "
        "the one whose true pose is nearest. A pink border marks a view that was not memorised.",
    ),
    "horizon.png": Figure(
        "horizon.png",
        "Error by horizon",
        "Left: squared error a pixel; a model that knows where it is and what is there stays below the mean memorised "
        "frame and below the memorised frame of the nearest true pose, and can fall no lower than the floor (the "
        "decoder's own error). Middle: error of the inferred position; right: of the inferred heading. Thin: each "
        "step; bold: a running mean over 9.",
    ),
    "states.png": Figure(
        "states.png",
        "Inferred positions",
        "The same episode, as seen from where it starts. The model's space has no given axes or unit: its states are "
        "shown as they are and after the best affine and the best similarity fit to the true positions, one fit for "
        "all episodes.",
    ),
    "transition.png": Figure(
        "transition.png",
        "The learnt dynamics",
        "What the agent does in a frame, once an action has been repeated until nothing changes any more: how far it "
        "moves ahead and to its left, and how far it turns.",
    ),
}
_BOTH = {
    "rollout.gif": Figure(
        "rollout.gif",
        "A rollout",
        "One held-out episode after memorisation. The model sees actions only. Left: the true pose (blue, its field of "
        "view between white lines) and the one that the model believes in (orange). Right: what the agent sees and "
        "what the model predicts.",
    ),
    "frames.png": Figure(
        "frames.png",
        "Frames at growing horizons",
        "True and predicted frames of two episodes, 1, 2, 4, ... steps after the last memorised frame, up to the last "
        "step. Third row: the true frame encoded and decoded, the best that this decoder can do. A pink border marks a "
        "view that was not memorised.",
    ),
}
_ORDER = (
    *("rollout.gif", "map.png", "last_frames.png", "frames.png", "horizon.png"),
    *("rooms.png", "states.png", "transition.png"),
)


def figures_of(metrics: Mapping[str, float | None]) -> tuple[Figure, ...]:
    """The figures of a run folder with words that fit its agents."""
    if not has_views(metrics):
        return FIGURES
    own = _BOTH | (_TURNS if turns_in_place(metrics) else _WALKS)
    training = next(figure for figure in FIGURES if figure.file == "training.png")
    if _defined(metrics.get("room_accuracy")):
        own |= {ROOM_FIGURE.file: ROOM_FIGURE}
    return (*(own[file] for file in _ORDER if file in own), training)


_VIEWS = {
    "retrieval_accuracy": (
        "right view retrieved",
        "share of steps with a memorised view whose memory entry was written there",
    ),
    "visited_share": (
        "steps with memorised views",
        "share of predicted steps whose view was memorised, nearly the same pose",
    ),
    "mse_visited": ("... with memorised views", "where the memory holds the answer"),
    "mse_unvisited": ("... with new views", "which must be made up from others"),
    "mse_visited_sampled": ("... with memorised views, sampled", "with z drawn from p(z | s, m) in place of its mean"),
    "reconstruction_mse": (
        "floor with memorised views",
        "true frames encoded and decoded: what a perfect memory reaches",
    ),
    "mean_frame_mse": ("mean frame with memorised views", "predicting the episode's mean memorised frame every time"),
}
_OWN = (
    Measure(
        "view_distance",
        "one view, distance (pose units)",
        "up to which a view is the same one: evaluation.view_tolerance, or what the data says, or read off the poses",
    ),
    Measure("view_angle", "one view, turn (radians)", "up to which, at that distance at most, a view is the same one"),
    Measure("mean_frame_mse_unvisited", "mean frame with new views", "the mean memorised frame where views are new"),
    Measure("copy_mse", "copy, all steps", "predicting the memorised frame whose true pose is nearest"),
    Measure("copy_mse_unvisited", "... with new views", "where nothing that was memorised shows the frame"),
    Measure(
        "best_copy_mse_unvisited", "best copy with new views", "the lower one of this and of the mean frame's error"
    ),
    Measure("heading_correlation", "correlation of headings", "inferred with true ones, all steps of all episodes"),
    Measure("heading_rmse", "heading error (radians)", "all steps; not fitted, but for the sign"),
    Measure(
        "position_error_last", "position error at the last step", "best similarity fit, as a share of the path's length"
    ),
)


def measures_of(metrics: Mapping[str, float | None]) -> list[Measure]:
    """The measures that make sense for these agents, in words that fit them; of views, only those that are defined."""
    if not has_views(metrics):
        return [measure for measure in MEASURES if measure.name in metrics]
    own = [Measure(measure.name, *_VIEWS.get(measure.name, measure[1:])) for measure in MEASURES]
    if turns_in_place(metrics):
        own = [measure for measure in own if not measure.name.startswith("localisation")]
    # before what is about positions, which the ELBO follows
    place = next(
        i for i, measure in enumerate(own) if measure.name.startswith("localisation") or measure.name == "elbo"
    )
    own[place:place] = _OWN + ROOM_MEASURES
    return [measure for measure in own if _defined(metrics.get(measure.name))]


def correlation_in_words(value: float) -> str:
    """Six digits; 0.99999997 does not read as 1."""
    return f"{value if value == 1 else min(value, 0.999999):.6f}"


def bars_of(metrics: Mapping[str, float | None]) -> list[tuple[str, str, str]]:
    """Name, label and colour class of the errors to compare."""
    if not turns_in_place(metrics) or metrics.get("mse_visited") is None:
        return [
            ("reconstruction_mse_all", "floor: encoded and decoded", "floor"),
            ("mse", "predicted", "predicted"),
            ("copy_mse", "memorised frame of the nearest true pose", "mean"),
            ("mean_frame_mse_all", "mean memorised frame", "mean"),
        ]
    return [
        ("reconstruction_mse", "floor: encoded and decoded", "floor"),
        ("mse_visited", "predicted, memorised views", "predicted"),
        ("mse_unvisited", "predicted, new views", "new"),
        ("best_copy_mse_unvisited", "best copy, new views", "mean"),
        ("mean_frame_mse", "mean memorised frame", "mean"),
    ]


def bars_note_of(metrics: Mapping[str, float | None]) -> str:
    """What a reader should look for in these errors."""
    if has_views(metrics) and not turns_in_place(metrics):
        return (
            "No prediction can be shorter than the floor. A model that knows where it is, and what is there, stays "
            "below the memorised frame of the nearest true pose and below the mean frame."
        )
    seen, mean = "at visited places", "The mean frame is what predicting without knowing where one is costs."
    if has_views(metrics):
        seen, mean = (
            "of memorised views",
            "Of new views they should be shorter than the best copy of a memorised frame. " + mean,
        )
    return f"A good model's predictions {seen} are as short as the floor. {mean}"


def sentences(known: Mapping[str, float]) -> list[str]:
    """What the numbers say of headings, of memorised and of new views, and of positions, where each is defined."""
    said = []
    if known.keys() >= {"heading_correlation", "heading_rmse"}:
        correlation = correlation_in_words(known["heading_correlation"])
        off = math.degrees(known["heading_rmse"])
        said.append(
            f"Inferred headings correlate with the true ones at {correlation} and are off by {off:.3g} degrees."
        )
    turning = turns_in_place(known)
    if turning and "retrieval_accuracy" in known:
        right = percent(known["retrieval_accuracy"])
        said.append(f"At views that it had memorised, it read the right memory in {right} of the steps.")
    if turning and known.keys() >= {"mse_visited", "reconstruction_mse", "mean_frame_mse"}:
        error, floor, mean = known["mse_visited"], known["reconstruction_mse"], known["mean_frame_mse"]
        if floor > 0 and mean > 0:
            said.append(
                f"Its error there is {error / floor:.2f} times the floor that its decoder sets, which is "
                f"{percent(floor / mean)} of the mean frame's error."
            )
    best = known.get("best_copy_mse_unvisited", 0.0)
    if turning and best > 0 and "mse_unvisited" in known:
        which = "the mean memorised frame"
        if best == known.get("copy_mse_unvisited"):
            which = "the memorised frame of the nearest true pose"
        said.append(
            f"On views that it had never seen, its error is {percent(known['mse_unvisited'] / best)} of the best "
            f"copy's, {which}."
        )
    if not turning and known.keys() >= {"mse", "mean_frame_mse_all", "copy_mse"}:
        mean, copy = known["mean_frame_mse_all"], known["copy_mse"]
        if mean > 0 and copy > 0:
            drift = known.get("mse_drift")
            late = "" if drift is None else f"; over the last 50 steps it is {drift:.2f} times that of the 50 before"
            said.append(
                f"Its error is {percent(known['mse'] / mean)} of the mean frame's and {percent(known['mse'] / copy)} "
                f"of that of the memorised frame of the nearest true pose{late}."
            )
    if not turning and "position_error_last" in known:
        share = percent(known["position_error_last"])
        said.append(
            f"At the last step its inferred position is off by {share} of the path's length after the best similarity "
            "fit."
        )
    return said + room_sentences(known)
