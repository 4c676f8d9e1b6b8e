"""How frames of an episode are compared: small, and which look the same where they may be noisy."""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SAME_FRAME = 1e-6
"""Mean squared difference of a pixel up to which two frames without noise are the same."""


def small_frames(frames: Tensor, side: int = 8) -> Tensor:
    """Frames ``(batch, T, C, H, W)``, averaged to at most so many pixels a side, as vectors, ``(batch, T, pixels)``."""
    small = frames if max(frames.shape[-2:]) <= side else adaptive_avg_pool2d(frames.flatten(0, 1), side)
    return small.reshape(*frames.shape[:2], -1)


def frame_changed(frames: Tensor, tolerance: float = SAME_FRAME) -> Tensor:
    """Whether each step's frame differs from the one before, ``(batch, time)``; the first never does.

    :param frames: ``(batch, time, C, H, W)``.
    :param tolerance: mean squared difference of a pixel up to which two frames look the same.
    """
    change = (frames[:, 1:] - frames[:, :-1]).square().mean((-3, -2, -1)) > tolerance
    return torch.cat([torch.zeros_like(change[:, :1]), change], 1)


def same_frames(frames: Tensor, tolerance: float = SAME_FRAME) -> Tensor:
    """Which steps of an episode look the same, ``(batch, time, time)``; each looks like itself.

    Arguments as in :func:`frame_changed`.
    """
    flat = frames.flatten(2)
    alike = torch.cdist(flat, flat).square() / flat.shape[-1] <= tolerance
    return alike | torch.eye(frames.shape[1], dtype=torch.bool, device=frames.device)


def frame_tolerance(frames: Tensor, factor: float = 4.0) -> float:
    """The mean squared difference of a pixel up to which two frames look the same, for frames that may be noisy.

    Without noise some frames repeat exactly, and it is ``SAME_FRAME``. With noise, the differences between neighbouring
    steps are of two kinds, small where the agent stood still, told apart by Otsu's threshold (1979) on their
    logarithms; it lies just above the small ones. It is ``SAME_FRAME`` too where they are of one kind: the larger ones
    are not at least ``factor`` times the smaller ones on average, or the two kinds are not apart.

    :param frames: ``(batch, time, C, H, W)``.
    """
    if bool((same_frames(frames).sum(-1) > 1).any()):
        return SAME_FRAME
    logs = (frames[:, 1:] - frames[:, :-1]).square().mean((-3, -2, -1)).flatten().double().log().sort().values
    if len(logs) < 4:
        return SAME_FRAME
    low = torch.arange(1, len(logs), device=logs.device)
    high = len(logs) - low
    sums = logs.cumsum(0)
    lower, upper = sums[:-1] / low, (sums[-1] - sums[:-1]) / high
    between = low * high * (upper - lower).square()
    cut = int(between.argmax())
    gap = float(upper[cut] - lower[cut])
    spread = 0.5 * float(logs[: cut + 1].std(correction=0) + logs[cut + 1 :].std(correction=0))
    if gap < max(math.log(factor), 3.5 * spread):
        return SAME_FRAME
    # a frame's mean squared noise varies by so much; six standard deviations, because there are many pairs
    sure = 1 + 6 * math.sqrt(2 / frames[0, 0].numel())
    return math.exp(min(float(logs[: cut + 1].median()) + math.log(sure), 0.5 * float(logs[cut] + logs[cut + 1])))
