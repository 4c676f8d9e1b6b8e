"""What a model and its guide can do, asked by what they have and never by their class.

A pair is a Pyro program ``model(episodes, reading)`` and another one for its guide, which share a plate of episodes,
dim -2, and where there are some a plate of steps, dim -1. With nothing more, their bounds are measured: ELBO, IWAE, KL.
Whatever they have besides, evaluation, generation and diagnosis make use of:

============ ======================================= ==============================================================
capability   of                                      what it takes
============ ======================================= ==============================================================
path         the guide                               ``path(episodes)``: q(s_{1:T})
memory       the model                               ``remember(s, frames)`` and ``imagine(start, memory, actions)``
imagines     the model                               ``predict(guide, observed, actions)``, or a path and a memory
retrieves    the model                               what it imagines says of which memorised step: ``entries``
reconstructs the model                               ``encoder.statistics(frames)["loc"]`` and ``decoder.frames(z)``,
                                                     or ``reconstruct(episodes)``
regret       the model, with a path                  ``remember``, ``recall`` and ``encoder.statistics(frames)["loc"]``,
                                                     or ``regret(episodes, path, reading)``
filters      the guide                               ``filter(episodes)``, ``memory`` and ``anywhere``
KL of steps  the guide                               ``kl_steps(episodes)``, ``(batch, T)``
============ ======================================= ==============================================================
"""

from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.reading import Reading


class Imagined(NamedTuple):
    """What a model expects to see.

    :ivar frames: ``(batch, steps, C, H, W)``.
    :ivar states: that can be compared with poses, ``(batch, steps, state_dim)``; None where there are none.
    :ivar entries: the number of the memorised step that is shown, ``(batch, steps)``, -1 for none; None where no
        memorised step is retrieved.
    """

    frames: Tensor
    states: Tensor | None = None
    entries: Tensor | None = None


class Program(Protocol):
    """A Pyro program of episodes: what every model and every guide is."""

    def __call__(self, episodes: Episodes, reading: Reading) -> Any: ...


class Predicts(Protocol):
    """A model that imagines frames from actions, in whatever way."""

    def predict(self, guide: Any, observed: Episodes, actions: Tensor, sample: bool = False) -> Imagined:
        """Infer from the observed steps whatever is needed, and imagine what follows.

        :param actions: after the observed steps, ``(batch, steps, action_dim)``.
        :param sample: draw what the model leaves to chance; otherwise show what it expects.
        """


