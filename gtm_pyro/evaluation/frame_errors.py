"""Squared errors of frames by step: of what a model shows, and of what can be shown without one."""

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.measures import FIRST_STEPS, LAST_STEPS
from gtm_pyro.evaluation.placement import Compared
from gtm_pyro.evaluation.views import drift
from gtm_pyro.tasks.base import Measures

_STEPS = 256  # predicted steps that are compared with all memorised ones at a time


def squared_error(frames: Tensor, true: Tensor) -> Tensor:
    """Mean over pixels, ``(batch, steps)``."""
    return (frames - true).square().mean((-3, -2, -1))


def copied_error(episodes: Episodes, steps: Tensor) -> Tensor:
    """Of showing frames of other steps in place of the predicted ones: ``(batch, predicted)``.

    :param steps: which frames, by their numbers in the episode, ``(batch, predicted)``.
    """
    # one episode at a time, for copies are large
    pairs = zip(episodes.frames, steps, episodes.predicted_frames, strict=True)
    return torch.stack([squared_error(frames[chosen], true) for frames, chosen, true in pairs])


def closest_copies(episodes: Episodes) -> Tensor:
    """The memorised step whose frame looks most like that of each predicted one, ``(batch, predicted)``.

    Some predicted steps of one episode are compared at a time: memory does not grow with their number.
    """
    chosen = []
    for seen, true in zip(episodes.observed_frames.flatten(2), episodes.predicted_frames.flatten(2), strict=True):
        chosen.append(torch.cat([torch.cdist(part, seen).argmin(-1) for part in true.split(_STEPS)]))
    return torch.stack(chosen)


def baselines(episodes: Episodes) -> dict[str, Tensor]:
    """What predicting costs without a model, each ``(batch, predicted)``: by showing the mean memorised frame, the last
    one, or at each step the one that looks most like the truth."""
    seen, true = episodes.observed_frames, episodes.predicted_frames
    return {
        "mean_frame_mse_all": squared_error(seen.mean(1, keepdim=True), true),
        "last_frame_mse": squared_error(seen[:, -1:], true),
        "closest_copy_mse": copied_error(episodes, closest_copies(episodes)),
    }


def frame_measures(
    episodes: Episodes, shown: Tensor | None, sampled: Tensor | None, reconstructed: Tensor | None, places: Compared
) -> Measures:
    """Everything that is a mean over some of the predicted steps, as one number and by horizon.

    :param shown: predicted frames, ``(batch, predicted, C, H, W)``; None where nothing is imagined.
    :param sampled: the error of drawn ones, ``(batch, predicted)``.
    :param reconstructed: true frames as the model shows them; None where it does not.
    """
    true, free = episodes.predicted_frames, baselines(episodes)
    visited, retrieved = places.visited, places.retrieved
    everywhere = torch.ones(true.shape[:2], dtype=torch.bool)
    known = everywhere if visited is None else visited
    means = {name: (error, everywhere) for name, error in free.items()}
    numbers: dict[str, float] = {}
    if shown is not None:
        error = squared_error(shown, true)
        means["mse"] = (error, everywhere)
        if visited is not None:
            means |= {"mse_visited": (error, known), "mse_unvisited": (error, ~known)}
        if visited is not None and sampled is not None:
            means["mse_visited_sampled"] = (sampled, known)
        numbers = {
            "mse_first_8": float(error[:, :FIRST_STEPS].double().mean()),
            "mse_last_32": float(error[:, -LAST_STEPS:].double().mean()),
            "mse_drift": drift(error),
        }
    if reconstructed is not None:
        floor = squared_error(reconstructed, true)
        means["reconstruction_mse_all"] = (floor, everywhere)
        if visited is not None:
            means["reconstruction_mse"] = (floor, known)
    if visited is not None:
        mean_frame = free["mean_frame_mse_all"]
        means |= {
            "mean_frame_mse": (mean_frame, known),
            "mean_frame_mse_unvisited": (mean_frame, ~known),
            "visited_share": (visited, everywhere),
        }
    if retrieved is not None:
        means["retrieval_accuracy"] = (retrieved, known)
        last = slice(-LAST_STEPS, None)
        numbers["retrieval_accuracy_last_32"] = float(retrieved[:, last][known[:, last]].double().mean())
    if places.nearest is not None:
        copied = copied_error(episodes, places.nearest)
        means |= {"copy_mse": (copied, everywhere), "copy_mse_unvisited": (copied, ~known)}
    # a mean over no step is NaN
    numbers |= {name: float(value[chosen].double().mean()) for name, (value, chosen) in means.items()}
    if places.nearest is not None:
        rivals = (numbers["copy_mse_unvisited"], numbers["mean_frame_mse_unvisited"])
        numbers["best_copy_mse_unvisited"] = min(rivals)
    by_horizon = {
        name: ((value.double() * chosen).sum(0) / chosen.sum(0)).numpy() for name, (value, chosen) in means.items()
    }
    return Measures(numbers, by_horizon)
