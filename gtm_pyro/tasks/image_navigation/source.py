"""An agent walks on an image and sees a small crop of it (Fraccaro et al. 2018, section 4.1)."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError, check_whole
from gtm_pyro.tasks.base import Source, Split, check_choice, check_number, check_request, seeded_generator
from gtm_pyro.tasks.image_navigation import disturbances, walks
from gtm_pyro.tasks.image_navigation.image_pool import ImagePool
from gtm_pyro.tasks.image_navigation.images import vary
from gtm_pyro.tasks.image_navigation.motions import make_motion


class Walk(NamedTuple):
    """What an agent saw and where."""

    frames: Tensor  # (batch, steps, 3, crop_size, crop_size), values in [0, 1]
    poses: Tensor  # (batch, steps, 2), (x, y) in cells, x to the right and y down, of the dtype of the frames


class ImageNavigation:
    """Episodes of an agent that walks on square images of ``stride * (positions - 1) + crop_size`` pixels.

    It stands on one of positions x positions cells, ``stride`` pixels apart, and sees crop_size x crop_size
    pixels. Actions are one-hot: up, down, left, right, stay; one is drawn uniformly and kept for 1 + Poisson
    steps. The first frame is seen where the episode starts, with the action "stay".

    ``slip``, ``start``, ``kidnap``, ``action_noise`` and ``action_bias`` make the actions recorded a bad guide to where
    the agent is. They act on observed steps after the first alone: what is predicted from actions follows them. Poses
    are always where the agent was, and frames what is there.

    :param images: a folder of images, searched with the folders below it, split by file into training and test images.
        By default the colour photographs that scikit-image bundles, two of them for testing.
    :param walls: at the edge, a move outwards has no effect (the paper's setting). Without walls the walk turns back at
        the edge, so that every action recorded moves as it says; a slip that would leave the image moves nothing.
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
    :param slip: probability that an action is silently replaced by one of the others, at least 0 and below 1.
    :param start: the centre, or for each episode a cell drawn uniformly.
    :param kidnap: share of the observed steps, between 0 and 1, after which the agent is put into another cell, drawn
        uniformly, with the action "stay"; see ``kidnap_step``.
    :param motion: "continuous" makes actions real displacements (dx, dy) in cells: a uniform direction and a length
        uniform in [0.25, 1], or in one of five none at all, kept for 1 + Poisson steps. Poses are then real, and frames
        interpolated between pixels. It needs walls; an action that slips becomes another random displacement.
    :param action_noise: with continuous motion, standard deviation in cells, of each axis and step, of the displacement
        made about the one recorded.
    :param action_bias: with continuous motion, cells (x, y) added to every displacement made that is not 0.
    :param frame_noise: standard deviation of Gaussian noise on every pixel, which is then clamped to [0, 1].
    :param occlusion: probability that a frame has a grey square of half its side at a random place, beneath the noise.
    :param repeats: number of other places to which one patch of each image, 3 x 3 cells with all that is seen from
        them, is copied, so that these places look alike.
    :raises ConfigError: a field is out of its range, or does not go with another.
    :raises ImagesError: the folder or a file in it cannot be used; every file is read here (about 1 ms each at 178x218
        pixels), so that training never meets a bad one.
    """

    # in pose units: what evaluation takes for one place
    task = "gtm_pyro.tasks.image_navigation.task.ImageNavigationTask"
    cell_size: float | None = 1.0
    # of the grid; an object has its own
    action_names: tuple[str, ...] = walks.ACTION_NAMES
    action_dim: int = len(walks.ACTION_NAMES)

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
        slip: float = 0.0,
        start: Literal["centre", "random"] = "centre",
        kidnap: float | None = None,
        motion: Literal["grid", "continuous"] = "grid",
        action_noise: float = 0.0,
        action_bias: tuple[float, float] = (0.0, 0.0),
        frame_noise: float = 0.0,
        occlusion: float = 0.0,
        repeats: int = 0,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        check_whole(1, positions=positions, crop_size=crop_size, stride=stride)
        if positions < 2:
            raise ConfigError(f"positions: expected at least 2 cells on a side, got {positions}")
        check_whole(0, repeats=repeats)
        disturbances.check_repeats(repeats, positions, crop_size, stride)
        check_choice(("centre", "random"), start=start)
        if kidnap is not None and not 0 < check_number("kidnap", kidnap) < 1:
            raise ConfigError(f"kidnap: expected between 0 and 1, or none, got {kidnap}")
        if check_number("frame_noise", frame_noise) < 0:
            raise ConfigError(f"frame_noise: expected a number of at least 0, got {frame_noise}")
        if not 0 <= check_number("occlusion", occlusion) <= 1:
            raise ConfigError(f"occlusion: expected from 0 to 1, got {occlusion}")
        self._motion = make_motion(motion, positions, walls, mean_repeats, slip, action_noise, action_bias)
        self.action_names = self._motion.action_names
        self.action_dim = len(self.action_names)
        self.walls = walls
        self.positions = positions
        self.crop_size = crop_size
        self.stride = stride
        self.augment = images is None if augment is None else augment
        self.slip = float(slip)
        self.start = start
        self.kidnap = kidnap
        self.motion = motion
        self.frame_noise = float(frame_noise)
        self.occlusion = float(occlusion)
        self.repeats = repeats
        self._pool = ImagePool(images, self.image_size, cuts_per_image, test_fraction, image_seed)

    def changed(self, **arguments: Any) -> "ImageNavigation":
        """The same source, but for these arguments of its constructor."""
        return type(self)(**{**self._arguments, **arguments})

    @property
    def image_size(self) -> int:
        """Pixels on the side of an image that is walked on."""
        return self.stride * (self.positions - 1) + self.crop_size

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return (3, self.crop_size, self.crop_size)

    def worlds(self, split: Split) -> Tensor:
        """Every image of a split, shape (number, 3, image_size, image_size), uint8, before any patch is repeated.

        :raises ConfigError: the split has no image (test_fraction=1 leaves none to train on).
        """
        return self._pool[split]

    def kidnap_step(self, num_observed: int) -> int | None:
        """The step of an episode, from 0, in which the agent is put elsewhere: round(kidnap * num_observed), but at
        least 1 and at most num_observed - 1. None without ``kidnap``, or with a single step observed."""
        return disturbances.kidnap_step(self.kidnap, num_observed)

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

        The same seed gives the same episodes on every device (to rounding, in continuous motion): what is random is
        drawn on the CPU, the walks and the frames are computed on the device. It also gives the same images and
        intended actions whatever disturbs them, but that a kidnapped agent stays for that step, and that without walls
        a disturbed walk turns back elsewhere.
        """
        check_request(batch_size, num_observed, num_predicted, split)

        def source(purpose: str) -> torch.Generator:
            return seeded_generator(seed, f"{split}: {purpose}")

        generator = seeded_generator(seed, split)
        pool = self.worlds(split)
        chosen = pool[torch.randint(len(pool), (batch_size,), generator=generator)]
        if self.augment and split == "train":
            chosen = vary(chosen, generator)
        if self.repeats:
            chosen = disturbances.repeat_patches(
                chosen, self.repeats, self.positions, self.crop_size, self.stride, source("repeats")
            )
        worlds = chosen.to(device).to(torch.get_default_dtype()) / 255
        actions = self._motion.draw(batch_size, num_observed + num_predicted, generator)
        return self._episodes(worlds, actions, num_observed, source)

    def revisit(self, worlds: Tensor, *, num_observed: int, num_predicted: int = 0, seed: int) -> Episodes:
        """New walks in known images, one in each, disturbed as those of ``sample`` are; no patch is repeated again.

        :param worlds: as in episodes, shape (batch, 3, image_size, image_size), float; their device is used.
        :raises EpisodesError: a wrong shape or dtype.
        """
        batch = len(worlds) if worlds.ndim else 0
        check_request(batch or 1, num_observed, num_predicted, "test")
        self._check_worlds(worlds, batch)

        def source(purpose: str) -> torch.Generator:
            return seeded_generator(seed, f"revisit: {purpose}")

        actions = self._motion.draw(batch, num_observed + num_predicted, source("actions"))
        return self._episodes(worlds, actions, num_observed, source)

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
        :returns: one-hot, shape (batch, steps, 5), or with continuous motion displacements (batch, steps, 2).
        """
        check_whole(1, batch=batch, steps=steps)
        actions = self._motion.draw(batch, steps, seeded_generator(seed, "actions")).to(device)
        actions, _ = self._motion.follow(self._check_start(start, batch, actions.device), actions)
        return self._motion.encode(actions, torch.get_default_dtype())

    def walk(self, actions: Tensor, worlds: Tensor, start: Tensor | None = None) -> Walk:
        """The true frames and poses under given actions, with nothing to disturb them; pose and frame t come after
        action t.

        A long walk may be cut into chunks: the next one starts at ``poses[:, -1]`` of the last.

        :param actions: indices (batch, steps), or one-hot (batch, steps, 5); with continuous motion displacements in
            cells (batch, steps, 2).
        :param worlds: the images walked on, shape (batch, 3, image_size, image_size); their device is used.
        :param start: poses before the first action, shape (batch, 2), whole cells but with continuous motion; by
            default the centre.
        :raises EpisodesError: a wrong shape or value, or, without walls, an action that leaves the image.
        """
        intended = self._motion.check_actions(actions).to(worlds.device)
        self._check_worlds(worlds, len(intended))
        origin = self._check_start(start, len(intended), intended.device)
        taken, positions = self._motion.follow(origin, intended)
        if not self.walls and not torch.equal(taken, intended):
            batch, step = (taken != intended).nonzero()[0].tolist()
            name = self.action_names[int(intended[batch, step])]
            raise EpisodesError(f"actions[{batch}, {step}]: expected a move that stays on the image, got {name!r}")
        frames = self._motion.crops(worlds, positions, self.crop_size, self.stride)
        return Walk(frames, positions.to(worlds.dtype))

    def _episodes(self, worlds: Tensor, actions: Tensor, num_observed: int, source: Source) -> Episodes:
        """Episodes of disturbed walks with the actions drawn, which are on the CPU and are changed."""
        kidnapped = self.kidnap_step(num_observed)
        put = [0] if kidnapped is None else [0, kidnapped]
        actions[:, put] = self._motion.still
        offsets = self._motion.draw_offsets(actions, source)
        if offsets is not None:
            offsets[:, put] = 0
            offsets[:, num_observed:] = 0
            offsets = offsets.to(worlds.device)
        actions = actions.to(worlds.device)
        place = self._centre(len(worlds), worlds.device)
        if self.start == "random":
            place = torch.randint(self.positions, place.shape, generator=source("start")).to(worlds.device)
        parts: list[tuple[Tensor, Tensor]] = []
        for first, stop in zip(put, [*put[1:], None], strict=True):
            if parts:
                place = disturbances.other_cells(parts[-1][1][:, -1], self.positions, source("kidnap"))
            within = offsets if offsets is None else offsets[:, first:stop]
            parts.append(self._motion.follow(place, actions[:, first:stop], within))
        taken, positions = (torch.cat(pieces, 1) for pieces in zip(*parts, strict=True))
        frames = self._motion.crops(worlds, positions, self.crop_size, self.stride)
        if self.occlusion:
            frames = disturbances.occlude(frames, self.occlusion, source("occlusion"))
        if self.frame_noise:
            frames = disturbances.add_noise(frames, self.frame_noise, source("frame noise"))
        return Episodes(
            frames=frames,
            actions=self._motion.encode(taken, worlds.dtype),
            num_observed=num_observed,
            poses=positions.to(worlds.dtype),
            worlds=worlds,
            pose_names=("x", "y"),
            validate=False,
        )

    def _centre(self, batch: int, device: torch.device) -> Tensor:
        return torch.full((batch, 2), self.positions // 2, device=device)

    def _check_start(self, start: Tensor | None, batch: int, device: torch.device) -> Tensor:
        if start is None:
            return self._centre(batch, device)
        if tuple(start.shape) != (batch, 2):
            raise EpisodesError(f"start: expected ({batch}, 2), got {tuple(start.shape)}")
        return self._motion.check_start(start.to(device))

    def _check_worlds(self, worlds: Tensor, batch: int) -> None:
        expected = (batch, 3, self.image_size, self.image_size)
        if tuple(worlds.shape) != expected or not batch or not worlds.is_floating_point():
            kind = "" if worlds.is_floating_point() else f" of {worlds.dtype}"
            raise EpisodesError(f"worlds: expected {expected}, got {tuple(worlds.shape)}{kind}")
