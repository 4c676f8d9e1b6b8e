"""An animated rollout: the world with the true and the inferred position, and what is seen and what was predicted."""

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.headings import map_poses
from gtm_pyro.evaluation.style import PREDICTED, TRUE, image, pixels_per_cell
from gtm_pyro.report.ground import Ground, empty_picture, picture_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from torch import Tensor

_SIDE, _VIEW, _GAP, _HEADER = 320, 148, 14, 24
_SIGHT = math.radians(50)  # half of what agents with a heading are drawn to see


def rollout_gif(
    evaluation: Evaluation,
    episode: int = 0,
    max_frames: int = 150,
    ground: Ground | None = None,
) -> bytes | None:
    """The predicted steps of one episode as an animated GIF, 506 x 384 pixels, for ever repeated.

    Without worlds, or where frames are no crops of them, positions are drawn on an empty square; without poses only
    the frames are shown.

    :param max_frames: a longer rollout shows every second, third, ... step.
    :param ground: what agents with a heading walk on.
    :returns: None where nothing is imagined.
    """
    steps = range(0, evaluation.episodes.num_predicted, -(-evaluation.episodes.num_predicted // max_frames))
    if evaluation.predicted_frames is None:
        return None
    scene = _Scene(evaluation, evaluation.predicted_frames[episode], episode, ground)
    return gif([scene.draw(step) for step in steps], 120)


def gif(pictures: "Sequence[Image]", milliseconds: float) -> bytes:
    """Pictures of one size, each shown so long, for ever repeated."""
    from PIL import Image

    # one palette for all, so that pictures differ only where something moved
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, 4 * height))
    for i, place in enumerate(np.linspace(0, len(pictures) - 1, 4).astype(int)):
        sheet.paste(pictures[place], (0, i * height))
    palette = sheet.quantize(256)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0, optimize=False)
    return buffer.getvalue()


