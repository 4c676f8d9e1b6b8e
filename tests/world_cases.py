"""Small worlds for tests, and what tests ask of their episodes."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.tasks.image_navigation import walks

MOVES = walks.displacements().float()
FIELDS = ("frames", "actions", "poses", "worlds")


def save_images(folder: Path, number: int, size: tuple[int, int] = (40, 50)) -> list[np.ndarray]:
    """Pictures of noise: no two views are alike, and no decoder rounds them in its own way.

    :param size: (height, width).
    """
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for _ in range(number)]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return pictures


def noise_images(folder: Path) -> str:
    """A folder with eight of them."""
    save_images(folder, 8)
    return str(folder)


def draw(
    images: str, batch: int = 16, observed: int = 64, predicted: int = 16, seed: int = 0, **fields: Any
) -> Episodes:
    data = ImageNavigation(images, **fields)
    return data.sample(batch, num_observed=observed, num_predicted=predicted, seed=seed)


def poses_of(episodes: Episodes) -> Tensor:
    assert episodes.poses is not None
    return episodes.poses


def worlds_of(episodes: Episodes) -> Tensor:
    assert episodes.worlds is not None
    return episodes.worlds


def five_errors(probability: float, number: int) -> float:
    """Five standard errors of a share: a false alarm in 1.7 million."""
    return 5 * (probability * (1 - probability) / number) ** 0.5


def views(worlds: Tensor) -> Tensor:
    """What is seen from each cell, shape (batch, 81, values); cell 9 y + x."""
    cells = torch.cartesian_prod(torch.arange(9), torch.arange(9)).flip(-1)
    return walks.crops(worlds, cells.expand(len(worlds), 81, 2), 8, 3).flatten(2)


def digest(*tensors: Tensor | None) -> str:
    whole = sha256()
    for tensor in tensors:
        assert tensor is not None
        whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]
