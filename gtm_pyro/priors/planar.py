"""What several views from above say about another view, where the picture turns with the agent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gtm_pyro.errors import check_positive
from gtm_pyro.priors.query import Aggregation
from gtm_pyro.priors.warped import WarpedPrior, outside


class PlanarPrior(WarpedPrior):
    """A Generative Query Network for views of the ground from above that turn with the agent, as MiniGrid's do.

    As :class:`~gtm_pyro.priors.PerspectivePrior`, but where a place of the ground is in another view follows from the
    two poses alone (:func:`moved`): there is no depth to be learnt.

    :param half_width: of the ground that a view shows, in units of the state; learnt from there, as ``log_half_width``.
    :param eye: where the agent is in its view, to the right and down, from -1 to 1; (0, 0.857) is the middle of the
        last row of seven.

    The others as of ``PerspectivePrior``, ``mirrored`` too.

    :raises ConfigError: a number that is not positive, or an unknown aggregation.
    """

    eye: Tensor

    def __init__(
        self,
        latent_dim: int = 64,
        hidden: int = 256,
        aggregation: Aggregation = "attention",
        sharpness: float = 20.0,
        grid_size: int = 7,
        channels: int = 16,
        num_warped: int = 6,
        half_width: float = 3.5,
        eye: tuple[float, float] = (0.0, 6 / 7),
        mirrored: bool = False,
    ) -> None:
        super().__init__(latent_dim, hidden, aggregation, sharpness, grid_size, channels, num_warped, mirrored)
        check_positive(half_width=half_width)
        self.log_half_width = nn.Parameter(torch.tensor(float(half_width)).log())
        self.register_buffer("eye", torch.tensor([float(number) for number in eye]), persistent=False)

    def _places(self, loc: Tensor, ahead: Tensor, left: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        place = moved(self.grid, self.eye, self.log_half_width.exp(), ahead, left, turn)
        # what lies outside of a view was not seen there
        return place, 2 * outside(place, 4.0)


def moved(grid: Tensor, eye: Tensor, half_width: Tensor, ahead: Tensor, left: Tensor, turn: Tensor) -> Tensor:
    """Where one view from above shows what another one shows.

    :param grid: places in the view that asks, ``(..., 2)``: to the right and down, -1 to 1.
    :param eye: where agents are in their views, ``(2,)``, likewise.
    :param half_width: of the ground that a view shows.
    :param ahead: where the agent that asks is, ahead of the other one, in the unit of half_width.
    :param left: likewise, to its left.
    :param turn: from the other agent's heading to its own, counter-clockwise, in radians.
    :returns: the places in the other's view, ``(..., 2)``; all arguments but the grid broadcast to that.
    """
    aside, forward = half_width * (eye[0] - grid[..., 0]), half_width * (eye[1] - grid[..., 1])
    cos, sin = turn.cos(), turn.sin()
    front = ahead + cos * forward - sin * aside
    aside = left + sin * forward + cos * aside
    return torch.stack([eye[0] - aside / half_width, eye[1] - front / half_width], -1)
