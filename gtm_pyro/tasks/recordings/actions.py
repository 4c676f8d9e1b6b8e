"""Actions as whole numbers or vectors, each beside the frame that it led to."""

import numpy as np

from gtm_pyro.errors import EpisodesError


def as_actions(where: str, actions: np.ndarray) -> np.ndarray:
    """Whole numbers ``(steps,)``, also for one-hot vectors, or vectors of floats ``(steps, action_dim)``.

    :param where: the episode's name, for errors.
    :raises EpisodesError: other shapes and values; names the step.
    """
    actions = np.asarray(actions)
    if actions.dtype.kind not in "fiub":
        raise EpisodesError(f"{where}: expected actions as numbers, got dtype {actions.dtype}")
    whole = actions.dtype.kind != "f"
    if actions.ndim == 2 and actions.shape[1] == 1 and whole:
        actions = actions[:, 0]
    if actions.ndim not in (1, 2) or 0 in actions.shape:
        raise EpisodesError(f"{where}: expected actions (steps,) or (steps, action_dim), got {actions.shape}")
    bad = ~np.isfinite(actions) if not whole else actions < (0 if actions.ndim == 1 else -np.inf)
    if bad.any():
        step = int(np.argwhere(bad)[0][0])
        expected = "whole numbers from 0" if whole else "finite numbers"
        raise EpisodesError(f"{where}, step {step}: expected actions as {expected}, got {actions[step].tolist()}")
    if actions.ndim == 1:
        return actions.astype(np.int64) if whole else actions.astype(np.float32)[:, None]
    if _is_one_hot(actions):
        return actions.argmax(1).astype(np.int64)
    return actions.astype(np.float32)


def width(actions: np.ndarray) -> int | None:
    """Of one-hot vectors, how many actions there are; None where the array does not tell."""
    return actions.shape[1] if actions.ndim == 2 and _is_one_hot(actions) else None


def after_taken(actions: np.ndarray) -> np.ndarray:
    """From ``actions[t]`` taken at frame t to ``actions[t]`` that led to frame t: the first says nothing then.

    :return: one more than there were.
    """
    return np.concatenate([np.zeros_like(actions[:1]), actions])


def check_lengths(where: str, frames: int, actions: int) -> None:
    """
    :raises EpisodesError: frames or actions were lost.
    """
    if frames != actions:
        raise EpisodesError(f"{where}: expected as many actions as frames, got {actions} actions and {frames} frames")


def _is_one_hot(actions: np.ndarray) -> bool:
    """The first may be all 0, for it says nothing."""
    if actions.shape[1] < 2 or not ((actions == 0) | (actions == 1)).all():
        return False
    sums = actions.sum(1)
    return bool((sums[1:] == 1).all() and sums[0] in (0, 1) and sums.any())
