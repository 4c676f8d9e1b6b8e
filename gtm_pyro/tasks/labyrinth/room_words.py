"""What a report says about several rooms."""

from collections.abc import Mapping

from gtm_pyro.inference.capabilities import Capability
from gtm_pyro.report.words import percent
from gtm_pyro.tasks.base import Caption, Measure

ROOM_FIGURE = Caption(
    "rooms.png",
    "The right room, by horizon",
    "Share of steps at which a small classifier tells by the frame in which room the agent stands. It was fitted to "
    "frames rendered at random places of the very labyrinth, and is not right about every true frame, for an agent may "
    "look through a doorway. Only steps in rooms that were visited while memorising. Thin: each step; bold: a running "
    "mean over 9.",
)
_IMAGINES, _RECONSTRUCTS = (Capability.IMAGINES,), (Capability.RECONSTRUCTS,)
ROOM_MEASURES = (
    Measure(
        "room_accuracy", "right room shown",
        "share of steps, in rooms visited while memorising, whose predicted frame is of the right room",
        better="higher", needs=_IMAGINES, form=".4f", column="right room",
    ),
    Measure(
        "room_accuracy_true_frames", "... by the true frames", "the classifier's own limit: agents see other rooms",
        form=".4f",
    ),
    Measure(
        "room_accuracy_reconstructed", "... encoded and decoded", "true frames as the decoder shows them",
        needs=_RECONSTRUCTS, form=".4f",
    ),
    Measure(
        "room_accuracy_copy", "... by copied frames", "the memorised frame whose true pose is nearest", form=".4f"
    ),
    Measure(
        "room_accuracy_most_seen", "... by the room most seen", "always the room of most memorised steps", form=".4f"
    ),
    Measure("room_visited_share", "steps in rooms visited", "share of predicted steps in rooms seen while memorising"),
    Measure(
        "room_classifier_accuracy", "classifier's accuracy", "on frames at random places that it was not fitted to",
        form=".4f",
    ),
)  # fmt: skip


def room_sentences(known: Mapping[str, float]) -> list[str]:
    """How often predicted frames are of the right room, where that is defined."""
    names = ("room_accuracy", "room_accuracy_true_frames", "room_accuracy_copy", "room_accuracy_most_seen")
    if not known.keys() >= {*names, "room_visited_share"}:
        return []
    right, true, copy, most = (percent(known[name]) for name in names)
    share = percent(known["room_visited_share"])
    return [
        f"In rooms that it had visited ({share} of the steps), {right} of its frames are of the right room as a "
        f"classifier sees it, which finds so of {true} of the true frames and of {copy} of the memorised frames of the "
        f"nearest true poses; always the room seen most is right in {most}."
    ]
