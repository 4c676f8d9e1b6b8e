"""Agents that turn in a world where no two views look alike, and a model that knows it."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.models import GTMSM
from gtm_pyro.transitions import RotatingTranslation

NAMES = ("x", "y", "heading")
TURN, TAU, TOTAL = 2 * math.pi / 16, 24, 24 + 120
# sides of an action: nothing, left, right, forward
DISPLACEMENT = torch.tensor([[0.0, 0, 0, 0.4], [0.0, 0, 0, 0], [0.0, TURN, -TURN, 0]])


class Copies(nn.Module):
    """Encoder and decoder in one: z is the frame itself."""

    latent_dim = 12

    def statistics(self, frames: Tensor) -> dict[str, Tensor]:
        return {"loc": frames.flatten(-3), "scale": torch.full_like(frames.flatten(-3), 1e-3)}

    def frames(self, z: Tensor) -> Tensor:
        return z.reshape(*z.shape[:-1], 3, 2, 2)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        if x.shape[-3:] == (3, 2, 2):
            return dist.Normal(x.flatten(-3), 1e-3).to_event(1)
        return dist.Normal(self.frames(x), 0.1).to_event(3)


def frames_at(poses: Tensor) -> Tensor:
    """One frame for each view: no two look alike."""
    generator = torch.Generator().manual_seed(0)
    weight = 3 * torch.randn(4, 12, generator=generator)
    seen = torch.cat([poses[..., :2], poses[..., 2:].cos(), poses[..., 2:].sin()], -1)
    return (0.5 + 0.5 * (seen @ weight).sin()).unflatten(-1, (3, 2, 2))


def agent(scale: float = 1.0) -> RotatingTranslation:
    transition = RotatingTranslation(4, scale=1e-6)
    with torch.no_grad():
        transition.displacement.copy_(DISPLACEMENT * torch.tensor([scale, scale, 1.0]).unsqueeze(-1))
    return transition


def walk(batch: int = 5, seed: int = 0) -> Episodes:
    """Agents that mostly turn, from poses of their own."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(torch.tensor([0.1, 0.6, 0.27, 0.03]), batch * TOTAL, True, generator=generator)
    actions = torch.eye(4)[drawn].reshape(batch, TOTAL, 4)
    first = torch.rand(batch, 3, generator=generator) * torch.tensor([9.0, 9.0, 6.28])
    with torch.no_grad():
        poses = agent().rollout(first, actions, torch.zeros(batch, TOTAL, 3))
    return Episodes(frames_at(poses), actions, TAU, poses, pose_names=NAMES)


def model_of(transition: RotatingTranslation) -> tuple[GTMSM, DeadReckoning]:
    copies = Copies()
    model = GTMSM(
        transition,
        SpatialMemory(1),
        encoder=copies,
        decoder=copies,
        initial_scale=1e-6,
        keys=HeadingKeys(),
    )
    return model, DeadReckoning(model)
