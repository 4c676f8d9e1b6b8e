"""What a report says of agents with a heading: of views in place of places, of turns and of walks."""

import math

from gtm_pyro.evaluation.measures import DESCRIBED
from gtm_pyro.poses.places import VIEW_TOLERANCE
from gtm_pyro.report.words import percent
from gtm_pyro.tasks.base import Bar, Caption
from gtm_pyro.tasks.general.words import BARS_NOTE, FIGURES, Numbers

VIEWS = {"place": "view", "visited": "with memorised views", "new": "with new views"}

_STILL = 4e-3  # of what counts as one view: an error that is possible only where no agent has moved


def has_views(known: Numbers) -> bool:
    """Whether numbers are of agents with a heading."""
    return "copy_mse" in known


def turns_in_place(known: Numbers) -> bool:
    """Whether these agents never leave their place, so that no number about positions means anything."""
    error, near = known.get("localisation_rmse"), known.get("view_distance", VIEW_TOLERANCE[0])
    return "position_error_last" not in known and error is not None and error < _STILL * near


_MAP = "The episode of the rollout, seen from above. "
_HEADINGS = (
    "the true and the inferred heading since the first step, full turns counted, and how far the inferred one is off "
    "in every held-out episode; headings are not fitted, but for the sign. "
)
_TURNS = {
    "map.png": Caption(
        "map.png",
        "Headings",
        _MAP
        + "The agent turns in place; the spirals show where it looks, time running outwards, wide blue what is true "
        "and orange what is inferred, paler while frames are seen. Dotted: the first and the last memorised direction. "
        "Middle and right: " + _HEADINGS + "Pink: views that were not memorised.",
    ),
    "last_frames.png": Caption(
        "last_frames.png",
        "Frames around the end of the memory, and the last ones",
        "True frames, predicted ones, and of all memorised frames the one whose true pose is nearest, which a model "
        "that only copies would show at best. A pink border marks a view that was not memorised.",
    ),
    "horizon.png": Caption(
        "horizon.png",
        "Error by horizon",
        "Left: squared error a pixel; below the blue line, a model knows more than the memorised frame of the nearest "
        "true pose shows, and it can fall no lower than the floor (the decoder's own error). Middle: share of steps "
        "with a memorised view at which the memory entry with the largest weight was written at that view. Right: "
        "error of the inferred heading. Thin: each step; bold: a running mean over 9.",
    ),
    "transition.png": Caption(
        "transition.png",
        "The learnt dynamics",
        "By how much the agent turns in a frame, once an action has been repeated until nothing changes any more.",
    ),
}
_WALKS = {
    "map.png": Caption(
        "map.png",
        "The map",
        _MAP
        + "Blue: the true path; orange: where the model believes the agent to be, after the best similarity fit, one "
        "for all episodes; arrows: headings, every 10 steps. Left: while frames are seen; right: from actions alone. "
        "Below: " + _HEADINGS,
    ),
    "last_frames.png": Caption(
        "last_frames.png",
        "The last frames",
        "Every second one of the last steps of two episodes: true frames, predicted ones, and of all memorised frames "
        "the one whose true pose is nearest. A pink border marks a view that was not memorised.",
    ),
    "horizon.png": Caption(
        "horizon.png",
        "Error by horizon",
        "Left: squared error a pixel; a model that knows where it is and what is there stays below the mean memorised "
        "frame and below the memorised frame of the nearest true pose, and can fall no lower than the floor (the "
        "decoder's own error). Middle: error of the inferred position; right: of the inferred heading. Thin: each "
        "step; bold: a running mean over 9.",
    ),
    "states.png": Caption(
        "states.png",
        "Inferred positions",
        "The same episode, as seen from where it starts. The model's space has no given axes or unit: its states are "
        "shown as they are and after the best affine and the best similarity fit to the true positions, one fit for "
        "all episodes.",
    ),
    "transition.png": Caption(
        "transition.png",
        "The learnt dynamics",
        "What the agent does in a frame, once an action has been repeated until nothing changes any more: how far it "
        "moves ahead and to its left, and how far it turns.",
    ),
}
_BOTH = {
    "rollout.gif": Caption(
        "rollout.gif",
        "A rollout",
        "One held-out episode after memorisation. The model sees actions only. Left: the true pose (blue, its field of "
        "view between white lines) and the one that the model believes in (orange). Right: what the agent sees and "
        "what the model predicts.",
    ),
    "frames.png": Caption(
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


def captions(known: Numbers) -> tuple[Caption, ...]:
    """Of the figures that such agents have."""
    own = _BOTH | (_TURNS if turns_in_place(known) else _WALKS)
    training = next(figure for figure in FIGURES if figure.file == "training.png")
    return (*(own[file] for file in _ORDER if file in own), training)


def is_about_positions(name: str) -> bool:
    """Whether a measure means nothing for agents that turn in place."""
    return name.startswith("localisation")


def bars(known: Numbers) -> tuple[list[Bar], str]:
    """Errors to compare, and what to look for in them."""
    if not turns_in_place(known):
        note = (
            "No prediction can be shorter than the floor. A model that knows where it is, and what is there, stays "
            "below the memorised frame of the nearest true pose and below the mean frame."
        )
        found = [
            Bar("reconstruction_mse_all", "floor: encoded and decoded", "floor"),
            Bar("mse", "predicted", "predicted"),
            Bar("copy_mse", "memorised frame of the nearest true pose", "mean"),
            Bar("mean_frame_mse_all", "mean memorised frame", "mean"),
        ]
        return found, note
    found = [
        Bar("reconstruction_mse", "floor: encoded and decoded", "floor"),
        Bar("mse_visited", "predicted, memorised views", "predicted"),
        Bar("mse_unvisited", "predicted, new views", "new"),
        Bar("best_copy_mse_unvisited", "best copy, new views", "mean"),
        Bar("mean_frame_mse", "mean memorised frame", "mean"),
    ]
    note = (
        "A good model's predictions of memorised views are as short as the floor. Of new views they should be shorter "
        f"than the best copy of a memorised frame. {BARS_NOTE}"
    )
    return found, note


def sentences(known: Numbers) -> list[str]:
    """What the numbers say of headings, of memorised and of new views, and of positions, where each is defined."""
    said = []
    if known.keys() >= {"heading_correlation", "heading_rmse"}:
        correlation = DESCRIBED["heading_correlation"].written(known["heading_correlation"])
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
    return said
