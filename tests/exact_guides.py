"""Guides for the tractable twin: its exact posterior, and posteriors that are wrong in one known way."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor
from torch.distributions import constraints

from gtm_pyro.episodes import Episodes
from gtm_pyro.models import LinearGaussian
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import Translation


class GaussianPath(TorchDistribution):
    """A normal distribution of paths, batch shape ``(batch, 1)``, event shape ``(T, state_dim)``.

    :param base: over the same paths with time last, event shape ``(state_dim, T)``.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, base: TorchDistribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape[::-1], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GaussianPath":
        return GaussianPath(self.base.expand(batch_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        return self.base.rsample(sample_shape).mT

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value.mT)


class Exact(PyroModule):
    """p(s, z | x), or one whose standard deviations are ``width`` times too large and whose mean is ``shift`` off.

    :param prior: return p(s) in place of p(s | x).
    """

    def __init__(self, model: LinearGaussian, width: float = 1.0, shift: float = 0.0, prior: bool = False) -> None:
        super().__init__()
        self._model = (model,)
        self.width, self.shift, self.prior = width, shift, prior

    def path(self, episodes: Episodes) -> TorchDistribution:
        model = self._model[0]
        if self.prior:
            return model.path(episodes.actions)
        exact = model.posterior(episodes, Reading("earlier")).base_dist
        loc = exact.loc.unsqueeze(1) + self.shift
        factor = self.width * exact.scale_tril.expand(*exact.loc.shape, -1).unsqueeze(1)
        return GaussianPath(dist.MultivariateNormal(loc, scale_tril=factor).to_event(1))

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        model = self._model[0]
        scored = (reading or model.reading).scored_steps(episodes)
        frames = episodes.frames[:, scored]
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("s", self.path(episodes)).squeeze(-3)
            with pyro.plate("steps", frames.shape[1], dim=-1):
                pyro.sample("z", model.encode(frames, s[..., scored, :]))


def twin(seed: int = 0, **fields: float) -> LinearGaussian:
    torch.manual_seed(seed)
    model = LinearGaussian(Translation(5, scale=0.3), **fields)
    model.transition.displacement.data = torch.tensor([[1.0, -1, 0, 0, 0], [0, 0, 1, -1, 0]])
    return model


def walks(model: LinearGaussian, batch: int = 24, steps: int = 14, num_observed: int = 9, seed: int = 1) -> Episodes:
    torch.manual_seed(seed)
    return model.simulate(torch.eye(5)[torch.randint(5, (batch, steps))], num_observed)
