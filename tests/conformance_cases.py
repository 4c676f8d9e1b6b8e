"""Small models, episodes for them, and guides: every pair of them conforms."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import DeadReckoning, FoundStart, FoundWalls, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.memory import HeadingKeys, SpatialMemory
from gtm_pyro.models import GTMSM, LinearGaussian
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.priors import MixturePrior
from gtm_pyro.transitions import RememberedWalls, SlidingTranslation, Translation, WalledTranslation


def gtm_sm(slip: float = 0.0) -> tuple[GTMSM, Episodes]:
    """Three frames shown in turn, so that there are places to recognise."""
    torch.manual_seed(0)
    model = GTMSM(
        WalledTranslation(5, scale=0.05, slip=slip),
        memory=SpatialMemory(num_neighbors=3),
        encoder=FrameEncoder(2, (1, 4, 4), channels=(6, 6)),
        decoder=FrameDecoder(2, (1, 4, 4), channels=(6, 6)),
        initial_scale=0.3,
    )
    nn.init.normal_(model.transition.displacement)
    frames = torch.rand(3, 3, 1, 4, 4)[:, torch.arange(9) % 3]
    return model, Episodes(frames, torch.eye(5)[torch.randint(5, (3, 9))], 6)


def sliding() -> tuple[GTMSM, Episodes]:
    """Episodes that may begin anywhere in a room."""
    model, episodes = gtm_sm()
    model.transition = transition = SlidingTranslation(5, scale=0.05)
    nn.init.normal_(transition.displacement)
    nn.init.constant_(transition.offsets, 2.0)
    model.initial_scale.fill_(2.0)
    return model, episodes


def remembering() -> tuple[GTMSM, Episodes]:
    """Turns to the left and right and moves, some of which lead into walls that the frames show."""
    torch.manual_seed(0)
    transition = RememberedWalls(3, (1, 4, 4), scale=0.05, side=5, hidden=4)
    nn.init.normal_(transition.walls.logits.weight)
    with torch.no_grad():
        transition.displacement.copy_(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 0.0]]))
    model = GTMSM(
        transition,
        memory=SpatialMemory(num_neighbors=3),
        keys=HeadingKeys(),
        prior=MixturePrior(),
        encoder=FrameEncoder(2, (1, 4, 4), channels=(6, 6)),
        decoder=FrameDecoder(2, (1, 4, 4), channels=(6, 6)),
    )
    frames = torch.rand(3, 3, 1, 4, 4)[:, torch.tensor([0, 0, 1, 1, 2, 2, 0, 0, 1])]
    return model, Episodes(frames, torch.eye(3)[torch.randint(3, (3, 9))], 6)


def linear_gaussian(slip: float = 0.0) -> tuple[LinearGaussian, Episodes]:
    torch.manual_seed(0)
    model = LinearGaussian(Translation(5, scale=0.3, slip=slip))
    nn.init.normal_(model.transition.displacement)
    return model, model.simulate(torch.eye(5)[torch.randint(5, (3, 6))], 3)


MODELS: dict[str, Callable[[], tuple[Any, Episodes]]] = {
    "GTMSM": gtm_sm,
    "GTMSM that slips": lambda: gtm_sm(0.1),
    "GTMSM that slides": sliding,
    "GTMSM that remembers walls": remembering,
    "LinearGaussian": linear_gaussian,
}
GUIDES: dict[str, Callable[[Any], Any]] = {
    "DeadReckoning": DeadReckoning,
    "FoundStart": FoundStart,
    "FoundWalls": FoundWalls,
    "LandmarkCorrected": LandmarkCorrected,
    "LandmarkCorrected online": lambda model: LandmarkCorrected(model).eval(),
    "Smoothing": Smoothing,
    "ParticleGuide": ParticleGuide,
}
