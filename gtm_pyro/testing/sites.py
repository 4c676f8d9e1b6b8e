"""Whether model and guide speak of the same variables: signatures, sites, shapes, supports, plates."""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, GTMPyroError
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import (
    SEED,
    ConformanceError,
    conformance_check,
    isolated,
    latent_sites,
    sample_sites,
    summary,
)


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
    for difference in _site_differences(*_own_traces(model, guide, episodes, reading)):
        raise ConformanceError(difference)


@conformance_check
def check_plates(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Every latent site stands in the same plates: names, sizes, dimensions."""
    for difference in _plate_differences(*_own_traces(model, guide, episodes, reading)):
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


def check_programs(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """What can be said before training at the price of one run of each program: sites, plates, shapes, supports.

    :raises ConfigError: the guide lacks a site or has one more, or differs in a shape, a plate or a support; or a
        program cannot be run. Errors of this library pass unchanged.
    """
    with isolated(model, guide, episodes), torch.no_grad():
        try:
            own = _own_traces(model, guide, episodes, reading)
        except ConformanceError as error:
            raise ConfigError(str(error)) from error.__cause__
        for difference in (*_site_differences(*own), *_plate_differences(*own)):
            raise ConfigError(difference)


def _own_traces(
    model: Any, guide: Any, episodes: Episodes, reading: Reading | None
) -> tuple[poutine.Trace, poutine.Trace]:
    """Each on its own: a replayed model could not run on values of a wrong shape."""
    found = []
    for name, program in (("model", model), ("guide", guide)):
        set_seed(SEED, episodes.device)
        try:
            found.append(poutine.trace(program).get_trace(episodes, reading))
        except GTMPyroError:
            raise
        except Exception as error:
            raise ConformanceError(f"{name}: expected a program that runs, got {summary(error)}") from error
    return found[0], found[1]


def _site_differences(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> Iterator[str]:
    ours, theirs = latent_sites(model_trace), latent_sites(guide_trace)
    theirs_listed = ", ".join(theirs) or "none"
    for name in theirs:
        if name not in ours and not theirs[name]["infer"].get("is_auxiliary"):
            kind = "observed" if name in sample_sites(model_trace) else "not there"
            listed = ", ".join(ours) or "none"
            yield f"site {name!r}: expected one of the model's latent sites ({listed}) in the guide; there it is {kind}"
    for name, node in ours.items():
        if name not in theirs:
            yield f"site {name!r}: expected in the guide as in the model, got only {theirs_listed}"
            continue
        expected, got = node["fn"], theirs[name]["fn"]
        for what in ("event_shape", "batch_shape"):
            one, other = tuple(getattr(expected, what)), tuple(getattr(got, what))
            if one != other:
                yield f"site {name!r}: expected {what.replace('_', ' ')} {one} as in the model, got {other}"
        for whose, program in (("model", node), ("guide", theirs[name])):
            shape, value = tuple(program["fn"].shape()), program["value"]
            if tuple(value.shape) != shape:
                yield f"site {name!r}: expected the {whose} to draw values {shape}, got {tuple(value.shape)}"
        yield from _support_differences(name, expected, got, theirs[name]["value"])


def _support_differences(name: str, expected: Any, got: Any, value: Any) -> Iterator[str]:
    supports = []
    for whose, distribution in (("model", expected), ("guide", got)):
        try:
            supports.append(_support(distribution.support))
        except (NotImplementedError, AttributeError):
            kind = type(distribution).__name__
            yield f"site {name!r}: expected the {whose}'s distribution to name its support, {kind} does not"
            return
    (base, bounds), (other_base, other_bounds) = supports
    same = base == other_base and bounds.keys() == other_bounds.keys()
    if not same or not all(_equal(bounds[key], other_bounds[key]) for key in bounds):
        yield f"site {name!r}: expected support {_words(base, bounds)} as in the model, got {_words(*supports[1])}"
    elif value.shape == expected.shape() and not bool(expected.support.check(value).all()):
        yield f"site {name!r}: expected draws in the support {_words(base, bounds)}, the guide drew one outside"


def _support(constraint: Any) -> tuple[str, dict[str, Any]]:
    """The kind of a constraint and its bounds, without the number of dimensions that an event counts."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return type(constraint).__name__.strip("_"), dict(vars(constraint))


def _words(base: str, bounds: dict[str, Any]) -> str:
    shown = {
        key: f"{float(v):g}"
        if isinstance(v, int | float) or (isinstance(v, torch.Tensor) and v.numel() == 1)
        else "..."
        for key, v in bounds.items()
    }
    return base + (f"({', '.join(f'{key}={v}' for key, v in shown.items())})" if shown else "")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        try:
            return bool((one == other.to(one.device)).all())
        except RuntimeError:  # of shapes that do not fit
            return False
    return bool(one == other)


def _plate_differences(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> Iterator[str]:
    ours, theirs = latent_sites(model_trace), latent_sites(guide_trace)
    for name in ours.keys() & theirs.keys():
        expected, got = ({f.name: (f.size, f.dim) for f in s[name]["cond_indep_stack"]} for s in (ours, theirs))
        for plate in [*expected, *(plate for plate in got if plate not in expected)]:
            if expected.get(plate) != got.get(plate):
                one, other = (
                    f"size {p[plate][0]} at dim {p[plate][1]}" if plate in p else "none" for p in (expected, got)
                )
                yield f"plate {plate!r} of site {name!r}: expected {one} as in the model, got {other}"
