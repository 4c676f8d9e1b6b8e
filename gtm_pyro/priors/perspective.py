"""What several views say about another view, by the laws of perspective."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError
from gtm_pyro.networks.precision import network
from gtm_pyro.priors.query import Aggregation, Guess
from gtm_pyro.priors.warped import WarpedPrior, outside, without_effect

# of the convolutions that correct the first guess
_WIDTH = 48
# nearer to an entry's plane than this, in units of the depth, a point has no place in its image
_NEAREST_AHEAD = 0.3


class PerspectivePrior(WarpedPrior):
    """A Generative Query Network that looks for each part of a view where a camera saw it before.

    The loc of :class:`QueryPrior` is a first guess. A network makes of it the inverse depth of each cell of a grid that
    covers the query's image; :func:`reprojected` says where the cells were in the images of the nearest entries. What
    the entries' latents hold is laid out on such grids too, read there by bilinear interpolation (Jaderberg et al.
    2015), averaged with learnt confidences, and corrects the guess by convolutions, which see a place and what is
    around it. Nothing but the ELBO tells it about depth.

    :param latent_dim: length of z.
    :param hidden: width of the first guess's networks.
    :param aggregation: "attention" or "mean", of the first guess.
    :param sharpness: initial weight of squared distances in the logits.
    :param grid_size: cells a side.
    :param channels: features of a cell.
    :param num_warped: entries that are looked at so in training mode, nearest first, to save time; in evaluation all.
    :param field_of_view: horizontal and as it is at first, in degrees; its tangent ``tan_half_width`` is learnt.
    :param mirrored: headings grow to the right, and the second axis points there: on maps of ``MemorySearch`` where the
        first action that turns turns right.
    :raises ConfigError: a number out of its range, or an unknown aggregation.
    """

    def __init__(
        self,
        latent_dim: int = 64,
        hidden: int = 256,
        aggregation: Aggregation = "attention",
        sharpness: float = 20.0,
        grid_size: int = 8,
        channels: int = 16,
        num_warped: int = 6,
        field_of_view: float = 90.0,
        mirrored: bool = False,
    ) -> None:
        super().__init__(latent_dim, hidden, aggregation, sharpness, grid_size, channels, num_warped, mirrored)
        if not 0 < field_of_view < 180:
            raise ConfigError(f"field_of_view: expected between 0 and 180 degrees, got {field_of_view!r}")
        self.tan_half_width = nn.Parameter(torch.tensor(math.tan(math.radians(field_of_view / 2))))

    def _add_parts(self, latent_dim: int) -> None:
        first, depth = nn.Linear(latent_dim, 128), nn.Linear(128, self.grid_size**2)
        self.inverse_depth = nn.Sequential(first, nn.LeakyReLU(0.2), depth)
        with torch.no_grad():
            # about two units of depth everywhere
            depth.weight.mul_(0.3)
            depth.bias.fill_(-0.4)

    def _add_correction(self, latent_dim: int) -> None:
        self.correction = nn.Sequential(
            nn.Conv2d(2 * self.channels + 2, _WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(_WIDTH, self.channels, 3, padding=1),
        )
        self.correction_to_latent = without_effect(
            nn.Linear(self.channels * self.grid_size**2 + latent_dim, 2 * latent_dim)
        )

    def _correct(self, seen: Tensor, sure: Tensor, guess: Guess) -> Tensor:
        expected = self.canvas(guess.loc).unflatten(-1, seen.shape[-3:])
        log_scale = guess.scale.log()
        spread = log_scale.mean(-1)[..., None, None].expand(sure.shape)
        told = torch.cat([seen, expected, sure.unsqueeze(-3), spread.unsqueeze(-3)], -3)
        corrected = network(self.correction, told.flatten(0, -4)).unflatten(0, told.shape[:-3]).flatten(-3)
        out: Tensor = self.correction_to_latent(torch.cat([corrected, log_scale], -1))
        return out

    def _places(self, loc: Tensor, ahead: Tensor, left: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        depth = self.inverse_depth[-1](network(self.inverse_depth[:-1], loc))
        rho = F.softplus(depth).unflatten(-1, (1, self.grid_size, self.grid_size))
        place, front = reprojected(self.grid, self.tan_half_width, rho, ahead, left, turn)
        # what lies outside an image or behind its camera was not seen there
        return place, outside(place, 4.0) + 20 * (_NEAREST_AHEAD - front).clamp_min(0)


def reprojected(
    grid: Tensor, tan_half_width: Tensor, inverse_depth: Tensor, ahead: Tensor, left: Tensor, turn: Tensor
) -> tuple[Tensor, Tensor]:
    """Where one upright pinhole camera sees what another one sees.

    :param grid: places in the image of the camera that asks, ``(..., 2)``: to the right and down, -1 to 1.
    :param tan_half_width: of half the horizontal field of view.
    :param inverse_depth: of what is seen there: 1 / distance along the camera's axis.
    :param ahead: where the camera that asks is, ahead of the other one.
    :param left: likewise, to its left.
    :param turn: from the other camera's heading to its own, counter-clockwise, in radians.
    :returns: the places in the other's image, ``(..., 2)``, and how far in front of it they are, as a share of the
        depth; all arguments but the grid broadcast to that. Places so little in front that they have none in an image
        are put at its edge.
    """
    aside = -grid[..., 0] * tan_half_width
    cos, sin = turn.cos(), turn.sin()
    front = ahead * inverse_depth + cos - sin * aside
    aside = left * inverse_depth + sin + cos * aside
    depth = front.clamp_min(_NEAREST_AHEAD)
    return torch.stack([-aside / (tan_half_width * depth), grid[..., 1] / depth], -1), front
