"""Filtering: each latent is inferred from its own frame and from what the memory holds of earlier ones."""

from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.own_loops import program
from gtm_pyro.inference.parts import check_model
from gtm_pyro.inference.programs import FilteredModel
from gtm_pyro.paths.autoregressive import kl_steps
from gtm_pyro.reading import Reading


class Filtering(PyroModule):
    """q(z_{1:T} | x_{1:T}) = prod_t q(z_t | Psi_{t-1}, x_t): eqs. (4) and (8), Gemici et al. 2017.

    Adds no parameters: the posterior map belongs to the model, whose memory is made of what it infers. Controller and
    memory are rolled once along a draw, for guide and model together.
    """

    def __init__(self, model: FilteredModel) -> None:
        super().__init__()
        check_model(self, model, "prior", "posterior")
        self._model = (model,)  # a tuple keeps the model's parameters out of the guide's

    @property
    def model(self) -> FilteredModel:
        return self._model[0]

    @program
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or self.model.reading
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            pyro.sample("z", self.model.posterior(episodes, reading))

    @torch.no_grad()
    def kl_steps(self, episodes: Episodes) -> Tensor:
        """KL of posterior and prior at every step along a draw, in nats, ``(batch, T)``: section 4 of the paper."""
        reading = Reading("earlier")
        q: Any = self.model.posterior(episodes, reading)
        return kl_steps(q, self.model.prior(episodes, reading), q.rsample()).squeeze(1)
