"""Motion by real displacements, within walls."""

import math

import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.tasks.base import Source
from gtm_pyro.tasks.image_navigation import walks

SHORTEST_STEP = 0.25  # in cells; the longest is 1
STILL_SHARE = 0.2  # of the runs, as staying is one of five actions on the grid


class ContinuousMotion:
    """Actions are displacements (dx, dy) in cells: a direction and a length, drawn uniformly and kept for a while.

    :param size: cells on a side; a move into a wall is cut short there, each axis by itself.
    :param mean_repeats: mean of the Poisson number of times that an action is repeated.
    :param slip: probability that an action is replaced by another one.
    :param noise: standard deviation of what is done about what is intended, cells, each axis.
    :param bias: added to whatever is done unless that is to stay, cells a step.
    """

    action_names = ("dx", "dy")
    still = 0.0

    def __init__(self, size: int, mean_repeats: float, slip: float, noise: float, bias: tuple[float, float]) -> None:
        self.size, self.mean_repeats, self.slip, self.noise, self.bias = size, mean_repeats, slip, noise, bias

    def draw(self, batch: int, steps: int, generator: torch.Generator) -> Tensor:
        """Displacements, shape (batch, steps, 2), of torch's default dtype."""
        choices = _draw_displacements(batch, steps, generator)
        runs = walks.draw_runs(batch, steps, self.mean_repeats, generator)
        # rounded here, so that the positions are exactly those that the recorded actions lead to
        return choices.gather(1, runs.unsqueeze(-1).expand_as(choices)).to(torch.get_default_dtype())

    def draw_offsets(self, actions: Tensor, source: Source) -> Tensor | None:
        """What is done less what is intended, cells, shape (batch, steps, 2), float64; None if the two never differ."""
        if not (self.slip or self.noise or any(self.bias)):
            return None
        done = actions.double()
        if self.slip:
            generator = source("slips")
            batch, steps, _ = actions.shape
            others = _draw_displacements(batch, steps, generator)
            slips = torch.rand(batch, steps, 1, generator=generator) < self.slip
            done = torch.where(slips, others, done)
        moving = (done != 0).any(-1, keepdim=True)
        done = done + moving * torch.tensor(self.bias, dtype=torch.float64)
        if self.noise:
            done = done + self.noise * torch.randn(done.shape, generator=source("action noise"), dtype=torch.float64)
        return done - actions

    def follow(self, start: Tensor, actions: Tensor, offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The actions intended, and the positions reached, float64.

        :param start: in cells, shape (batch, 2).
        :param actions: shape (batch, steps, 2).
        :param offsets: of ``draw_offsets``, shape (batch, steps, 2).
        """
        moves = actions.double() if offsets is None else actions + offsets
        return actions, walks.walled_positions(start.double(), moves, self.size)

    def encode(self, actions: Tensor, dtype: torch.dtype) -> Tensor:
        return actions.to(dtype)

    def crops(self, worlds: Tensor, positions: Tensor, crop_size: int, stride: int) -> Tensor:
        """What is seen at each position, interpolated linearly between pixels; at whole pixels it is the plain crop.

        :param worlds: shape (batch, channels, height, width).
        :param positions: shape (batch, steps, 2).
        :returns: shape (batch, steps, channels, crop_size, crop_size).
        """
        batch, channels, height, width = worlds.shape
        # of the poses as they are recorded, so that a walk from one of them sees the same
        pixels = stride * positions.to(worlds.dtype)
        last = torch.tensor([width, height], device=worlds.device) - crop_size - 1
        corner = pixels.long().minimum(last)
        across, down = (pixels - corner).view(batch, -1, 2, 1, 1, 1).unbind(2)
        # One more pixel each way than is seen, in one gather of the flattened images.
        span = torch.arange(crop_size + 1, device=worlds.device)
        rows, columns = corner[..., 1, None] + span, corner[..., 0, None] + span
        index = (rows.unsqueeze(-1) * width + columns.unsqueeze(-2)).view(batch, 1, -1).expand(-1, channels, -1)
        seen = worlds.flatten(2).gather(2, index)
        seen = seen.view(batch, channels, -1, crop_size + 1, crop_size + 1).transpose(1, 2)
        # (1 - w) a + w b is exact at both ends, a + w (b - a) is not
        seen = (1 - across) * seen[..., :-1] + across * seen[..., 1:]
        return (1 - down) * seen[..., :-1, :] + down * seen[..., 1:, :]

    def check_start(self, start: Tensor) -> Tensor:
        """Poses (batch, 2) as positions.

        :raises EpisodesError: one is outside the image.
        """
        positions = start.double()
        good = (positions >= 0) & (positions <= self.size - 1)
        if not bool(good.all()):
            index = (~good).nonzero()[0].tolist()
            value, last = start[tuple(index)].item(), self.size - 1
            raise EpisodesError(f"start{index}: expected a number of cells from 0 to {last}, got {value:g}")
        return positions

    def check_actions(self, actions: Tensor) -> Tensor:
        """
        :raises EpisodesError: they are no displacements.
        """
        if actions.ndim != 3 or actions.shape[-1] != 2 or not actions.numel() or not actions.is_floating_point():
            raise EpisodesError(
                "actions: expected displacements (dx, dy) in cells, floats of shape (batch, steps, 2), "
                f"got {actions.dtype} of shape {tuple(actions.shape)}"
            )
        bad = ~actions.isfinite()
        if bool(bad.any()):
            index = bad.nonzero()[0].tolist()
            raise EpisodesError(f"actions{index}: expected a finite number of cells, got {actions[tuple(index)]:g}")
        return actions


def _draw_displacements(batch: int, steps: int, generator: torch.Generator) -> Tensor:
    """Independent displacements in cells, shape (batch, steps, 2), float64."""
    angle, length, kind = torch.rand(3, batch, steps, generator=generator, dtype=torch.float64).unbind()
    length = torch.where(kind < STILL_SHARE, 0.0, SHORTEST_STEP + (1 - SHORTEST_STEP) * length)
    return torch.stack([length * torch.cos(math.tau * angle), length * torch.sin(math.tau * angle)], -1)
