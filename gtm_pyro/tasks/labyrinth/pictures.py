"""Pictures of the things that stand in a labyrinth."""

from collections.abc import Callable

import numpy as np

from gtm_pyro.tasks.labyrinth.textures import PALETTE, colour, quantised

SIZE = 32
"""Of a picture, in texels."""
# texel centres, x from -1 to 1 to the right, y from 0 at the floor to 1
_X = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1)[None, :] + np.zeros((SIZE, 1))
_Y = (1 - (np.arange(SIZE) + 0.5) / SIZE)[:, None] + np.zeros((1, SIZE))

Layer = tuple[np.ndarray, np.ndarray]  # where it is, and how far across it, from -1 to 1, for its shading


def picture(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """A thing of a random kind and colour.

    :returns: ``(SIZE, SIZE, 4)`` uint8, colours of the palette, the last channel 0 or 255; width and height in cells.
    """
    draw, width, height = _KINDS[rng.integers(len(_KINDS))]
    hue = rng.uniform()
    image, seen = np.zeros((SIZE, SIZE, 3)), np.zeros((SIZE, SIZE), bool)
    for number, (inside, across) in enumerate(draw(rng)):
        # each part has a hue of its own, and light falls from the left
        base = colour(hue + 0.37 * number, 0.3, rng.uniform(0.5, 0.62))
        shade = 0.14 * np.sqrt(np.clip(1 - (across + 0.35) ** 2, 0, 1)) - 0.1
        image[inside] = (base + shade[..., None])[inside]
        seen |= inside
    scale = rng.uniform(0.85, 1.15)
    coloured = np.where(seen[..., None], quantised(image), PALETTE[0])
    alpha = np.where(seen, 255, 0).astype(np.uint8)[..., None]
    return np.concatenate([coloured, alpha], -1).astype(np.uint8), scale * width, scale * height


def _turned(low: float, high: float, width: np.ndarray | float, top_width: float | None = None) -> Layer:
    """A body of revolution between two heights, its half width straight from ``width`` to ``top_width``."""
    if top_width is not None:
        width = width + (top_width - width) * ((_Y - low) / (high - low)).clip(0, 1)
    across = _X / np.maximum(width, 1e-3)
    return (np.abs(across) <= 1) & (low <= _Y) & (high >= _Y), across


def _round(x: float, y: float, width: float, height: float) -> Layer:
    """An ellipse about (x, y) of these half axes."""
    across, up = (_X - x) / width, (_Y - y) / height
    return across**2 + up**2 <= 1, across - 0.4 * up


def _ball(rng: np.random.Generator) -> list[Layer]:
    band = _round(0, 0.5, 1, 0.5)
    return [band, (band[0] & (np.abs(_Y - 0.5) < 0.14), band[1])]


def _bottle(rng: np.random.Generator) -> list[Layer]:
    body = 0.85 - 0.55 / (1 + np.exp(-(_Y - rng.uniform(0.55, 0.68)) * 18))
    label = _turned(0.15, 0.42, 0.85)
    return [_turned(0, 0.92, body), label, _turned(0.9, 1, 0.36)]


def _cone(rng: np.random.Generator) -> list[Layer]:
    return [_turned(0.07, 1, 0.8, 0.08), _turned(0, 0.09, 1), _turned(0.36, 0.58, 0.565, 0.38)]


def _lamp(rng: np.random.Generator) -> list[Layer]:
    return [_turned(0, 0.07, 0.6, 0.4), _turned(0.06, 0.62, 0.12), _turned(0.58, 1, 0.95, rng.uniform(0.4, 0.6))]


def _plant(rng: np.random.Generator) -> list[Layer]:
    leaves = [_round(x, y, 0.42, 0.24) for x, y in ((-0.5, 0.6), (0.5, 0.62), (0, 0.74), (0, 0.5))]
    # one part, so that all leaves have one hue
    inside = np.any([leaf[0] for leaf in leaves], 0)
    across = leaves[0][1]
    for leaf in leaves[1:]:
        across = np.where(leaf[0], leaf[1], across)
    return [(inside, across), _turned(0, 0.34, 0.4, 0.6)]


def _vase(rng: np.random.Generator) -> list[Layer]:
    body = 0.55 + 0.38 * np.sin(np.pi * (_Y * 1.25 - 0.05))
    return [_turned(0, 0.95, body), _turned(0.4, 0.55, body), _turned(0.93, 1, 0.62)]


_KINDS: tuple[tuple[Callable[[np.random.Generator], list[Layer]], float, float], ...] = (
    (_ball, 0.36, 0.36),
    (_bottle, 0.26, 0.56),
    (_cone, 0.36, 0.52),
    (_lamp, 0.36, 0.74),
    (_plant, 0.42, 0.6),
    (_vase, 0.32, 0.48),
)
"""How a thing is drawn, and its width and height in cells."""
