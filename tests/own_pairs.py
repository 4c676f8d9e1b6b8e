"""Pairs of a user's own that lack what GTM-SM has: neither path nor memory, a path alone, a memory alone.

Each takes the sizes that the data has, ``frame_shape`` and ``action_dim``, as its arguments and needs no others.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.capabilities import Imagined
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading

Frame = tuple[int, int, int]


class FrameVAE(PyroModule):
    """prod_t p(x_t | z_t) N(z_t; 0, I): a plain variational autoencoder, which cannot imagine."""

    def __init__(self, frame_shape: Frame = (3, 8, 8), latent_dim: int = 4) -> None:
        super().__init__()
        self.encoder = FrameEncoder(latent_dim, frame_shape, channels=(4, 8))
        self.decoder = FrameDecoder(latent_dim, frame_shape, channels=(8, 4))

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or Reading()
        with pyro.plate("episodes", episodes.batch_size, dim=-2), reading.plate(episodes) as steps:
            now = reading.chosen(episodes, steps)
            zeros = episodes.frames.new_zeros(self.encoder.latent_dim)
            z = pyro.sample("code", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("frame", self.decoder(z), obs=episodes.frames[:, now])


class FrameGuide(PyroModule):
    """prod_t q(z_t | x_t), of a site "code"; the encoder is the model's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = (model,)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or Reading()
        with pyro.plate("episodes", episodes.batch_size, dim=-2), reading.plate(episodes) as steps:
            pyro.sample("code", self._model[0].encoder(episodes.frames[:, reading.chosen(episodes, steps)]))


class Drift(PyroModule):
    """s_t = s_{t-1} + D a_t + noise, p(x_t | s_t): a path without a memory, and it imagines by itself."""

    def __init__(self, action_dim: int = 5, frame_shape: Frame = (3, 8, 8), state_dim: int = 2) -> None:
        super().__init__()
        self.displacement = nn.Linear(action_dim, state_dim, bias=False)
        pixels = frame_shape[0] * frame_shape[1] * frame_shape[2]
        self.show = nn.Sequential(nn.Linear(state_dim, 16), nn.Tanh(), nn.Linear(16, pixels), nn.Sigmoid())
        self.frame_shape, self.state_dim = tuple(frame_shape), state_dim

    def path(self, actions: Tensor) -> Any:
        """p(s_{1:T} | a_{1:T}), batch shape ``(batch, 1)``, event shape ``(T, state_dim)``: s_1 is near the origin."""
        moves = self.displacement(actions)
        moves = torch.cat([torch.zeros_like(moves[:, :1]), moves[:, 1:]], 1)
        return dist.Normal(moves.cumsum(1).unsqueeze(-3), 0.1).to_event(2)

    def frames(self, s: Tensor) -> Tensor:
        shown: Tensor = self.show(s).unflatten(-1, self.frame_shape)
        return shown

    def predict(self, guide: Any, observed: Episodes, actions: Tensor, sample: bool = False) -> Imagined:
        start = guide.path(observed).mean.squeeze(-3)[:, -1:]
        states = start + self.displacement(actions).cumsum(1)
        frames = self.frames(states)
        return Imagined(frames + 0.1 * torch.randn_like(frames) if sample else frames, states)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or Reading()
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("place", self.path(episodes.actions)).squeeze(-3)
            with reading.plate(episodes) as steps:
                now = reading.chosen(episodes, steps)
                shown = dist.Normal(self.frames(s[..., now, :]), 0.1).to_event(3)
                pyro.sample("frame", shown, obs=episodes.frames[:, now])


class DriftGuide(PyroModule):
    """q(s | a): the model's displacements, with a width of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = (model,)
        self.log_scale = nn.Parameter(torch.tensor(-2.5))

    def path(self, episodes: Episodes) -> Any:
        loc = self._model[0].path(episodes.actions).mean
        return dist.Normal(loc, self.log_scale.exp()).to_event(2)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            pyro.sample("place", self.path(episodes))


class ActionMemory(PyroModule):
    """p(z_t | a_{1:t}, m): a code is near that of the memorised step with the same sum of actions; there is no path."""

    def __init__(self, frame_shape: Frame = (3, 8, 8), latent_dim: int = 4) -> None:
        super().__init__()
        self.encoder = FrameEncoder(latent_dim, frame_shape, channels=(4, 8))
        self.decoder = FrameDecoder(latent_dim, frame_shape, channels=(8, 4))
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def retrieve(self, frames: Tensor, keys: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of the memorised frames with the nearest keys, ``(batch, queries, latent_dim)``, and their numbers."""
        entries = torch.cdist(queries, keys).argmin(-1)
        codes: Tensor = self.encoder.statistics(frames)["loc"]
        return codes.gather(1, entries.unsqueeze(-1).expand(-1, -1, codes.shape[-1])), entries

    def predict(self, guide: Any, observed: Episodes, actions: Tensor, sample: bool = False) -> Imagined:
        keys = observed.actions.cumsum(1)
        codes, entries = self.retrieve(observed.frames, keys, keys[:, -1:] + actions.cumsum(1))
        if sample:
            codes = codes + self.log_scale.exp() * torch.randn_like(codes)
        return Imagined(self.decoder.frames(codes), entries=entries)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or Reading()
        tau, places = episodes.num_observed, episodes.actions.cumsum(1)
        with pyro.plate("episodes", episodes.batch_size, dim=-2), reading.plate(episodes) as steps:
            now = reading.chosen(episodes, steps)
            codes, _ = self.retrieve(episodes.frames[:, :tau], places[:, :tau], places[:, now])
            z = pyro.sample("code", dist.Normal(codes, self.log_scale.exp()).to_event(1))
            pyro.sample("frame", self.decoder(z), obs=episodes.frames[:, now])


PAIRS: dict[str, tuple[Any, Any]] = {
    "a plain autoencoder": (FrameVAE, FrameGuide),
    "a path without a memory": (Drift, DriftGuide),
    "a memory without a path": (ActionMemory, FrameGuide),
}
