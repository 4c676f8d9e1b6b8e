"""What the guides of this library ask of a model, and how programs are run for draws."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.randomness import callers_random_state, set_seed
from gtm_pyro.paths.autoregressive import AutoregressivePath
from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.reading import Reading
from gtm_pyro.storage.limits import check_seed
from gtm_pyro.transitions import Transition


class GuidedModel(Protocol):
    """What the guides of this library ask of a model."""

    @property
    def reading(self) -> Reading:
        """Which steps are scored when a call does not say."""

    @property
    def encoder(self) -> Any:
        """q(z_t | x_t), by which frames are compared; not asked for where the model has ``landmarks`` of its own."""

    @property
    def transition(self) -> Transition:
        """f(s_{t-1}, a_t), how noisy it is and how often it slips."""

    def path(self, actions: Tensor) -> TransitionPath:
        """p(s_{1:T} | a_{1:T}), batch shape ``(batch, 1)``, of actions ``(batch, T, action_dim)``."""

    def encode(self, frames: Tensor, s: Tensor) -> TorchDistribution:
        """q(z_t | x_t, s_t), batch shape ``(batch, Q)``, of frames ``(batch, Q, C, H, W)`` at states ``s``."""


class FilteredModel(Protocol):
    """What the guide of a temporal model asks of it."""

    @property
    def reading(self) -> Reading:
        """Which steps are scored when a call does not say."""

    def prior(self, episodes: Episodes, reading: Reading) -> AutoregressivePath:
        """p(z_t | z_{1:t-1}) of the scored steps, batch shape ``(batch, 1)``."""

    def posterior(self, episodes: Episodes, reading: Reading) -> AutoregressivePath:
        """q(z_t | z_{1:t-1}, x_t) of the scored steps, batch shape ``(batch, 1)``."""


@contextmanager
def drawing(seed: int, device: torch.device, *programs: Any) -> Iterator[None]:
    """Seeded draws from programs in evaluation mode; everything global is put back at the end.

    The parameter store is empty inside, so that no other model's parameters in it are taken for these.

    :raises ConfigError: a seed out of its range.
    """
    check_seed(seed=seed)
    modules = [program for program in programs if isinstance(program, torch.nn.Module) and program.training]
    with callers_random_state(device), pyro.get_param_store().scope():
        set_seed(seed, device)
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module in modules:
                module.train()