class InfersPath(Protocol):
    """A guide with a path that can be compared with poses."""

    def path(self, episodes: Episodes) -> Any:
        """q(s_{1:T}), batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""


class HasStepKL(Protocol):
    """A guide that tells the KL divergence of its posterior from the prior step by step."""

    def kl_steps(self, episodes: Episodes) -> Tensor:
        """Along a draw, in nats, ``(batch, T)``."""


class Remembers(Protocol):
    """A model with a memory that a path addresses."""

    def remember(self, s: Tensor, frames: Tensor) -> Any: ...
    def imagine(
        self, start: Tensor, memory: Any, actions: Tensor, sample: bool = False, past: Tensor | None = None
    ) -> Any:
        """Something with ``states``, ``frames`` and ``entries``, as of :class:`Imagined`."""


class Reconstructs(Protocol):
    """A model whose parts show a frame as it sees it; or it has ``reconstruct(episodes)``, which shows the predicted
    frames ``(batch, num_predicted, C, H, W)``."""

    @property
    def encoder(self) -> Any:
        """``statistics(frames)["loc"]`` is the mean of q(z | x)."""

    @property
    def decoder(self) -> Any:
        """``frames(z)`` is the mean frame of p(x | z)."""


class Capability(StrEnum):
    """What a pair may be able to do besides being Pyro programs."""

    PATH = "path"
    MEMORY = "memory"
    IMAGINES = "imagines"
    RETRIEVES = "retrieves"
    RECONSTRUCTS = "reconstructs"
    REGRET = "regret"
    FILTERS = "filters"
    KL_STEPS = "KL of each step"


# what has it, and which members it takes; looked up with hasattr, for torch keeps a module's parts where the static
# look-up of runtime-checkable protocols does not find them
MEMBERS = {
    Capability.PATH: ("guide", ("path",)),
    Capability.MEMORY: ("model", ("remember", "imagine")),
    Capability.IMAGINES: ("model", ("predict",)),
    # whether it does shows in what it imagines
    Capability.RETRIEVES: ("model", ("predict",)),
    Capability.RECONSTRUCTS: ("model", ("encoder.statistics", "decoder.frames")),
    Capability.REGRET: ("model", ("remember", "recall", "encoder.statistics")),
    Capability.FILTERS: ("guide", ("filter", "memory", "anywhere")),
    Capability.KL_STEPS: ("guide", ("kl_steps",)),
}


def capabilities(model: Any, guide: Any) -> frozenset[Capability]:
    """Everything that a pair can do."""
    return frozenset(capability for capability in Capability if lacking(capability, model, guide) is None)


def lacking(capability: Capability, model: Any, guide: Any) -> str | None:
    """Why a pair cannot do it, in words that end a sentence: "remember, which VAE does not have". None if it can."""
    program, missing = _missing(capability, model, guide)
    if not missing:
        if capability is Capability.REGRET:
            return lacking(Capability.PATH, model, guide)
        return None
    kind = type(program).__name__
    if capability in (Capability.IMAGINES, Capability.RETRIEVES):
        # in place of a predict of its own, a memory and a path that addresses it
        parts = [_missing(part, model, guide) for part in (Capability.MEMORY, Capability.PATH)]
        if not any(names for _, names in parts):
            return None
        has_memory = not parts[0][1]
        return (
            f"path, which {type(guide).__name__} does not have"
            if has_memory
            else f"predict, or {' and '.join(parts[0][1])}, which {kind} does not have"
        )
    return f"{missing[0]}, which {kind} does not have"


def _missing(capability: Capability, model: Any, guide: Any) -> tuple[Any, list[str]]:
    """Who should have it, and the members that it has not."""
    what, members = MEMBERS[capability]
    program = model if what == "model" else guide
    own = {Capability.REGRET: "regret", Capability.RECONSTRUCTS: "reconstruct"}.get(capability)
    if own is not None and hasattr(model, own):  # one of its own
        return program, []
    return program, [name for name in members if not _has(program, name)]


def _has(program: Any, name: str) -> bool:
    part, _, rest = name.partition(".")
    found = getattr(program, part, None) if rest else program
    return hasattr(found, rest or part)


def weighs_entries(model: Any) -> bool:
    """Whether a model weighs the entries of a memory, so that its regret can be asked for along a given path."""
    return not _missing(Capability.REGRET, model, None)[1]


def check_can(capability: Capability, model: Any, guide: Any, task: str) -> None:
    """Raise ConfigError, in one line, where a pair cannot do what a task takes.

    :param task: what was asked for: "generation", for instance.
    """
    reason = lacking(capability, model, guide)
    if reason is not None:
        what = "guide" if reason.endswith(f"{type(guide).__name__} does not have") else "model"
        raise ConfigError(f"{what}: {task} needs {reason}")


def has_heading(model: Any) -> bool:
    """Whether the last number of a model's states is a heading in radians, as its transition says."""
    return bool(getattr(getattr(model, "transition", None), "heading", False))


class Predictions(NamedTuple):
    """The steps after the observed ones, twice, after one inference of the path where there is one.

    :ivar path: states of the observed steps, ``(batch, tau, state_dim)``; None without a path.
    :ivar expected: None for a pair that cannot imagine; likewise ``sampled``.
    """

    path: Tensor | None
    expected: Imagined | None
    sampled: Imagined | None


def predictions(model: Any, guide: Any, observed: Episodes, actions: Tensor, sampled: bool = True) -> Predictions:
    """What follows the observed steps, as far as the pair can tell.

    :param actions: after them, ``(batch, steps, action_dim)``.
    :param sampled: also with what is left to chance drawn.
    """
    able = capabilities(model, guide)
    path = guide.path(observed).sample().squeeze(-3) if Capability.PATH in able else None
    if hasattr(model, "predict"):
        shown = model.predict(guide, observed, actions)
        return Predictions(path, shown, model.predict(guide, observed, actions, sample=True) if sampled else None)
    if path is None or Capability.IMAGINES not in able:
        return Predictions(path, None, None)
    memory, past = model.remember(path, observed.frames), observed.actions
    rolled = [model.imagine(path[:, -1], memory, actions, past=past)]
    if sampled:
        rolled.append(model.imagine(path[:, -1], memory, actions, sample=True, past=past))
    imagined = [Imagined(rollout.frames, rollout.states, rollout.entries) for rollout in rolled]
    return Predictions(path, imagined[0], imagined[1] if sampled else None)


@torch.no_grad()
def predict(model: Any, guide: Any, observed: Episodes, actions: Tensor, sample: bool = False) -> Imagined:
    """Imagine what follows the observed steps: ``model.predict``, or by path and memory.

    :raises ConfigError: the pair cannot.
    """
    check_can(Capability.IMAGINES, model, guide, "prediction")
    found = predictions(model, guide, observed, actions, sampled=sample)
    imagined = found.sampled if sample else found.expected
    assert imagined is not None  # as checked
    return imagined
