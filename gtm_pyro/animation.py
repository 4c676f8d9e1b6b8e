"""An animated rollout: the world with the true and the inferred position, and what is seen and what was predicted."""

import io
from typing import TYPE_CHECKING

import numpy as np

from gtm_pyro.evaluation import Evaluation
from gtm_pyro.figure_style import PREDICTED, TRUE, image, pixels_per_cell

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_SIDE, _VIEW, _GAP, _HEADER = 320, 148, 14, 24


def rollout_gif(evaluation: Evaluation, episode: int = 0, max_frames: int = 128, milliseconds: int = 120) -> bytes:
    """The predicted steps of one episode as an animated GIF, 506 x 384 pixels, for ever repeated.

    Without worlds, or where frames are no crops of them, positions are drawn on an empty square; without poses only
    the frames are shown.

    :param max_frames: a longer rollout shows every second, third, ... step.
    :param milliseconds: of each picture.
    """
    from PIL import Image

    steps = range(0, evaluation.episodes.num_predicted, -(-evaluation.episodes.num_predicted // max_frames))
    scene = _Scene(evaluation, episode)
    pictures = [scene.draw(step) for step in steps]
    # one palette for all, so that pictures differ only where something moved
    sheet = Image.new("RGB", (scene.width, 4 * scene.height))
    for i, place in enumerate(np.linspace(0, len(pictures) - 1, 4).astype(int)):
        sheet.paste(pictures[place], (0, i * scene.height))
    palette = sheet.quantize(256)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0, optimize=False)
    return buffer.getvalue()


class _Scene:
    """Draws one predicted step after another of one episode."""

    def __init__(self, evaluation: Evaluation, episode: int) -> None:
        from PIL import Image, ImageFont

        self.evaluation, self.episode = evaluation, episode
        self.episodes = evaluation.episodes
        self.font = ImageFont.load_default(13)
        self.height = _HEADER + _SIDE + 2 * _GAP + 12
        poses, aligned = self.episodes.poses, evaluation.aligned_states
        self.stride = pixels_per_cell(self.episodes)
        self.placed = poses is not None and poses.shape[-1] == 2 and aligned is not None
        self.left = _GAP + (_SIDE + _GAP if self.placed else 0)
        self.width = self.left + _VIEW + 10
        self.background = Image.new("RGB", (_SIDE, _SIDE), "#EEEEEE")
        if not self.placed or poses is None or aligned is None:
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
            self._positions(pen, number)
        frames = {"true": (self.episodes.frames[self.episode, number], TRUE),
                  "predicted": (self.evaluation.predicted_frames[self.episode, step], PREDICTED)}  # fmt: skip
        for i, (name, (frame, colour)) in enumerate(frames.items()):
            top = _HEADER + i * (_VIEW + 24)
            picture.paste(_enlarged(frame, _VIEW), (self.left, top))
            pen.rectangle((self.left - 2, top - 2, self.left + _VIEW + 1, top + _VIEW + 1), outline=colour, width=2)
            new = self.evaluation.visited is not None and not bool(self.evaluation.visited[self.episode, step])
            note = ", new place" if new and i else ""
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
        top = _HEADER + _SIDE + 4
        for i, (colour, text) in enumerate(((TRUE, "true position, crop"), (PREDICTED, "inferred from actions"))):
            left = _GAP + i * 160
            pen.ellipse((left, top + 4, left + 9, top + 13), fill=colour)
            pen.text((left + 14, top + 1), text, fill="black", font=self.font)


def _enlarged(frame: object, side: int) -> "Image":
    from PIL import Image

    pixels = (image(frame) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
