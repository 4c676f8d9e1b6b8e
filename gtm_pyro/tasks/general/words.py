"""What a report says of any episodes: with poses, of places; without, of frames alone."""

from collections.abc import Mapping

from gtm_pyro.report.words import percent
from gtm_pyro.tasks.base import Bar, Caption

Numbers = Mapping[str, float]

PLACES = {"place": "place", "visited": "at visited places", "new": "at new places"}

# by the names of their files, in the order in which a reader wants them
FIGURES = (
    Caption(
        "rollout.gif",
        "A rollout",
        "One held-out episode after memorisation. The model sees actions only. What the agent sees and what the model "
        "predicts; with true positions, left, where the agent is (blue) and where the model believes it to be (orange, "
        "inside the blue dot where both agree).",
    ),
    Caption(
        "frames.png",
        "Frames at growing horizons",
        "True and predicted frames of two episodes, 1, 2, 4, ... steps after the last memorised frame, up to "
        "the last step. Third row: the true frame encoded and decoded, the best that this decoder can do; with a model "
        "that shows no frame so, the memorised frame that looks most like the true one. A pink border marks a place "
        "that was not visited during memorisation, where the model cannot know what it will see.",
    ),
    Caption(
        "horizon.png",
        "Error by horizon",
        "Squared error a pixel, beside that of trivial predictors (the mean memorised frame, the last one, and the one "
        "that looks most like the truth) and the floor (the decoder's own error). With true positions also the share "
        "of visited steps at which the memory entry shown was written in the right place, and the error of the "
        "inferred position. Thin: each step; bold: a running mean over 9.",
    ),
    Caption(
        "walk.png",
        "The walk",
        "Where the agent really went. Positions are spread a little, so that several passes through one cell can be "
        "told apart.",
    ),
    Caption(
        "states.png",
        "Inferred positions",
        "The same episode. The model's space has no given axes or unit: its states are shown as they are and "
        "after the best affine and the best similarity fit to the true positions, one fit for all episodes.",
    ),
    Caption(
        "transition.png",
        "The learnt dynamics",
        "Left: what each action adds to the state; middle: the same in cells. Right, if the transition has walls: the "
        "wall gate, the share of a move that is carried out, by the place where the move would lead, or the room "
        "inside the walls. White dots: places where agents were; white line: a gate of one half, or the walls.",
    ),
    Caption(
        "training.png",
        "Training",
        "Nats a frame. Dashed lines mark a new stage of the curriculum, whose episodes may be longer and "
        "harder; grey lines are attempts that were given up as stuck.",
    ),
)

BARS_NOTE = "The mean frame is what predicting without knowing where one is costs."


def with_captions(captions: tuple[Caption, ...], *own: Caption) -> tuple[Caption, ...]:
    """The same in the same order, with others in place of those of the same figures."""
    others = {caption.file: caption for caption in own}
    return tuple(others.get(caption.file, caption) for caption in captions)


def bars(known: Numbers) -> tuple[list[Bar], str]:
    """Errors to compare, and what to look for in them."""
    if "mse_visited" in known:
        found = [
            Bar("reconstruction_mse", "floor: encoded and decoded", "floor"),
            Bar("mse_visited", "predicted, visited places", "predicted"),
            Bar("mse_unvisited", "predicted, new places", "new"),
            Bar("mean_frame_mse", "mean memorised frame", "mean"),
        ]
        return found, f"A good model's predictions at visited places are as short as the floor. {BARS_NOTE}"
    found = [
        Bar("reconstruction_mse_all", "floor: encoded and decoded", "floor"),
        Bar("mse", "predicted", "predicted"),
        Bar("closest_copy_mse", "best copy of a memorised frame", "new"),
        Bar("mean_frame_mse_all", "mean memorised frame", "mean"),
        Bar("last_frame_mse", "last memorised frame", "mean"),
    ]
    note = f"{BARS_NOTE} The best copy is the memorised frame that looks most like the true one, which nobody knows."
    return found, note


def sentences(known: Numbers) -> list[str]:
    """What the numbers say, where each is defined."""
    said = []
    if "retrieval_accuracy" in known:
        right = percent(known["retrieval_accuracy"])
        last = known.get("retrieval_accuracy_last_32")
        late = "" if last is None else f" ({percent(last)} over the last 32)"
        said.append(f"At places it had visited, it read the right memory in {right} of the steps{late}.")
    if known.keys() >= {"mse_visited", "reconstruction_mse", "mean_frame_mse"} and known["reconstruction_mse"] > 0:
        floors = known["mse_visited"] / known["reconstruction_mse"]
        share = percent(known["mse_visited"] / known["mean_frame_mse"])
        said.append(
            f"Its error there is {floors:.2f} times the floor that its decoder sets, and {share} of the mean frame's."
        )
    elif known.keys() >= {"mse", "mean_frame_mse_all", "last_frame_mse", "closest_copy_mse"}:
        rivals = {"the mean memorised frame": "mean_frame_mse_all", "the last one": "last_frame_mse"}
        rivals["the one that looks most like the truth"] = "closest_copy_mse"
        parts = [
            f"{known['mse'] / known[name]:.2f} times that of {rival}"
            for rival, name in rivals.items()
            if known[name] > 0
        ]
        if parts:
            listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
            said.append(f"The error of its predicted frames is {listed}.")
    if "localisation_rmse" in known:
        off = known["localisation_rmse"] / known.get("cell_size", 1.0)
        said.append(f"Inferred positions are off by {off:.3f} cells after the best affine fit.")
    return said
