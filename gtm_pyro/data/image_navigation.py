"""An agent walks on an image and sees a small crop of it (Fraccaro et al. 2018, section 4.1)."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gtm_pyro.data import walks
from gtm_pyro.data.base import Split, check_request, check_split, check_whole, seeded_generator
from gtm_pyro.data.images import cut_images, find_images, photographs, read_image, vary
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError, ImagesError

# The share of test images among the bundled photographs, whose split is fixed.
_PHOTOGRAPH_TEST_FRACTION = 0.25
_PHOTOGRAPH_CUTS = 256


class Walk(NamedTuple):
    """What an agent saw and where."""

    frames: Tensor  # (batch, steps, 3, crop_size, crop_size), values in [0, 1]
    poses: Tensor  # (batch, steps, 2), (x, y) in cells, x to the right and y down, of the dtype of the frames


class ImageNavigation:
    """Episodes of an agent that walks on square images of ``stride * (positions - 1) + crop_size`` pixels.

    It stands on one of positions x positions cells, ``stride`` pixels apart, and sees crop_size x crop_size
    pixels. Actions are one-hot: up, down, left, right, stay; one is drawn uniformly and kept for 1 + Poisson
    steps. Every episode starts in the centre, where its first frame is seen with the action "stay".

    :param images: a folder of images, searched with the folders below it, split by file into training and test images.
        By default the colour photographs that scikit-image bundles, two of them for testing.
    :param walls: at the edge, a move outwards has no effect (the paper's setting). Without walls the walk turns back at
        the edge, so that every action recorded moves as it says.
    :param mean_repeats: mean of the Poisson number of times that an action is repeated.
    :param positions: cells on a side.
    :param crop_size: pixels on a frame's side.
    :param stride: pixels between neighbouring cells.
    :param cuts_per_image: square cuts taken from each image; 1 is the largest centred square, the default for a folder.
        The default for the photographs is 256 random ones.
    :param augment: show training images with permuted colours and mirrored, 48 from one; the default for the
        photographs, which are few, and not for a folder. Test images are never changed.
    :param test_fraction: share of a folder's images that are for testing, at least one on each side; with 1 all are.
        The photographs' split is fixed at 2 of 8.
    :param image_seed: seed of the split of a folder and of the random cuts.
    :raises ConfigError: a field is out of its range.
    :raises ImagesError: the folder or a file in it cannot be used; every file is read here (about 1 ms each at 178x218
        pixels), so that training never meets a bad one.
    """

    action_names = walks.ACTION_NAMES
    action_dim = len(walks.ACTION_NAMES)

    def __init__(
        self,
        images: str | None = None,
        *,
        walls: bool = True,
        mean_repeats: float = 2.0,
        positions: int = 9,
        crop_size: int = 8,
        stride: int = 3,
        cuts_per_image: int | None = None,
        augment: bool | None = None,
        test_fraction: float = 0.25,
        image_seed: int = 0,
    ) -> None:
        if cuts_per_image is None:
            cuts_per_image = _PHOTOGRAPH_CUTS if images is None else 1
        check_whole(1, positions=positions, crop_size=crop_size, stride=stride, cuts_per_image=cuts_per_image)
        if positions < 2:
            raise ConfigError(f"positions: expected at least 2 cells on a side, got {positions}")
        if not (math.isfinite(mean_repeats) and mean_repeats >= 0):
            raise ConfigError(f"mean_repeats: expected a number of at least 0, got {mean_repeats}")
        if not 0 < test_fraction <= 1:
            raise ConfigError(f"test_fraction: expected over 0 and at most 1, got {test_fraction}")
        if images is None and test_fraction != _PHOTOGRAPH_TEST_FRACTION:
            raise ConfigError(
                f"test_fraction: expected {_PHOTOGRAPH_TEST_FRACTION} with the bundled photographs, whose "
                f"split is fixed, got {test_fraction}; it applies to a folder given as images"
            )
        check_whole(0, image_seed=image_seed)
        self.images = images
        self.walls = walls
        self.mean_repeats = float(mean_repeats)
        self.positions = positions
        self.crop_size = crop_size
        self.stride = stride
        self.cuts_per_image = cuts_per_image
        self.augment = images is None if augment is None else augment
        self.test_fraction = float(test_fraction)
        self.image_seed = image_seed
        self._pools: dict[Split, Tensor] = {}
        if images is not None:
            self._read_folder(images)

    @property
    def image_size(self) -> int:
        """Pixels on the side of an image that is walked on."""
        return self.stride * (self.positions - 1) + self.crop_size

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return (3, self.crop_size, self.crop_size)

    def worlds(self, split: Split) -> Tensor:
        """Every image of a split, shape (number, 3, image_size, image_size), uint8.

        :raises ConfigError: the split has no image (test_fraction=1 leaves none to train on).
        """
        check_split(split)
        if split not in self._pools:
            if self.images is not None:
                raise ConfigError(
                    f"split: expected 'test', for with test_fraction={self.test_fraction:g} every image of "
                    f"{self.images} is a test image, got {split!r}"
                )
            self._pools[split] = torch.from_numpy(
                cut_images(photographs(split), self.cuts_per_image, self.image_size, self.image_seed)
            )
        return self._pools[split]

    def sample(
        self,
        batch_size: int,
        *,
        num_observed: int,
        num_predicted: int,
        seed: int,
        split: Split = "train",
        device: torch.device | str = "cpu",
    ) -> Episodes:
        """Draw episodes, with poses (x, y) in cells and the images walked on; see ``EpisodeData.sample``.

        The same seed gives the same episodes on every device: what is random is drawn on the CPU, the walks
        and the frames are computed on the device.
        """
        check_request(batch_size, num_observed, num_predicted, split)
        generator = seeded_generator(seed, split)
        pool = self.worlds(split)
        chosen = pool[torch.randint(len(pool), (batch_size,), generator=generator)]
        if self.augment and split == "train":
            chosen = vary(chosen, generator)
        worlds = chosen.to(device).to(torch.get_default_dtype()) / 255
        actions = walks.draw_actions(batch_size, num_observed + num_predicted, self.mean_repeats, generator)
        actions[:, 0] = walks.STAY
        start = self._centre(batch_size, worlds.device)
        actions, positions = self._integrate(start, actions.to(device))
        return Episodes(
            frames=walks.crops(worlds, positions, self.crop_size, self.stride),
            actions=one_hot(actions, self.action_dim).to(worlds.dtype),
            num_observed=num_observed,
            poses=positions.to(worlds.dtype),
            worlds=worlds,
            validate=False,
        )

    def random_actions(
        self,
        batch: int,
        steps: int,
        seed: int,
        start: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Actions of a random walk from ``start``, drawn as those of an episode are.

        :param start: poses before the first action, shape (batch, 2), by default the centre; it matters without walls,
            where the walk turns back at the edge.
        :returns: one-hot, shape (batch, steps, 5).
        """
        check_whole(1, batch=batch, steps=steps)
        generator = seeded_generator(seed, "actions")
        actions = walks.draw_actions(batch, steps, self.mean_repeats, generator).to(device)
        actions, _ = self._integrate(self._check_start(start, batch, actions.device), actions)
        return one_hot(actions, self.action_dim).to(torch.get_default_dtype())

    def walk(self, actions: Tensor, worlds: Tensor, start: Tensor | None = None) -> Walk:
        """The true frames and poses under given actions; pose and frame t come after action t.

        A long walk may be cut into chunks: the next one starts at ``poses[:, -1]`` of the last.

        :param actions: indices (batch, steps), or one-hot (batch, steps, 5).
        :param worlds: the images walked on, shape (batch, 3, image_size, image_size); their device is used.
        :param start: poses before the first action, shape (batch, 2), whole cells; by default the centre.
        :raises EpisodesError: a wrong shape or value, or, without walls, an action that leaves the image.
        """
        indices = self._action_indices(actions).to(worlds.device)
        expected = (indices.shape[0], 3, self.image_size, self.image_size)
        if tuple(worlds.shape) != expected:
            raise EpisodesError(f"worlds: expected {expected}, got {tuple(worlds.shape)}")
        origin = self._check_start(start, indices.shape[0], indices.device)
        taken, positions = self._integrate(origin, indices)
        if not self.walls and not torch.equal(taken, indices):
            batch, step = (taken != indices).nonzero()[0].tolist()
            name = self.action_names[int(indices[batch, step])]
            raise EpisodesError(f"actions[{batch}, {step}]: expected a move that stays on the image, got {name!r}")
        return Walk(walks.crops(worlds, positions, self.crop_size, self.stride), positions.to(worlds.dtype))

    def _integrate(self, start: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The actions taken, which turn back at the edge without walls, and the positions they lead to."""
        moves = walks.displacements(actions.device)[actions]
        if self.walls:
            return actions, walks.walled_positions(start, moves, self.positions)
        positions = walks.folded_positions(start, moves, self.positions)
        return walks.actions_between(start, positions), positions

    def _centre(self, batch: int, device: torch.device) -> Tensor:
        return torch.full((batch, 2), self.positions // 2, device=device)

    def _check_start(self, start: Tensor | None, batch: int, device: torch.device) -> Tensor:
        if start is None:
            return self._centre(batch, device)
        if tuple(start.shape) != (batch, 2):
            raise EpisodesError(f"start: expected ({batch}, 2), got {tuple(start.shape)}")
        cells = start.to(device, torch.int64)
        good = (cells == start.to(device)) & (cells >= 0) & (cells < self.positions)
        if not bool(good.all()):
            index = (~good).nonzero()[0].tolist()
            value, last = start[tuple(index)].item(), self.positions - 1
            raise EpisodesError(f"start{index}: expected a whole cell from 0 to {last}, got {value:g}")
        return cells

    def _action_indices(self, actions: Tensor) -> Tensor:
        whole = not (actions.is_floating_point() or actions.is_complex() or actions.dtype == torch.bool)
        if actions.ndim == 2 and whole and actions.numel():
            bad = (actions < 0) | (actions >= self.action_dim)
            if bool(bad.any()):
                index = bad.nonzero()[0].tolist()
                last, value = self.action_dim - 1, actions[tuple(index)].item()
                raise EpisodesError(f"actions{index}: expected an index from 0 to {last}, got {value}")
            return actions.long()
        if actions.ndim != 3 or actions.shape[-1] != self.action_dim or not actions.numel():
            raise EpisodesError(
                f"actions: expected indices (batch, steps) or one-hot (batch, steps, {self.action_dim}), "
                f"got {actions.dtype} of shape {tuple(actions.shape)}"
            )
        indices = actions.argmax(-1)
        bad = (one_hot(indices, self.action_dim) != actions).any(-1)
        if bool(bad.any()):
            index = bad.nonzero()[0].tolist()
            row = actions[tuple(index)].tolist()
            raise EpisodesError(f"actions{index}: expected one-hot, a single 1 among zeros, got {row}")
        return indices

    def _read_folder(self, directory: str) -> None:
        paths = find_images(directory)
        if self.test_fraction == 1:
            train_paths: list[Path] = []
            test_paths = paths
        else:
            if len(paths) < 2:
                read_image(paths[0])  # that it is no image at all is the greater problem
                raise ImagesError(
                    f"images: expected at least two images in {directory}, one to train on and one to test "
                    f"on, got {paths[0].name} alone; test_fraction=1 makes it a test image"
                )
            generator = seeded_generator(self.image_seed, "split of the images")
            shuffled = torch.randperm(len(paths), generator=generator).tolist()
            num_test = min(max(round(self.test_fraction * len(paths)), 1), len(paths) - 1)
            test_paths = [paths[i] for i in shuffled[:num_test]]
            train_paths = [paths[i] for i in shuffled[num_test:]]
        groups: dict[Split, list[Path]] = {"train": train_paths, "test": test_paths}
        for split, members in groups.items():
            if members:
                cuts = cut_images(members, self.cuts_per_image, self.image_size, self.image_seed)
                self._pools[split] = torch.from_numpy(cuts)
