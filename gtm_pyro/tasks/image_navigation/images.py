"""Images to walk on: finding and reading them, and cutting small squares out of them."""

import logging
import mimetypes
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gtm_pyro.errors import ImagesError, MissingDependencyError, Together
from gtm_pyro.storage.progress import watched
from gtm_pyro.tasks.base import Split

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Pictures that are not read, beside those that Python knows as such: their owner may think that they are.
_OTHER_PICTURES = frozenset(
    {".ai", ".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jfif", ".jp2"}
    | {".jxl", ".nef", ".orf", ".psd", ".raw", ".rw2", ".svg", ".svgz", ".tga", ".xcf"}
)

# A cut below this standard deviation over its pixels, in units of the grey range, is drawn again: a black sky
# looks the same everywhere and says nothing about place.
MINIMUM_CONTRAST = 0.05
_MAXIMUM_ROUNDS = 20

# In the wheel of scikit-image, and so here without a download. No photograph serves both splits.
_PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "rocket.jpg",
        "motorcycle_left.png",
        "retina.jpg",
        "hubble_deep_field.jpg",
        "ihc.png",
    ),
    "test": ("chelsea.png", "coffee.png"),
}


def photographs(split: Split) -> list[Path]:
    """The colour photographs that scikit-image bundles: six to train on, a cat and a coffee to test on.

    :raises MissingDependencyError: scikit-image is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("the default photographs come with scikit-image: pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    return [folder / name for name in _PHOTOGRAPHS[split]]


def find_images(directory: str | os.PathLike[str]) -> list[Path]:
    """Files with an image's suffix in a folder and the folders below it, sorted; others, and hidden ones, are
    ignored, with a warning where they are pictures of other kinds (SVG, HEIC, ...).

    :raises ImagesError: the folder is missing, is no folder, cannot be read, or holds no image.
    """
    directory = Path(directory)
    if not directory.is_dir():
        came = "got a file" if directory.exists() else "there is nothing"
        raise ImagesError(f"images: expected a folder of images at {directory}, {came}")

    def refuse(error: OSError) -> None:
        raise ImagesError(f"images: folder {error.filename} cannot be read ({error.strerror})") from error

    found: list[Path] = []
    others: list[Path] = []
    count = 0
    for folder, _, names in os.walk(directory, onerror=refuse):
        count += len(names)
        for path in (Path(folder, name) for name in names if name[0] != "."):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.append(path)
            elif _is_picture(path):
                others.append(path)
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        came = f"none of its {count} files has an image's suffix ({known})" if count else "it is empty"
        raise ImagesError(f"images: expected a folder of images at {directory}, {came}")
    if others:
        logger.warning("images: %s left out, for pictures of that kind are not read", _some(others))
    return sorted(found)


def _is_picture(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name, strict=False)[0] or ""
    return kind.startswith("image/") or path.suffix.lower() in _OTHER_PICTURES


def _some(paths: Sequence[Path]) -> str:
    """The first of some files, and how many there are."""
    first = min(paths)
    return f"{first} is" if len(paths) == 1 else f"{first} and {len(paths) - 1} more are"


def read_image(path: Path) -> np.ndarray:
    """One image upright in RGB, shape (height, width, 3), uint8. Grey becomes RGB; transparency is dropped.

    Of several pictures in one file, an animated GIF for instance, it is the first.

    :raises ImagesError: the file cannot be read, is no image, is cut short, or has more than 8 bits a channel.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[np.ndarray, int]:
    """The image, and how many pictures its file holds."""
    try:
        with Image.open(path) as image:
            # MPO is what telephones write as .jpg, with a preview beside the photograph
            pictures = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if image.mode[0] in "IF":
                raise ImagesError(f"images: {path}: expected 8 bits a channel, got mode {image.mode}")
            # Palettes with transparency lose it with a warning unless they pass through RGBA.
            upright = ImageOps.exif_transpose(image.convert("RGBA") if image.mode == "P" else image)
            return np.asarray(upright.convert("RGB")), pictures
    except ImagesError:
        raise
    # Pillow's decoders raise errors of many kinds for damaged files.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = "its content is no known image format"
        raise ImagesError(f"images: {path} cannot be read as an image ({reason})") from error


