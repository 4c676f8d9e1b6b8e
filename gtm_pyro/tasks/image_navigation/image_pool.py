"""The images of each split, cut to one size."""

from pathlib import Path

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError, ImagesError, check_whole
from gtm_pyro.storage.limits import check_memory
from gtm_pyro.tasks.base import Split, check_split, seeded_generator
from gtm_pyro.tasks.image_navigation.images import cut_images, find_images, photographs, read_image

# The share of test images among the bundled photographs, whose split is fixed.
PHOTOGRAPH_TEST_FRACTION = 0.25
PHOTOGRAPH_CUTS = 256


class ImagePool:
    """The images of a folder, read at once, or the bundled photographs, read when they are asked for.

    The arguments are those of ``ImageNavigation``; ``size`` is the pixels on a side.
    """

    def __init__(
        self, directory: str | None, size: int, cuts_per_image: int | None, test_fraction: float, seed: int
    ) -> None:
        if cuts_per_image is None:
            cuts_per_image = PHOTOGRAPH_CUTS if directory is None else 1
        check_whole(1, cuts_per_image=cuts_per_image)
        if not 0 < test_fraction <= 1:
            raise ConfigError(f"test_fraction: expected over 0 and at most 1, got {test_fraction}")
        if directory is None and test_fraction != PHOTOGRAPH_TEST_FRACTION:
            raise ConfigError(
                f"test_fraction: expected {PHOTOGRAPH_TEST_FRACTION} with the bundled photographs, whose "
                f"split is fixed, got {test_fraction}; it applies to a folder given as images"
            )
        check_whole(0, image_seed=seed)
        self.directory, self.size, self.cuts_per_image = directory, size, cuts_per_image
        self.test_fraction, self.seed = float(test_fraction), seed
        self._cuts: dict[Split, Tensor] = {}
        if directory is not None:
            # read together, so that bad files are named together
            splits = split_images(directory, test_fraction, seed)
            cuts = self._cut([path for paths in splits.values() for path in paths])
            parts = cuts.split([len(paths) * cuts_per_image for paths in splits.values()])
            self._cuts = dict(zip(splits, parts, strict=True))

    def __getitem__(self, split: Split) -> Tensor:
        """Every image of a split, shape (number, 3, size, size), uint8."""
        check_split(split)
        if split not in self._cuts:
            if self.directory is not None:
                raise ConfigError(
                    f"split: expected 'test', for with test_fraction={self.test_fraction:g} every image of "
                    f"{self.directory} is a test image, got {split!r}"
                )
            self._cuts[split] = self._cut(photographs(split))
        return self._cuts[split]

    def _cut(self, paths: list[Path]) -> Tensor:
        check_memory("cuts_per_image * pixels of a cut", self.cuts_per_image * self.size**2, 3 * len(paths))
        return torch.from_numpy(cut_images(paths, self.cuts_per_image, self.size, self.seed))


def split_images(directory: str, test_fraction: float, seed: int) -> dict[Split, list[Path]]:
    """The images of a folder, some of them drawn for testing, at least one on each side; with test_fraction=1 all are.

    :raises ImagesError: there is no image, or but one where two are needed.
    """
    paths = find_images(directory)
    if test_fraction == 1:
        return {"test": paths}
    if len(paths) < 2:
        read_image(paths[0])  # that it is no image at all is the greater problem
        raise ImagesError(
            f"images: expected at least two images in {directory}, one to train on and one to test "
            f"on, got {paths[0].name} alone; test_fraction=1 makes it a test image"
        )
    shuffled = torch.randperm(len(paths), generator=seeded_generator(seed, "split of the images")).tolist()
    num_test = min(max(round(test_fraction * len(paths)), 1), len(paths) - 1)
    return {"train": [paths[i] for i in shuffled[num_test:]], "test": [paths[i] for i in shuffled[:num_test]]}
