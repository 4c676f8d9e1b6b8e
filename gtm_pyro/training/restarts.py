"""Noticing that a run is stuck, never by true poses, and drawing fresh values for another try."""

from typing import Any

import pyro
import torch
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.capabilities import Capability, check_can
from gtm_pyro.inference.regret import regret
from gtm_pyro.reading import Reading
from gtm_pyro.training.stages import Stage


def check_has_regret(model: nn.Module, guide: nn.Module, stages: tuple[Stage, ...]) -> None:
    """A stage with ``max_regret`` needs a model that weighs memory entries, and a guide with a path.

    :raises ConfigError: says what is missing.
    """
    if any(stage.max_regret is not None for stage in stages):
        check_can(Capability.REGRET, model, guide, "max_regret")


@torch.no_grad()
def median_regret(model: Any, guide: Any, episodes: Episodes, reading: Reading) -> float:
    """The median of the regret over scored steps, for the guide's path, in nats a frame."""
    with pyro.validation_enabled(False):
        return float(regret(model, episodes, guide.path(episodes), reading).median())


@torch.no_grad()
def redraw_weights(module: nn.Module) -> None:
    """Draw the weights of linear and convolutional layers anew from the law that they were drawn from.

    Entries that were drawn independently from one law, as torch does by default, may be shuffled: that is
    another draw. Biases, which programs set on purpose (a gate that starts open), and parameters outside such
    layers stay.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            flat = layer.weight.flatten()
            order = torch.randperm(len(flat)).to(flat.device)  # drawn on the CPU: the same on every device
            layer.weight.copy_(flat[order].view_as(layer.weight))