class _Scene:
    """Draws one predicted step after another of one episode."""

    def __init__(self, evaluation: Evaluation, predicted: "Tensor", episode: int, ground: Ground | None) -> None:
        from PIL import Image, ImageFont

        self.evaluation, self.predicted, self.episode = evaluation, predicted, episode
        self.episodes = evaluation.episodes
        self.font = ImageFont.load_default(13)
        self.height = _HEADER + _SIDE + 2 * _GAP + 12
        poses, aligned, self.headed = self.episodes.poses, evaluation.aligned_states, map_poses(evaluation)
        self.stride = pixels_per_cell(self.episodes)
        flat = poses is not None and poses.shape[-1] == 2 and aligned is not None
        self.placed = flat or self.headed is not None
        self.left = _GAP + (_SIDE + _GAP if self.placed else 0)
        self.width = self.left + _VIEW + 10
        self.background = Image.new("RGB", (_SIDE, _SIDE), "#EEEEEE")
        if self.headed is not None:
            self.true, self.inferred = self.headed.true[episode, :, :2], self.headed.positions[episode]
            self.map = empty_picture(self.true, _SIDE) if ground is None else picture_of(ground, _SIDE)
            self.background = Image.fromarray(self.map.pixels)
        if not flat or poses is None or aligned is None:
            return
        self.true, self.inferred = poses[episode].numpy(), aligned[episode].numpy()
        frame_height, frame_width = self.episodes.frame_shape[1:]
        if self.stride is not None and self.episodes.worlds is not None:
            world = self.episodes.worlds[episode]
            self.background = _enlarged(world, _SIDE)
            pixel = np.array([_SIDE / world.shape[-1], _SIDE / world.shape[-2]])
            self.unit, self.origin = self.stride * pixel, np.array([frame_width, frame_height]) / 2 * pixel
            self.crop = np.array([frame_width, frame_height]) * pixel
        else:
            low, high = self.true.min(0), self.true.max(0)
            self.unit = np.full(2, (_SIDE - 40) / max(float((high - low).max()), 1e-6))
            self.origin, self.crop = 20 - low * self.unit, np.zeros(2)

    def draw(self, step: int) -> "Image":
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (self.width, self.height), "white")
        pen = ImageDraw.Draw(picture)
        number = self.episodes.num_observed + step
        pen.text((_GAP, 6), f"predicted step {step + 1} of {self.episodes.num_predicted}", fill="black", font=self.font)
        if self.placed:
            picture.paste(self.background, (_GAP, _HEADER))
            self._poses(pen, number) if self.headed else self._positions(pen, number)
        frames = {"true": (self.episodes.frames[self.episode, number], TRUE),
                  "predicted": (self.predicted[step], PREDICTED)}  # fmt: skip
        for i, (name, (frame, colour)) in enumerate(frames.items()):
            top = _HEADER + i * (_VIEW + 24)
            picture.paste(_enlarged(frame, _VIEW), (self.left, top))
            pen.rectangle((self.left - 2, top - 2, self.left + _VIEW + 1, top + _VIEW + 1), outline=colour, width=2)
            new = self.evaluation.visited is not None and not bool(self.evaluation.visited[self.episode, step])
            note = f", new {'view' if self.headed else 'place'}" if new and i else ""
            pen.text((self.left, top + _VIEW + 3), name + note, fill=colour, font=self.font)
        return picture

    def _positions(self, pen: "ImageDraw", number: int) -> None:
        corner = np.array([_GAP, _HEADER])
        trail = [tuple(corner + p * self.unit + self.origin) for p in self.true[max(0, number - 12) : number + 1]]
        if len(trail) > 1:
            pen.line(trail, fill="white", width=5)
            pen.line(trail, fill=TRUE, width=2)
        true, inferred = (corner + p[number] * self.unit + self.origin for p in (self.true, self.inferred))
        if self.crop.any():
            box = (*(true - self.crop / 2), *(true + self.crop / 2 - 1))
            pen.rectangle(box, outline="white", width=4)
            pen.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=TRUE, width=2)
        for centre, radius, colour in ((true, 8, TRUE), (inferred, 5, PREDICTED)):
            box = (*(centre - radius), *(centre + radius))
            pen.ellipse(box, fill=colour, outline="white", width=1)
        self._legend(pen, "true position, crop", "inferred from actions")

    def _poses(self, pen: "ImageDraw", number: int) -> None:
        """Agents as arrows, with what they see between two lines, and where they were during the last steps."""
        assert self.headed is not None
        corner, since = np.array([_GAP, _HEADER]), slice(max(0, number - 12), number + 1)
        headings = {TRUE: self.headed.true[self.episode, :, 2]}
        if self.headed.headings is not None:
            headings[PREDICTED] = self.headed.headings[self.episode]
        for colour, path, size in ((TRUE, self.true, 19), (PREDICTED, self.inferred, 12)):
            trail = [tuple(np.clip(place, 0, _SIDE) + corner) for place in self.map.place(path[since])]
            if len(trail) > 1 and self.headed.moving:
                pen.line(trail, fill="white", width=4)
                pen.line(trail, fill=colour, width=2)
            # an agent that is believed to be off the map waits at its edge
            x, y = np.clip(self.map.place(path[number]), 4, _SIDE - 5) + corner
            if colour not in headings:
                pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline="white")
                continue
            heading = headings[colour][number]
            for aside in (-_SIGHT, _SIGHT) if colour == TRUE else ():
                pen.line((x, y, *_ahead(x, y, heading + aside, 2.6 * size)), fill="white", width=2)
            shape = ((0.0, 1.0), (2.35, 0.85), (math.pi, 0.3), (-2.35, 0.85))
            tips = [_ahead(x, y, heading + aside, far * size) for aside, far in shape]
            pen.polygon(tips, fill=colour, outline="white")
        self._legend(pen, "true pose", "inferred from actions")

    def _legend(self, pen: "ImageDraw", *texts: str) -> None:
        top = _HEADER + _SIDE + 4
        for i, (colour, text) in enumerate(zip((TRUE, PREDICTED), texts, strict=True)):
            left = _GAP + i * 160
            pen.ellipse((left, top + 4, left + 9, top + 13), fill=colour)
            pen.text((left + 14, top + 1), text, fill="black", font=self.font)


def _ahead(x: float, y: float, heading: float, far: float) -> tuple[float, float]:
    """Rows grow to the south."""
    return x + far * math.cos(heading), y - far * math.sin(heading)


def _enlarged(frame: object, side: int) -> "Image":
    from PIL import Image

    pixels = (image(frame) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
