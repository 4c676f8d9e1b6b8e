"""Frames as bytes, cropped and resized."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from gtm_pyro.errors import ConfigError, EpisodesError

LARGEST_SIDE = 256
_CHANNELS = (1, 3)


class Reshaping:
    """Crops frames, then averages them to a size.

    :param size: (height, width); None leaves it.
    :param crop: "square", the largest one in the middle, or (top, left, height, width) in pixels.
    :raises ConfigError: numbers that are no size.
    """

    def __init__(self, size: Sequence[int] | None = None, crop: str | Sequence[int] | None = None) -> None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ConfigError(f"size: expected a height and a width of at least 1, got {tuple(size)}")
        if isinstance(crop, str) and crop != "square":
            raise ConfigError(f"crop: expected square, or a top, a left, a height and a width, got {crop!r}")
        if crop is not None and not isinstance(crop, str) and (len(crop) != 4 or min(crop) < 0 or min(crop[2:]) < 1):
            raise ConfigError(f"crop: expected a top, a left, a height and a width, got {tuple(crop)}")
        self.size, self.crop = size, crop

    @property
    def recipe(self) -> dict[str, object]:
        """As :class:`~gtm_pyro.tasks.recordings.base.Recordings` have one."""
        return {
            "size": self.size and list(self.size),
            "crop": list(self.crop) if self.crop and self.crop != "square" else self.crop,
        }

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """
        :param frames: ``(..., height, width, channels)``, uint8.
        :raises EpisodesError: the crop reaches beyond them, or they are too large to be carried.
        """
        height, width = frames.shape[-3:-1]
        top, left, tall, wide = self._cut(height, width)
        if top + tall > height or left + wide > width:
            raise EpisodesError(
                f"expected frames of at least {top + tall}x{left + wide} for the crop, got {height}x{width}"
            )
        cut = frames[..., top : top + tall, left : left + wide, :]
        size = tuple(self.size) if self.size is not None else (tall, wide)
        if max(size) > LARGEST_SIDE:
            raise EpisodesError(
                f"expected frames of at most {LARGEST_SIDE} pixels a side, got {size[0]}x{size[1]}; --size 64 makes "
                "them smaller"
            )
        if size == (tall, wide):
            return np.ascontiguousarray(cut)
        flat = cut.reshape(-1, *cut.shape[-3:])
        return np.stack([_resized(frame, size) for frame in flat]).reshape(*cut.shape[:-3], *size, cut.shape[-1])

    def _cut(self, height: int, width: int) -> tuple[int, int, int, int]:
        if self.crop is None:
            return 0, 0, height, width
        if isinstance(self.crop, str):
            side = min(height, width)
            return (height - side) // 2, (width - side) // 2, side, side
        top, left, tall, wide = self.crop
        return top, left, tall, wide


def _resized(frame: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    grey = frame.shape[-1] == 1
    image = Image.fromarray(frame[..., 0] if grey else frame)
    # the mean of what a pixel covers
    made = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))
    return made[..., None] if grey else made


def as_bytes(where: str, frames: np.ndarray) -> np.ndarray:
    """Frames ``(steps, height, width, channels)`` of an episode as uint8.

    :param where: the episode's name, for errors.
    :param frames: bytes, or floats in [0, 1]; also with the channels in front, or without them where they are grey.
    :raises EpisodesError: other shapes, and values that are no pixels; names the step.
    """
    frames = np.asarray(frames)
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim == 4 and frames.shape[3] not in _CHANNELS and frames.shape[1] in _CHANNELS:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or 0 in frames.shape:
        raise EpisodesError(f"{where}: expected frames (steps, height, width, channels), got {frames.shape}")
    if frames.shape[3] not in _CHANNELS:
        raise EpisodesError(f"{where}: expected frames of 1 or 3 channels, got {frames.shape[3]} in {frames.shape}")
    if frames.dtype == np.uint8:
        return frames
    if frames.dtype.kind not in "fiub":
        raise EpisodesError(f"{where}: expected frames of numbers, got dtype {frames.dtype}")
    largest = 1 if frames.dtype.kind in "fb" else 255
    good = ((frames >= 0) & (frames <= largest)).reshape(len(frames), -1)
    if not good.all():
        step, pixel = np.argwhere(~good)[0]
        got = frames.reshape(len(frames), -1)[step, pixel]
        raise EpisodesError(f"{where}, step {step}: expected pixels from 0 to {largest}, got {got:g}")
    return np.rint(frames * np.float32(255)).astype(np.uint8) if largest == 1 else frames.astype(np.uint8)
