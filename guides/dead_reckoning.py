"""Dead reckoning: the position is inferred from the actions alone."""

from typing import Protocol

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.paths import TransitionPath
from gtm_pyro.reading import Reading


class SpatialModel(Protocol):
    """What the guide asks of a model."""

    reading: Reading

    def path(self, actions: Tensor) -> TransitionPath: ...

    def encoder(self, frames: Tensor) -> dist.TorchDistribution: ...


class DeadReckoning(PyroModule):
    """q(z, s | x, a) = prod_t q(z_t | x_t) p(s_t | s_{t-1}, a_t): eq. (2), Fraccaro et al. 2018.

    Adds no parameters: the encoder and the transition belong to the model.
    """

    def __init__(self, model: SpatialModel) -> None:
        super().__init__()
        self._model = (model,)  # a tuple keeps the model's parameters out of the guide's

    @property
    def model(self) -> SpatialModel:
        return self._model[0]

    def path(self, episodes: Episodes) -> TransitionPath:
        """q(s_{1:T} | a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        return self.model.path(episodes.actions)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        scored = (reading or self.model.reading).scored_steps(episodes)
        frames = episodes.frames[:, scored]
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            pyro.sample("s", self.path(episodes))
            with pyro.plate("steps", frames.shape[1], dim=-1):
                pyro.sample("z", self.model.encoder(frames))
