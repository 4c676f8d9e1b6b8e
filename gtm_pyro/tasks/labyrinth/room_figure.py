"""How often frames are of the right room, by the number of steps predicted."""

from typing import TYPE_CHECKING

import numpy as np

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.style import COPY, FLOOR, MEAN, PREDICTED, canvas, plain
from gtm_pyro.report.curves import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rooms_figure(evaluation: Evaluation) -> "Figure | None":
    """How often frames are of the right room, by the number of steps predicted; None where there are no rooms."""
    arrays = evaluation.by_horizon
    if "room_accuracy" not in arrays or not np.isfinite(arrays["room_accuracy"]).any():
        return None
    figure, axes = canvas(1, 1, (8.0, 4.2))
    horizon = np.arange(1, evaluation.episodes.num_predicted + 1)
    for name, colour, label, line in (
        ("_most_seen", MEAN, "always the room seen most", "--"),
        ("_copy", COPY, "memorised frame of the nearest true pose", "-."),
        ("", PREDICTED, "predicted", "-"),
        ("_true_frames", FLOOR, "true frames (the classifier's own limit)", ":"),
    ):
        curve(axes[0, 0], horizon, arrays[f"room_accuracy{name}"], colour, line, label)
    axes[0, 0].set(xlabel="steps after the last memorised one", ylabel="right room (share of steps)", ylim=(0, 1.03))
    figure.legend(fontsize=8, loc="outside upper center", ncols=2)
    plain(axes[0, 0])
    return figure
