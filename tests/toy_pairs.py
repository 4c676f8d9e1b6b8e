"""Small programs that fit some losses and not others: one or two numbers an episode."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.stages import Stage

STAGE = Stage(3, batch_size=4, num_observed=3, num_predicted=2)


def draw(stage: Stage = STAGE) -> Episodes:
    return ImageNavigation(cuts_per_image=4).sample(
        stage.batch_size, num_observed=stage.num_observed, num_predicted=stage.num_predicted, seed=0
    )


def observed(episodes: Episodes) -> torch.Tensor:
    """One number an episode."""
    return episodes.frames.mean((1, 2, 3, 4))


class Toy(PyroModule):
    """z ~ N(mu, 1), x ~ N(z, 0.5), one of both an episode."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(0.5))

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        with pyro.plate("episodes", len(episodes)):
            z = pyro.sample("z", dist.Normal(self.mu, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=observed(episodes))


class ToyGuide(PyroModule):
    def __init__(self, normal: Any = dist.Normal) -> None:
        super().__init__()
        self.weight, self.normal = nn.Parameter(torch.tensor(0.3)), normal

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        with pyro.plate("episodes", len(episodes)):
            pyro.sample("z", self.normal(self.weight * observed(episodes), torch.tensor(0.7)))


class Chain(PyroModule):
    """a, then b given a; with ``backwards`` b, then a given b."""

    def __init__(self, backwards: bool = False, observe: bool = False) -> None:
        super().__init__()
        self.first, self.slope = nn.Parameter(torch.tensor(0.2)), nn.Parameter(torch.tensor(0.6))
        self.names, self.observe = ("b", "a") if backwards else ("a", "b"), observe

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        with pyro.plate("episodes", len(episodes)):
            earlier = pyro.sample(self.names[0], dist.Normal(self.first, 1.0))
            later = pyro.sample(self.names[1], dist.Normal(self.slope * earlier, 0.5))
            if self.observe:
                pyro.sample("x", dist.Normal(earlier + later, 1.0), obs=observed(episodes))


class PlainToy(nn.Module):
    """Pyro does not see its parameters."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        for name, parameter in program.named_parameters():
            setattr(self, name, parameter)
        self.normal = dist.Normal

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        (Toy if hasattr(self, "mu") else ToyGuide).forward(self, episodes)  # type: ignore[arg-type]


class PlainNormal(dist.Normal):
    """Not reparameterised."""

    has_rsample = False


class FirstEncoding(nn.Module):
    """For a GTMSM: the frames are encoded first, and the path begins where the first encoding says."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = (model,)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        (model,) = self._model
        frames = episodes.predicted_frames
        with pyro.plate("episodes", len(episodes), dim=-2):
            with pyro.plate("steps", frames.shape[1], dim=-1):
                z = pyro.sample("z", model.encoder(frames))
            center = torch.zeros(len(episodes), 1, episodes.num_steps, 2) + z.mean((-2, -1))[..., None, None, None]
            pyro.sample("s", dist.Normal(center, 0.1).to_event(2))


class Mixed(PyroModule):
    """A site to be enumerated, or drawn several times."""

    def __init__(self, observe: bool = False, normal: bool = False, **infer: Any) -> None:
        super().__init__()
        self.logit, self.infer = nn.Parameter(torch.tensor(0.3)), infer
        self.observe, self.normal = observe, normal

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        with pyro.plate("episodes", len(episodes)):
            normal = "num_samples" in self.infer or self.normal
            site = dist.Normal(self.logit, 1.0) if normal else dist.Bernoulli(logits=self.logit)
            k = pyro.sample("k", site, infer=dict(self.infer))
            if self.observe:
                pyro.sample("x", dist.Normal(k, 1.0), obs=observed(episodes))


def toys() -> tuple[nn.Module, nn.Module]:
    return Toy(), ToyGuide()
