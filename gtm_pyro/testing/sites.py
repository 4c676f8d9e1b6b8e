"""Whether model and guide speak of the same variables: signatures, sites, shapes, supports, plates."""

import inspect
import warnings
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.checks import (
    own_traces,
    plate_differences,
    site_differences,
)
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import SEED, ConformanceError, conformance_check


@conformance_check
def check_signature(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Both are called as ``program(episodes, reading=None)``: same names, same order, same defaults.

    A program that takes ``*args``, as Pyro's autoguides do, fits any other.
    """
    parameters = {}
    for name, program in (("model", model), ("guide", guide)):
        signature = inspect.signature(program.forward if isinstance(program, nn.Module) else program)
        parameters[name] = list(signature.parameters.values())
        try:
            signature.bind(episodes, reading)
            signature.bind(episodes)
        except TypeError:
            raise ConformanceError(
                f"{name}: expected to be called as (episodes, reading=None), got {signature}"
            ) from None
    if any(p.kind is p.VAR_POSITIONAL for listed in parameters.values() for p in listed):
        return
    ours, theirs = ([(p.name, p.default) for p in parameters[name]] for name in ("model", "guide"))
    if ours != theirs:
        expected, got = (", ".join(str(p.replace(annotation=p.empty)) for p in parameters[n]) for n in parameters)
        raise ConformanceError(f"guide: expected the model's signature ({expected}), got ({got})")


@conformance_check
def check_sites(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """The latent sites are the same, with the same batch and event shapes and the same support.

    A site of the guide alone is allowed where it is marked ``infer={"is_auxiliary": True}``, as in Pyro.
    """
    for difference in site_differences(*own_traces(model, guide, episodes, reading)):
        raise ConformanceError(difference)


@conformance_check
def check_plates(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Every latent site stands in the same plates: names, sizes, dimensions."""
    for difference in plate_differences(*own_traces(model, guide, episodes, reading)):
        raise ConformanceError(difference)


@conformance_check
def check_warnings(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Neither Pyro nor torch warns when the loss is evaluated and differentiated."""
    set_seed(SEED, episodes.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = Trace_ELBO().differentiable_loss(model, guide, episodes, reading)
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            loss.backward()
    for warning in caught:
        if issubclass(warning.category, UserWarning | RuntimeWarning):
            lines = str(warning.message).strip().splitlines()
            raise ConformanceError(f"expected none, got {warning.category.__name__} ({' '.join(lines)})")