def cut_images(paths: Sequence[Path], cuts_per_image: int, size: int, seed: int) -> np.ndarray:
    """Square cuts of every image, area-averaged to size x size pixels.

    One cut an image is its largest centred square. More are squares at random places, of random sides between
    three times ``size`` (or the short side, if that is less) and the short side, with a contrast of at least
    MINIMUM_CONTRAST; an image without enough such squares gives those of highest contrast. An image's cuts
    depend on its own name and the seed, not on the other images.

    :returns: shape (len(paths) * cuts_per_image, 3, size, size), uint8.
    :raises ImagesError: files cannot be read, or are smaller than ``size`` pixels; they are named together.
    """

    moving: list[Path] = []

    def cut(path: Path) -> np.ndarray:
        pixels, pictures = _read(path)
        if pictures > 1:
            moving.append(path)
        height, width = pixels.shape[:2]
        if min(height, width) < size:
            raise ImagesError(f"images: {path}: expected at least {size}x{size} pixels, got {width}x{height}")
        if cuts_per_image == 1:
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = pixels[top : top + side, left : left + side]
            corner = np.zeros(1, np.int64)
            return average_squares(square, corner, corner, np.array([side]), size)
        rng = np.random.default_rng([seed, crc32(path.name.encode())])
        return _random_squares(pixels, cuts_per_image, size, rng)

    cut_out, problems = [], Together()
    for path in watched(paths, "reading images", "image", len(paths)):
        with problems.one():
            cut_out.append(cut(path))
    problems.tell()
    cuts = np.concatenate(cut_out)
    if moving:
        logger.warning("images: %s of several pictures, of which the first alone is taken", _some(moving))
    return np.ascontiguousarray(cuts.transpose(0, 3, 1, 2))


def average_squares(pixels: np.ndarray, top: np.ndarray, left: np.ndarray, side: np.ndarray, size: int) -> np.ndarray:
    """Area averages of squares of an image, each divided into size x size parts along whole pixels.

    :param pixels: shape (height, width, 3), uint8.
    :param top: in pixels, shape (number,), int64, with side >= size.
    :param left: in pixels, shape (number,), int64, with side >= size.
    :param side: in pixels, shape (number,), int64, with side >= size.
    :returns: shape (number, size, size, 3), uint8, rounded to the nearest.
    """
    # A summed-area table gives every sum by four look-ups; differences of uint32 survive its overflow.
    height, width, channels = pixels.shape
    table = np.zeros((height + 1, width + 1, channels), np.uint32)
    inner = table[1:, 1:]
    np.cumsum(pixels, axis=0, dtype=np.uint32, out=inner)
    np.cumsum(inner, axis=1, out=inner)
    edges = side[:, None] * np.arange(size + 1) // size
    corners = table[(top[:, None] + edges)[:, :, None], (left[:, None] + edges)[:, None, :]]
    sums = corners[:, 1:, 1:] - corners[:, :-1, 1:] - corners[:, 1:, :-1] + corners[:, :-1, :-1]
    lengths = np.diff(edges)
    areas = (lengths[:, :, None] * lengths[:, None, :])[..., None]
    averages: np.ndarray = (sums + areas // 2) // areas
    return averages.astype(np.uint8)


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image with its colour channels permuted, and mirrored along either axis and the diagonal, at random.

    One photograph gives 48 images with the statistics of photographs; without this, six photographs do not teach
    the colours of a seventh.

    :param images: shape (number, 3, size, size).
    """
    order = torch.rand(len(images), 3, generator=generator).argsort(1)
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    across, down, diagonal = (torch.rand(3, len(images), 1, 1, 1, generator=generator) < 0.5).unbind()
    images = torch.where(across, images.flip(-1), images)
    images = torch.where(down, images.flip(-2), images)
    return torch.where(diagonal, images.mT, images)


def _random_squares(pixels: np.ndarray, number: int, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    longest = min(height, width)
    cuts: list[np.ndarray] = []
    contrasts: list[np.ndarray] = []
    for _ in range(_MAXIMUM_ROUNDS):
        side = rng.integers(min(3 * size, longest), longest, endpoint=True, size=number)
        top = rng.integers(0, height - side, endpoint=True)
        left = rng.integers(0, width - side, endpoint=True)
        cuts.append(average_squares(pixels, top, left, side, size))
        contrasts.append(np.sqrt(cuts[-1].var(axis=(1, 2), dtype=np.float64).mean(-1)) / 255)
        if sum(int((contrast >= MINIMUM_CONTRAST).sum()) for contrast in contrasts) >= number:
            break
    # Capped, so that among good cuts the order of drawing stands and high contrast is not preferred.
    capped = np.minimum(np.concatenate(contrasts), MINIMUM_CONTRAST)
    return np.concatenate(cuts)[np.argsort(-capped, kind="stable")[:number]]
