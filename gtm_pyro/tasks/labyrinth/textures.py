"""Colours of labyrinths: a palette that all renderers share, and textures of walls, floors and ceilings."""

from functools import cache

import numpy as np

SIZE = 64
"""Of a texture, in texels; it covers one cell."""
_GREY = np.ones(3) / np.sqrt(3)
_RED, _BLUE = np.array([1, -1, 0]) / np.sqrt(2), np.array([-1, -1, 2]) / np.sqrt(6)


def _palette() -> np.ndarray:
    """255 colours on a body-centred lattice about grey, none very bright or saturated; entry 0 is black."""
    spacing, steps = 0.136, np.arange(-12, 13)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    # of three integers, all even or all odd
    lattice = lattice[(lattice % 2 == lattice[:, :1] % 2).all(-1)] * spacing / 2
    colours = 0.52 + lattice @ np.stack([_GREY, _RED, _BLUE])
    # an ellipsoid: more brightnesses than saturations
    far = ((lattice / [0.65, 0.5, 0.5]) ** 2).sum(-1).round(9)
    far[((colours < 0.02) | (colours > 0.98)).any(-1)] = np.inf
    nearest = colours[np.argsort(far, kind="stable")[:255]]
    return np.concatenate([np.zeros((1, 3)), nearest * 255]).round().astype(np.uint8)


PALETTE = _palette()
"""The colours of every texture and picture, ``(256, 3)`` uint8. Entry 0 stands for what is transparent."""


@cache
def _nearest() -> np.ndarray:
    """The entry, from 1, nearest to each colour of 5 bits a channel, ``(32, 32, 32)`` uint8."""
    middle = np.arange(32) * 8 + 3.5
    colours = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), -1).reshape(-1, 1, 3)
    entries = PALETTE[1:].astype(np.float64)
    parts = [((part - entries) ** 2).sum(-1).argmin(-1) for part in np.array_split(colours, 32)]
    return (np.concatenate(parts) + 1).reshape(32, 32, 32).astype(np.uint8)


def to_palette(image: np.ndarray) -> np.ndarray:
    """Entries of the palette nearest to colours; a colour of the palette gives its own entry, never 0.

    :param image: uint8, the last axis red, green, blue, ``(..., 3)``.
    :returns: uint8, ``(...)``.
    """
    red, green, blue = np.moveaxis(image >> 3, -1, 0)
    return _nearest()[red, green, blue]


def quantised(image: np.ndarray) -> np.ndarray:
    """Colours from 0 to 1, ``(..., 3)``, as the nearest colours of the palette, uint8."""
    return PALETTE[to_palette((image.clip(0, 1) * 255).round().astype(np.uint8))]


def colour(hue: float, saturation: float, brightness: float) -> np.ndarray:
    """Red, green and blue from 0 to 1.

    :param hue: in turns.
    :param saturation: distance from grey, at most about 0.5 within the palette.
    :param brightness: mean of the three.
    """
    angle = 2 * np.pi * hue
    return brightness + saturation * (np.cos(angle) * _RED + np.sin(angle) * _BLUE)


def surface(rng: np.random.Generator, hue: float, calm: bool = False) -> np.ndarray:
    """A texture of two colours, one of them of the given hue.

    :param hue: in turns.
    :param calm: with less contrast and one cycle a cell, for floors and ceilings.
    :returns: ``(SIZE, SIZE, 3)`` uint8, colours of the palette, periodic.
    """
    pattern = _pattern(rng, 1 if calm else int(rng.choice([1, 1, 1, 2])))[..., None]
    # what differs between walls says more at 32x32 than what differs within one
    brightness = rng.uniform(0.35, 0.68) if calm else rng.choice([0.36, 0.68]) + rng.uniform(-0.06, 0.06)
    contrast = rng.uniform(0.05, 0.1) if calm else rng.uniform(0.1, 0.17)
    shift = rng.uniform(-0.08, 0.08) if calm else rng.choice([-1, 1]) * rng.uniform(0.05, 0.2)
    saturation = rng.uniform(0.1, 0.3) if calm else rng.uniform(0.3, 0.48)
    dark = colour(hue, saturation, brightness - contrast)
    light = colour(hue + shift, saturation * rng.uniform(0.5, 1), brightness + contrast)
    return quantised(dark + pattern * (light - dark))


def _pattern(rng: np.random.Generator, cycles: int) -> np.ndarray:
    """From 0 to 1, ``(SIZE, SIZE)``, periodic, with soft edges and ``cycles`` or one cycle each way."""
    place = (np.arange(SIZE) + 0.5) / SIZE
    across, down = 2 * np.pi * (place + rng.uniform()), 2 * np.pi * (place[:, None] + rng.uniform())
    kind = rng.integers(6)
    if kind == 0:  # upright stripes
        wave = np.sin(cycles * across) + 0 * down
    elif kind == 1:  # level bands
        wave = np.sin(down) + 0 * across
    elif kind == 2:  # slanted stripes
        wave = np.sin(across + rng.choice([-1, 1]) * down)
    elif kind == 3:  # checks
        wave = 1.6 * np.sin(across) * np.sin(down)
    elif kind == 4:  # round blobs
        wave = 2 * np.exp(1.2 * (np.cos(across) + np.cos(down) - 2)) * 1.3 - 1
    else:  # clouds
        drift = rng.uniform(0, 2 * np.pi, 3)
        wave = 0.6 * (
            np.sin(across + drift[0]) + np.sin(down + np.sin(across + drift[1])) + np.sin(across - down + drift[2])
        )
    # sharper edges for some, which 32x32 frames still show as one step
    edge = rng.choice([0.5, 1.0, 2.5])
    return 0.5 + 0.5 * np.tanh(edge * wave) / np.tanh(edge)
