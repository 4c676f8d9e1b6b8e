"""What several views say about another view."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError, MemoryReadError, check_positive
from gtm_pyro.memory.spatial import Retrieved
from gtm_pyro.networks.precision import network
from gtm_pyro.priors.mixtures import NormalMixture

Aggregation = Literal["attention", "mean"]
_HARMONICS = 6
# a prior that is sure of a view that it has never seen costs thousands of nats, and training blows up
_MIN_SCALE = 0.03


class Guess(NamedTuple):
    """What the entries say of each query, before it is checked that any could be read.

    :param loc: ``(*batch, Q, latent_dim)``.
    :param scale: likewise.
    :param pose: the query's pose as seen from each entry, ``(*batch, Q, K, pose_dim)``; the place ahead and to the left
        comes first.
    :param turn: from an entry's heading to the query's, in radians, ``(*batch, Q, K, 1)``; zeros without headings.
    :param apart: 0 where an entry has the query's pose, and up to 1 for the nearest entry, ``(*batch, Q, 1)``.
    :param distance: weighed squared distances in memory, ``(*batch, Q, K, 1)``.
    :param allowed: entries that could be read, ``(*batch, Q, K, 1)``.
    """

    loc: Tensor
    scale: Tensor
    pose: Tensor
    turn: Tensor
    apart: Tensor
    distance: Tensor
    allowed: Tensor


class QueryPrior(nn.Module):
    """A Generative Query Network: what K views say about another view (section 4.2; Eslami et al. 2018).

    p(z | s, m) = N(loc, diag(scale^2)). Each entry's latent z_k, with its pose relative to the query, becomes a
    representation v_k = z_k + n_k f(z_k, pose_k), n_k -> 0 where the poses coincide; the v_k are averaged, with equal
    weights or with attention by pose and latent, for each coordinate of z; a last network sees their mean and their
    spread. Neither depends on the order of the entries. With attention, a view that was memorised is returned nearly as
    it is.

    :param latent_dim: length of z.
    :param state_dim: 3 for a position and a heading in radians, otherwise positions alone.
    :param hidden: width of the networks.
    :param aggregation: "attention" or "mean".
    :param sharpness: initial weight of squared distances in the attention's logits.
    :raises ConfigError: a number that is not positive, or an unknown aggregation.
    :cvar reads_states: whether ``forward`` needs the states of queries and entries.
    """

    reads_states = True

    def __init__(
        self,
        latent_dim: int = 64,
        state_dim: int = 3,
        hidden: int = 256,
        aggregation: Aggregation = "attention",
        sharpness: float = 20.0,
    ) -> None:
        super().__init__()
        check_positive(latent_dim=latent_dim, state_dim=state_dim, hidden=hidden, sharpness=sharpness)
        if aggregation not in get_args(Aggregation):
            raise ConfigError(f"aggregation: expected {' or '.join(get_args(Aggregation))}, got {aggregation!r}")
        self.latent_dim, self.state_dim, self.aggregation = latent_dim, state_dim, aggregation
        self.pose_dim = 4 + 2 * _HARMONICS if state_dim == 3 else state_dim
        outputs = 2 * latent_dim if aggregation == "attention" else latent_dim
        self.representation = nn.Sequential(
            nn.Linear(latent_dim + self.pose_dim, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, outputs),
        )
        first, last = nn.Linear(2 * latent_dim, hidden), nn.Linear(hidden, 2 * latent_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.constant_(last.bias[latent_dim:], -2.0)
        self.parameters_network = nn.Sequential(first, nn.LeakyReLU(0.2), last)
        self.log_sharpness = nn.Parameter(torch.tensor(float(sharpness)).log())

    def extra_repr(self) -> str:
        return f"latent_dim={self.latent_dim}, state_dim={self.state_dim}, aggregation={self.aggregation!r}"

    def forward(self, read: Retrieved, s: Tensor) -> NormalMixture:
        """The prior of every query's z, a mixture of one component: batch (*batch, Q), event (latent_dim,).

        :param read: its values hold "loc" and "state", (*batch, Q, K, latent_dim) and (*batch, Q, K, state_dim).
        :param s: states of the queries, (*batch, Q, state_dim).

        A query that could read no entry has N(0, I).

        :raises MemoryReadError: every entry was read: that has no nearest one first.
        :raises ConfigError: the memory holds latents or states of another length.
        """
        guess = self._guess(read, s)
        loc, scale = guess.loc, guess.scale
        if read.masked:
            nothing = ~guess.allowed.any(-2)
            loc, scale = loc.masked_fill(nothing, 0.0), scale.masked_fill(nothing, 1.0)
        one = loc.new_zeros(()).expand(*loc.shape[:-1], 1)
        return NormalMixture(one, loc.unsqueeze(-2), scale.unsqueeze(-2))

    def _guess(self, read: Retrieved, s: Tensor) -> Guess:
        if read.index is None:
            raise MemoryReadError('num_neighbors: expected a whole number for a QueryPrior, got "all"')
        z, where = read.values["loc"], read.values["state"]
        for name, mine, found in (("latent_dim", self.latent_dim, z), ("state_dim", self.state_dim, where)):
            if found.shape[-1] != mine:
                raise ConfigError(f"prior.{name}: expected {found.shape[-1]}, as the memory has it, got {mine}")
        pose, turn, apart = self._relative(where, s.unsqueeze(-2))
        allowed = (read.squared_distance.detach() < torch.inf).unsqueeze(-1)
        distance = self.log_sharpness.exp() * torch.where(allowed, read.squared_distance.unsqueeze(-1), 0.0)
        hidden = network(self.representation[:-1], torch.cat([z, pose], -1))
        out: Tensor = self.representation[-1](hidden)
        view = z + apart * out[..., : self.latent_dim]
        logits = torch.zeros_like(view)
        if self.aggregation == "attention":
            logits = out[..., self.latent_dim :] - distance
        weight = logits.masked_fill(~allowed, -1e9).softmax(-2)
        mean = (weight * view).sum(-2)
        spread = (weight * (view - mean.unsqueeze(-2)).square()).sum(-2)
        hidden = network(self.parameters_network[:-1], torch.cat([mean, (spread + 1e-6).log()], -1))
        shift, raw = self.parameters_network[-1](hidden).chunk(2, -1)
        nearest = apart.masked_fill(~allowed, 1.0).amin(-2)
        scale = F.softplus(raw) + _MIN_SCALE
        return Guess(mean + nearest * shift, scale, pose, turn, nearest, distance, allowed)

    def _relative(self, entry: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The query's pose as seen from each entry, the turn to it, and how far apart they are, (..., K, 1)."""
        if self.state_dim != 3:
            move = query - entry
            apart = move.square().sum(-1, keepdim=True).add(1e-12).sqrt().tanh()
            return move, torch.zeros_like(apart), apart
        heading, turn = entry[..., 2:], query[..., 2:] - entry[..., 2:]
        dx, dy = (query[..., :2] - entry[..., :2]).split(1, -1)

        # poses.planar.turned_back by coordinates: a sixth less time
        def seen(heading: Tensor) -> list[Tensor]:
            cos, sin = heading.cos(), heading.sin()
            return [cos * dx + sin * dy, cos * dy - sin * dx]

        angles = turn * torch.arange(1, _HARMONICS + 1, dtype=turn.dtype, device=turn.device)
        pose = torch.cat([*seen(heading), *seen(heading + turn), angles.cos(), angles.sin()], -1)
        square = dx.square() + dy.square() + 2 - 2 * turn.cos()
        return pose, turn, square.clamp_min(0).add(1e-12).sqrt().tanh()
