"""What evaluation asks of a model and a guide, and how it runs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.randomness import callers_random_state, set_seed
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


class Rollout(Protocol):
    """What a model imagines: see ``gtm_pyro.inference.capabilities.Imagined``."""

    @property
    def states(self) -> Tensor: ...
    @property
    def frames(self) -> Tensor: ...
    @property
    def entries(self) -> Tensor: ...


class EvaluatedModel(Protocol):
    """What evaluation asks of a model besides being a Pyro program."""

    @property
    def encoder(self) -> Any:
        """``statistics(frames)["loc"]`` is the mean of q(z | x)."""

    @property
    def decoder(self) -> Any:
        """``frames(z)`` is the mean frame of p(x | z)."""

    def __call__(self, episodes: Episodes, reading: Reading) -> Any: ...
    def remember(self, s: Tensor, frames: Tensor) -> Any: ...
    def imagine(
        self, start: Tensor, memory: Any, actions: Tensor, sample: bool = False, past: Tensor | None = None
    ) -> Rollout: ...


class EvaluatedGuide(Protocol):
    """What evaluation asks of a guide besides being a Pyro program."""

    def __call__(self, episodes: Episodes, reading: Reading) -> Any: ...
    def path(self, episodes: Episodes) -> Any:
        """q(s_{1:T}), batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""


_OF_MODEL, _OF_GUIDE = ("remember", "imagine", "encoder", "decoder"), ("path",)


def check_can_be_evaluated(model: Any, guide: Any) -> None:
    """Whether model and guide have what evaluation asks of them besides being Pyro programs.

    :raises ConfigError: says what is missing.
    """
    for what, program, names in (("model", model, _OF_MODEL), ("guide", guide, _OF_GUIDE)):
        missing = [name for name in names if not hasattr(program, name)]
        if missing:
            raise ConfigError(f"{what}: evaluation needs {missing[0]}, which {type(program).__name__} does not have")


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


def has_heading(model: Any) -> bool:
    """Whether the last number of a model's states is a heading in radians, as its transition says."""
    return bool(getattr(getattr(model, "transition", None), "heading", False))
