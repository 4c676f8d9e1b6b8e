"""What makes an agent lose its way: slips, kidnaps, poor sight, and places that look alike.

Every draw is made on the CPU, so that a seed means the same on every device.
"""

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError

GREY = 0.5


def draw_slips(batch: int, steps: int, slip: float, num_actions: int, generator: torch.Generator) -> Tensor:
    """How many places after the intended action the executed one is, cyclically.

    It is 0 but with probability ``slip``, when each other action is equally likely.

    :returns: 0 to num_actions - 1, shape (batch, steps), int64.
    """
    others = torch.randint(1, num_actions, (batch, steps), generator=generator)
    return torch.where(torch.rand(batch, steps, generator=generator) < slip, others, 0)


def kidnap_step(kidnap: float | None, num_observed: int) -> int | None:
    """The step, from 0, at which an agent is put elsewhere, between 1 and num_observed - 1; None if there is none."""
    if kidnap is None or num_observed < 2:
        return None
    return min(max(round(kidnap * num_observed), 1), num_observed - 1)


def other_cells(positions: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """For each position a cell, uniform among all but the one nearest to it.

    :param positions: (x, y) in cells, shape (batch, 2).
    :returns: whole cells of the dtype of the positions, shape (batch, 2).
    """
    x, y = positions.round().long().unbind(-1)
    others = torch.randint(size * size - 1, (len(positions),), generator=generator).to(positions.device)
    # skipping the present cell keeps the others equally likely
    chosen = others + (others >= y * size + x).long()
    return torch.stack([chosen % size, chosen // size], -1).to(positions.dtype)


def occlude(frames: Tensor, occlusion: float, generator: torch.Generator) -> Tensor:
    """Frames of which a share ``occlusion`` has a grey square of half their side at a random place.

    :param frames: shape (batch, steps, channels, height, width).
    """
    batch, steps, _, height, width = frames.shape
    tall, wide = max(height // 2, 1), max(width // 2, 1)
    hit = torch.rand(batch, steps, 1, 1, 1, generator=generator) < occlusion
    top = torch.randint(height - tall + 1, (batch, steps, 1, 1, 1), generator=generator)
    left = torch.randint(width - wide + 1, (batch, steps, 1, 1, 1), generator=generator)
    row, column = torch.arange(height).view(-1, 1), torch.arange(width)
    covered = hit & (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
    return frames.masked_fill(covered.to(frames.device), GREY)


def add_noise(frames: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Frames with independent Gaussian noise of standard deviation ``scale`` on every value, clamped to [0, 1]."""
    noise = torch.randn(frames.shape, generator=generator, dtype=frames.dtype)
    return (frames + scale * noise.to(frames.device)).clamp(0, 1)


def check_repeats(repeats: int, positions: int, crop_size: int, stride: int) -> None:
    """Raise ConfigError unless that many copies of a patch, and the patch itself, fit into an image side by side."""
    places = _places_on_a_side(positions, crop_size, stride) ** 2
    if repeats and repeats + 1 > places:
        raise ConfigError(
            f"repeats: expected at most {max(places - 1, 0)}, for the image has room for {places} "
            f"separate patches of {crop_size + 2 * stride} pixels, got {repeats}; more positions make more room"
        )


def repeat_patches(
    worlds: Tensor, repeats: int, positions: int, crop_size: int, stride: int, generator: torch.Generator
) -> Tensor:
    """Worlds of which one square patch, 3 x 3 whole views, is copied to ``repeats`` other places, each at least a pixel
    from the patch and from every other copy.

    :param worlds: shape (batch, channels, size, size), on the CPU.
    :param positions: cells on a side.
    :param crop_size: pixels on the side of a view.
    :param stride: pixels between neighbouring cells; the corner of a patch is on a cell.
    """
    batch, number = len(worlds), _places_on_a_side(positions, crop_size, stride)
    apart = _cells_apart(crop_size, stride)
    slack = positions - 3 - (number - 1) * apart
    # sorted offsets keep the rows and the columns of places apart, wherever they are
    offsets = torch.randint(slack + 1, (2, batch, number), generator=generator).sort(-1).values
    x, y = stride * (offsets + apart * torch.arange(number))
    places = torch.rand(batch, number * number, generator=generator).argsort(1)[:, : repeats + 1]
    left, top = x.gather(1, places % number), y.gather(1, places // number)
    span = torch.arange(crop_size + 2 * stride)
    episode = torch.arange(batch).view(-1, 1, 1)
    rows, columns = (top.unsqueeze(-1) + span).unsqueeze(-1), (left.unsqueeze(-1) + span).unsqueeze(-2)
    repeated = worlds.clone()
    patch = worlds[episode, :, rows[:, 0], columns[:, 0]]
    for copy in range(1, repeats + 1):
        repeated[episode, :, rows[:, copy], columns[:, copy]] = patch
    return repeated


def _cells_apart(crop_size: int, stride: int) -> int:
    """Cells between the corners of two patches of which neither touches the other."""
    return (crop_size + 2 * stride) // stride + 1


def _places_on_a_side(positions: int, crop_size: int, stride: int) -> int:
    return 0 if positions < 3 else (positions - 3) // _cells_apart(crop_size, stride) + 1
