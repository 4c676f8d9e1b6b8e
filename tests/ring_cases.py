"""A ring of views whose true turns are known."""

import math

import torch
from torch import Tensor

from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation

STAY, LEFT, RIGHT = range(3)
RATE = 0.153


def ring_world(headings: Tensor, seed: int = 0) -> Tensor:
    """Frames (batch, T, 3, 6, 6), smooth functions of the heading, others in each episode."""
    generator = torch.Generator().manual_seed(seed)
    batch = len(headings)
    harmonics = torch.arange(1, 6.0)
    weight = torch.randn(batch, 1, 3, 6, 1, 5, generator=generator) / harmonics
    phase = 2 * math.pi * torch.rand(batch, 1, 3, 6, 1, 5, generator=generator)
    # left in a frame is left of the agent: columns are 10 degrees apart
    angle = headings[:, :, None, None, None, None] - torch.linspace(-0.45, 0.45, 6).view(1, 1, 1, 1, 6, 1)
    return 0.5 + 0.15 * (weight * torch.cos(harmonics * angle + phase)).sum(-1)


def turning(
    kind: type[RotatingTranslation], actions: Tensor, rates: tuple[float, float] = (RATE, -RATE), carried: float = 0.8
) -> Tensor:
    """True headings under actions (batch, T, 3)."""
    true = kind(3)
    with torch.no_grad():
        true.displacement.zero_()
        share = 1 - carried if kind is MomentumTranslation else 1.0
        true.displacement[2, LEFT], true.displacement[2, RIGHT] = share * rates[0], share * rates[1]
        if isinstance(true, MomentumTranslation):
            true.friction.fill_(math.log(carried / (1 - carried)))
        return true.controls(actions)[..., 1:, 2].cumsum(-1)
