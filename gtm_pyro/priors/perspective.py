"""What several views say about another view, by the laws of perspective."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.memory.spatial import Retrieved
from gtm_pyro.networks.precision import network
from gtm_pyro.priors.query import _MIN_SCALE, Aggregation, Guess, QueryPrior

# nearer to an entry's plane than this, in units of the depth, a point has no place in its image
_NEAREST_AHEAD = 0.3
# share of the distance in memory that counts where entries are weighed for what they see
_DISTANCE_WEIGHT = 0.3


class PerspectivePrior(QueryPrior):
    """A Generative Query Network that looks for each part of a view where a camera saw it before.

    The loc of :class:`QueryPrior` is a first guess. A network makes of it the inverse depth of each cell of a grid that
    covers the query's image; :func:`reprojected` says where the cells were in the images of the nearest entries. What
    the entries' latents hold is laid out on such grids too, read there by bilinear interpolation (Jaderberg et al.
    2015), averaged with learnt confidences, and corrects the guess. Nothing but the ELBO tells it about depth.

    :param latent_dim: length of z.
    :param hidden: width of the first guess's networks.
    :param aggregation: "attention" or "mean", of the first guess.
    :param sharpness: initial weight of squared distances in the logits.
    :param grid_size: cells a side.
    :param channels: features of a cell.
    :param num_warped: entries that are looked at so in training mode, nearest first, to save time; in evaluation all.
    :param field_of_view: horizontal and as it is at first, in degrees; its tangent ``tan_half_width`` is learnt.
    :raises ConfigError: a number out of its range, or an unknown aggregation.
    """

    grid: Tensor

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
    ) -> None:
        super().__init__(latent_dim, 3, hidden, aggregation, sharpness)
        check_positive(grid_size=grid_size, channels=channels, num_warped=num_warped)
        if not 0 < field_of_view < 180:
            raise ConfigError(f"field_of_view: expected between 0 and 180 degrees, got {field_of_view!r}")
        self.grid_size, self.channels, self.num_warped = grid_size, channels, num_warped
        cells = grid_size**2
        self.canvas = nn.Linear(latent_dim, channels * cells)
        first, depth = nn.Linear(latent_dim, 128), nn.Linear(128, cells)
        self.inverse_depth = nn.Sequential(first, nn.LeakyReLU(0.2), depth)
        self.confidence = nn.Sequential(
            nn.Linear(latent_dim + self.pose_dim, 64), nn.LeakyReLU(0.2), nn.Linear(64, cells)
        )
        first, correction = nn.Linear((channels + 1) * cells + 2 * latent_dim, 512), nn.Linear(512, 2 * latent_dim)
        self.correction = nn.Sequential(first, nn.LeakyReLU(0.2), correction)
        with torch.no_grad():
            # about two units of depth everywhere, and no correction
            depth.weight.mul_(0.3)
            depth.bias.fill_(-0.4)
            correction.weight.zero_()
            correction.bias.zero_()
            correction.bias[latent_dim:] = -1.5
        self.tan_half_width = nn.Parameter(torch.tensor(math.tan(math.radians(field_of_view / 2))))
        centres = (torch.arange(grid_size) + 0.5) / grid_size * 2 - 1
        self.register_buffer("grid", torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1), persistent=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, grid_size={self.grid_size}, num_warped={self.num_warped}"

    def _guess(self, read: Retrieved, s: Tensor) -> Guess:
        guess = super()._guess(read, s)
        size, first = self.grid_size, slice(0, self.num_warped if self.training else None)
        z, pose, turn = (x[..., first, :] for x in (read.values["loc"], guess.pose, guess.turn))
        depth = self.inverse_depth[-1](network(self.inverse_depth[:-1], guess.loc))
        rho = F.softplus(depth).unflatten(-1, (1, size, size))
        ahead, left, turn = (x.unsqueeze(-1) for x in (pose[..., :1], pose[..., 1:2], turn))
        place, front = reprojected(self.grid, self.tan_half_width, rho, ahead, left, turn)
        confidence = self.confidence[-1](network(self.confidence[:-1], torch.cat([z, pose], -1)))
        # what lies outside an image or behind its camera was not seen there
        outside = 4 * (place[..., 0].abs() - 1).clamp_min(0) + 2 * (place[..., 1].abs() - 1).clamp_min(0)
        logits = confidence.unflatten(-1, (size, size)) - outside - 20 * (_NEAREST_AHEAD - front).clamp_min(0)
        logits = logits - _DISTANCE_WEIGHT * guess.distance[..., first, :].unsqueeze(-1)
        logits = logits.masked_fill(~guess.allowed[..., first, :].unsqueeze(-1), -1e9)
        canvas = self.canvas(z).reshape(-1, self.channels, size, size)
        found = F.grid_sample(
            canvas, place.clamp(-2, 2).reshape(-1, size, size, 2), padding_mode="border", align_corners=False
        ).view(*z.shape[:-1], self.channels, size, size)
        seen = (logits.softmax(-3).unsqueeze(-3) * found).sum(-4).flatten(-3)
        # far outside all images it would be a large number, which upsets training
        sure = (logits.logsumexp(-3) / 5).tanh().flatten(-2)
        told = torch.cat([seen, sure, guess.loc, guess.scale.log()], -1)
        shift, raw = self.correction[-1](network(self.correction[:-1], told)).chunk(2, -1)
        return guess._replace(loc=guess.loc + guess.apart * shift, scale=F.softplus(raw) + _MIN_SCALE)


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
