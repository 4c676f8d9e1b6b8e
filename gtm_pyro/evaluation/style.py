"""What all figures share: colours, canvases, and where a pose lies on the image that is walked on."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gtm_pyro.episodes import Episodes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common colour blindness
TRUE, PREDICTED, FLOOR, MEAN, UNVISITED = "#0072B2", "#D55E00", "#009E73", "#7F7F7F", "#CC79A7"
COPY = "#56B4E9"
TIME_MAP = "viridis"
DPI = 110
LAYOUT: Any = "constrained"
RAW_STATES = ("state 0 (the model's own unit)", "state 1 (the model's own unit)")


def canvas(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple["Figure", np.ndarray]:
    """A figure and its axes ``(rows, columns)``, outside pyplot: nothing global is touched and no screen is needed.

    :param size: width and height in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout=LAYOUT)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def png(figure: "Figure") -> bytes:
    """The figure as a file's content. ``savefig`` would lay it out and draw it twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    painted = FigureCanvasAgg(figure)
    painted.draw()
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(painted.buffer_rgba())).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def plain(axes: Any) -> None:
    """Only the two axes that carry numbers, and numbers without powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() in ("log", "symlog"):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def pixels_per_cell(episodes: Episodes) -> int | None:
    """The stride at which frames are crops of their worlds, found by comparing; None where they are no such crops."""
    if episodes.worlds is None or episodes.poses is None or episodes.poses.shape[-1] != 2:
        return None
    world, height, width = episodes.worlds[0], *episodes.frame_shape[1:]
    # a uniform patch looks the same everywhere, so many steps must agree
    steps = np.unique(np.linspace(0, episodes.num_steps - 1, 64).astype(int))
    poses, frames = episodes.poses[0, steps], episodes.frames[0, steps]
    if bool((poses != poses.round()).any()) or bool((poses < 0).any()):
        return None
    room = world.shape[-1] - width, world.shape[-2] - height
    for stride in range(1, max(room) + 1):
        corners = (stride * poses).long().tolist()
        if all(x <= room[0] and y <= room[1] for x, y in corners):
            crops = (world[:, y : y + height, x : x + width] for x, y in corners)
            if all(bool(((crop - frame).abs() < 1e-4).all()) for crop, frame in zip(crops, frames, strict=True)):
                return stride
    return None


def cells_of_world(side: Sequence[int], frame: Sequence[int], stride: int) -> tuple[float, float, float, float]:
    """Where an image that is walked on lies in cells, as ``extent`` of ``imshow``: left, right, bottom, top.

    A cell is named by the middle of what is seen there.

    :param side: height and width of the world in pixels.
    :param frame: of a frame.
    :param stride: pixels a cell.
    """
    (top, left), (bottom, right) = (
        tuple((edge - 0.5 - (size - 1) / 2) / stride for edge, size in zip(edges, frame, strict=True))
        for edges in ((0, 0), side)
    )
    return left, right, bottom, top


def image(frame: Any) -> np.ndarray:
    """A frame ``(C, H, W)`` as ``(H, W, 3)`` in [0, 1]: one channel becomes grey, of many the first three are shown."""
    pixels = np.clip(np.asarray(frame, dtype=np.float32), 0, 1).transpose(1, 2, 0)
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, -1)
