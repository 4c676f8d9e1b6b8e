"""Films of long generations: where the agent believes it is, and what it expects to see there."""

import importlib.util
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gtm_pyro.errors import ConfigError, MissingDependencyError
from gtm_pyro.evaluation.generation import Generated
from gtm_pyro.evaluation.style import MEAN, PREDICTED, TRUE, image
from gtm_pyro.report.animation import gif
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.progress import watched

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE, _VIEW, _GAP, _HEADER = 320, 160, 12, 24
_TRAIL = 40
# a GIF is many times as large as an MP4
_GIF_PICTURES = 300


def check_video(path: str | os.PathLike[str]) -> None:
    """Find out, before the work, whether a film can be written under this name.

    :raises ConfigError: its name ends in neither .gif nor .mp4.
    :raises MissingDependencyError: an MP4, and PyAV is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ConfigError(f"video: expected a name that ends in .gif or .mp4, got {os.fspath(path)}")
    if suffix == ".mp4" and importlib.util.find_spec("av") is None:
        raise MissingDependencyError('MP4 films are written with PyAV: pip install "gtm-pyro[video]", or choose .gif')


def save_video(generated: Generated, path: str | os.PathLike[str], heading: bool = False, rate: int = 12) -> Path:
    """Write a film of a generation, 516 x 368 pixels, whole or not at all.

    On the left are the first two numbers of the states, where there are any: of the remembered steps (grey) and of the
    last 40 imagined ones. On the right is the imagined frame, above the true one where it is known. A GIF shows at most
    300 pictures, of every second, third, ... step.

    :param heading: whether the third number of a state is a heading in radians, which is drawn as an arrow.
    :param rate: pictures a second.
    :raises ConfigError: the name ends in neither .gif nor .mp4.
    :raises MissingDependencyError: an MP4, and PyAV is not installed.
    :raises RunFolderError: it cannot be written; whatever stood there stays as it was.
    """
    check_video(path)
    steps = range(len(generated.frames))
    if Path(path).suffix.lower() == ".gif":
        shown = steps[:: -(-len(steps) // _GIF_PICTURES)]
        pictures = watched(_pictures(generated, shown, heading), "making the film", "picture", len(shown))
        return write_result(path, gif(list(pictures), 1000 / rate))
    import imageio.v3 as iio

    buffer = io.BytesIO()
    with iio.imopen(buffer, "w", plugin="pyav", extension=".mp4") as film:
        film.init_video_stream("libx264", fps=rate)
        for picture in watched(_pictures(generated, steps, heading), "making the film", "picture", len(steps)):
            film.write_frame(np.asarray(picture))
    return write_result(path, buffer.getvalue())


def _pictures(generated: Generated, steps: Iterable[int], heading: bool) -> "Iterator[Image]":
    """One after another."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    remembered, states = (_places(s) for s in (generated.observed_states, generated.states))
    everywhere = np.concatenate([remembered, states]) if len(remembered) + len(states) else np.zeros((1, 2))
    low, high = everywhere.min(0), everywhere.max(0)
    unit = (_SIDE - 40) / max(float((high - low).max()), 1e-6)
    corner = np.array([_GAP, _HEADER])

    def spot(place: np.ndarray) -> tuple[float, float]:
        x, y = corner + _SIDE / 2 + unit * (place - (low + high) / 2) * (1, -1)
        return float(x), float(y)

    size = _SIDE + _VIEW + 3 * _GAP, _HEADER + 2 * _VIEW + 2 * _GAP
    background = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(background)
    pen.rectangle((*corner, *(corner + _SIDE)), fill="#EEEEEE")
    for place in remembered:
        x, y = spot(place)
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=MEAN)
    count = len(generated.frames)
    for step in steps:
        picture = background.copy()
        pen = ImageDraw.Draw(picture)
        pen.text((_GAP, 5), f"imagined step {step + 1} of {count}", fill="black", font=font)
        trail = [spot(place) for place in states[max(0, step - _TRAIL) : step + 1]]
        if len(trail) > 1:
            pen.line(trail, fill=PREDICTED, width=2)
        for x, y in trail[-1:]:
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=PREDICTED, outline="white")
        if heading and generated.states is not None:
            # rows grow to the south
            angle = float(generated.states[step, 2])
            pen.line((x, y, x + 18 * math.cos(angle), y - 18 * math.sin(angle)), fill=PREDICTED, width=3)
        frames = [(generated.frames[step], PREDICTED, "imagined")]
        if generated.true_frames is not None:
            frames.append((generated.true_frames[step], TRUE, "true"))
        for i, (frame, colour, name) in enumerate(frames):
            left, top = 2 * _GAP + _SIDE, _HEADER + i * (_VIEW + _GAP)
            pen.text((left, top), name, fill=colour, font=font)
            shown = Image.fromarray(_pixels(frame)).resize((_VIEW - 18, _VIEW - 18), Image.Resampling.NEAREST)
            picture.paste(shown, (left, top + 18))
        yield picture


def _places(states: np.ndarray | None) -> np.ndarray:
    """The first two numbers of each state, the second 0 where there is none: ``(steps, 2)``; none without states."""
    if states is None:
        return np.zeros((0, 2))
    return np.pad(states[:, :2], ((0, 0), (0, max(0, 2 - states.shape[1]))))


def _pixels(frame: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` uint8 of a frame ``(C, H, W)``, uint8 or float32 in [0, 1]."""
    return (image(frame / 255 if frame.dtype == np.uint8 else frame) * 255 + 0.5).astype(np.uint8)
