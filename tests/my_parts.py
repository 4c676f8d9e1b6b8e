"""Parts of a user's own, without types and with nothing but what a model calls."""

from dataclasses import replace

import pyro.distributions as dist
import torch
from torch import nn

from gtm_pyro import SpatialMemory, Translation
from gtm_pyro.guides.spatial import SpatialGuide


class MyPrior(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, read):
        weight = 1 / (read.squared_distance + 1e-4)
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-20)
        loc = (weight.unsqueeze(-1) * read.values["loc"]).sum(-2)
        return dist.Normal(loc, self.log_scale.exp()).to_event(1)


class PlainPrior:
    """No module."""

    def __init__(self, scale=1.0):
        self.prior = MyPrior(scale)

    def __call__(self, read):
        return self.prior(read)


class MyMemory(SpatialMemory):
    """Distances count several times; it says how often it was read."""

    def __init__(self, power=2.0, num_neighbors=3):
        super().__init__(num_neighbors)
        self.power, self.reads = power, []

    def read(self, queries, num_neighbors=None, allowed=None):
        self.reads.append(len(queries))
        found = super().read(queries, num_neighbors, allowed)
        return replace(found, squared_distance=found.squared_distance * self.power)


class BareMemory:
    """It can be written and read, and no more."""

    def __init__(self, inner=None):
        self.inner = inner or SpatialMemory(3)

    def write(self, keys, values):
        return BareMemory(self.inner.write(keys, values))

    def read(self, queries, num_neighbors, allowed):
        return self.inner.read(queries, num_neighbors, allowed)


class MyEncoder(nn.Module):
    def __init__(self, size=64):
        super().__init__()
        self.layer = nn.Linear(192, 2 * size)

    def statistics(self, frames):
        loc, raw = self.layer(frames.flatten(-3)).chunk(2, -1)
        return {"loc": loc, "scale": nn.functional.softplus(raw) + 1e-2}

    def forward(self, frames):
        return dist.Normal(*self.statistics(frames).values()).to_event(1)


class MyDecoder(nn.Module):
    def __init__(self, size=64):
        super().__init__()
        self.layer = nn.Linear(size, 192)

    def frames(self, z):
        return self.layer(z).sigmoid().unflatten(-1, (3, 8, 8))

    def forward(self, z):
        return dist.Normal(self.frames(z), 0.1).to_event(3)


class NoFrames(nn.Module):
    def forward(self, z):
        return dist.Normal(z[..., None, None], 0.1).to_event(3)


class MyKeys(nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, s):
        return s * self.factor


class MyTransition(Translation):
    def __init__(self, action_dim, drift=0.0):
        super().__init__(action_dim)
        self.drift = nn.Parameter(torch.full((2,), drift))

    def loc(self, s, actions):
        return super().loc(s, actions) + self.drift


class MyGuide(SpatialGuide):
    def __init__(self, model, width=0.01):
        super().__init__(model)
        self.log_width = nn.Parameter(torch.tensor(width).log())

    def path(self, episodes):
        prior = self.model.path(episodes.actions)
        actions = episodes.actions.unsqueeze(1)
        still = actions.new_zeros(*actions.shape[:-1], 2)
        loc = self.model.transition.rollout(prior.initial.mean, actions, still)
        return dist.Normal(loc, self.log_width.exp()).to_event(2)


class FailsOnWholeMemories(MyPrior):
    def forward(self, read):
        if read.index is None:
            raise KeyError("index")
        return super().forward(read)


class Needs(nn.Module):
    """An argument without a type and without a default."""

    def __init__(self, matrix, factor=1.0):
        super().__init__()
        self.matrix = matrix

    def forward(self, s):
        return s * self.matrix
