"""What several views say about another view, place by place: where each part of it was in their images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import check_positive
from gtm_pyro.memory.spatial import Retrieved
from gtm_pyro.networks.precision import network
from gtm_pyro.priors.query import _MIN_SCALE, Aggregation, Guess, QueryPrior

# share of the distance in memory that counts where entries are weighed for what they see
_DISTANCE_WEIGHT = 0.3


class WarpedPrior(QueryPrior):
    """A Generative Query Network that looks for each part of a view where a camera saw it before.

    The loc of :class:`QueryPrior` is a first guess. A grid covers the query's image; a subclass says where its cells
    were in the images of the nearest entries (:meth:`_places`). What the entries' latents hold is laid out on such
    grids too, read there by bilinear interpolation (Jaderberg et al. 2015), averaged with learnt confidences, and
    corrects the guess.

    :param latent_dim: length of z.
    :param hidden: width of the first guess's networks.
    :param aggregation: "attention" or "mean", of the first guess.
    :param sharpness: initial weight of squared distances in the logits.
    :param grid_size: cells a side.
    :param channels: features of a cell.
    :param num_warped: entries that are looked at so in training mode, nearest first, to save time; in evaluation all.
    :param mirrored: headings grow to the right, and the second axis points there: on maps of ``MemorySearch``
        where the first action that turns turns right.
    :raises ConfigError: a number out of its range, or an unknown aggregation.
    """

    grid: Tensor

    def __init__(
        self,
        latent_dim: int,
        hidden: int,
        aggregation: Aggregation,
        sharpness: float,
        grid_size: int,
        channels: int,
        num_warped: int,
        mirrored: bool,
    ) -> None:
        super().__init__(latent_dim, 3, hidden, aggregation, sharpness)
        check_positive(grid_size=grid_size, channels=channels, num_warped=num_warped)
        self.grid_size, self.channels, self.num_warped, self.mirrored = grid_size, channels, num_warped, mirrored
        cells = grid_size**2
        self.canvas = nn.Linear(latent_dim, channels * cells)
        self._add_parts(latent_dim)
        self.confidence = nn.Sequential(
            nn.Linear(latent_dim + self.pose_dim, 64), nn.LeakyReLU(0.2), nn.Linear(64, cells)
        )
        self._add_correction(latent_dim)
        centres = (torch.arange(grid_size) + 0.5) / grid_size * 2 - 1
        self.register_buffer("grid", torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1), persistent=False)

    def _add_parts(self, latent_dim: int) -> None:
        """Networks of a subclass, made in this order so that a seed goes on to mean the same weights."""

    def _add_correction(self, latent_dim: int) -> None:
        first, last = (
            nn.Linear((self.channels + 1) * self.grid_size**2 + 2 * latent_dim, 512),
            nn.Linear(512, 2 * latent_dim),
        )
        self.correction = nn.Sequential(first, nn.LeakyReLU(0.2), without_effect(last))

    def _correct(self, seen: Tensor, sure: Tensor, guess: Guess) -> Tensor:
        """What to add to the guess's loc, and a raw scale: ``(..., 2 latent_dim)``.

        :param seen: what the entries hold where the grid's cells were, ``(..., channels, g, g)``.
        :param sure: from -1 to 1, how surely they were seen, ``(..., g, g)``.
        """
        told = torch.cat([seen.flatten(-3), sure.flatten(-2), guess.loc, guess.scale.log()], -1)
        out: Tensor = self.correction[-1](network(self.correction[:-1], told))
        return out

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, grid_size={self.grid_size}, num_warped={self.num_warped}"

    def _places(self, loc: Tensor, ahead: Tensor, left: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Where the grid's cells were in the images of entries, ``(..., K, g, g, 2)``: to the right and down, -1 to 1;
        and how surely they were not seen there, at least 0, ``(..., K, g, g)``.

        :param loc: the first guess, ``(..., latent_dim)``.
        :param ahead: where the query is, ahead of an entry, ``(..., K, 1, 1)``; likewise ``left`` of it and the
            ``turn`` from the entry's heading to the query's.
        """
        raise NotImplementedError

    def _guess(self, read: Retrieved, s: Tensor) -> Guess:
        guess = super()._guess(read, s)
        size, first = self.grid_size, slice(0, self.num_warped if self.training else None)
        z, pose, turn = (x[..., first, :] for x in (read.values["loc"], guess.pose, guess.turn))
        ahead, left, turn = (x.unsqueeze(-1) for x in (pose[..., :1], pose[..., 1:2], turn))
        place, unseen = self._places(guess.loc, ahead, *((-left, -turn) if self.mirrored else (left, turn)))
        confidence = self.confidence[-1](network(self.confidence[:-1], torch.cat([z, pose], -1)))
        logits = confidence.unflatten(-1, (size, size)) - unseen
        logits = logits - _DISTANCE_WEIGHT * guess.distance[..., first, :].unsqueeze(-1)
        logits = logits.masked_fill(~guess.allowed[..., first, :].unsqueeze(-1), -1e9)
        canvas = self.canvas(z).reshape(-1, self.channels, size, size)
        found = F.grid_sample(
            canvas, place.clamp(-2, 2).reshape(-1, size, size, 2), padding_mode="border", align_corners=False
        ).view(*z.shape[:-1], self.channels, size, size)
        seen = (logits.softmax(-3).unsqueeze(-3) * found).sum(-4)
        # far outside all images it would be a large number, which upsets training
        sure = (logits.logsumexp(-3) / 5).tanh()
        shift, raw = self._correct(seen, sure, guess).chunk(2, -1)
        return guess._replace(loc=guess.loc + guess.apart * shift, scale=F.softplus(raw) + _MIN_SCALE)


def without_effect(last: nn.Linear) -> nn.Linear:
    """A correction's last layer, so that it adds nothing at first, with a scale of 0.2."""
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[last.out_features // 2 :] = -1.5
    return last


def outside(place: Tensor, sharpness: float) -> Tensor:
    """0 within an image, and more the further outside: places ``(..., 2)`` to ``(...)``.

    :param sharpness: for a half width to the side; half as much for a half height up or down.
    """
    beyond = (place.abs() - 1).clamp_min(0)
    return sharpness * (beyond[..., 0] + 0.5 * beyond[..., 1])
