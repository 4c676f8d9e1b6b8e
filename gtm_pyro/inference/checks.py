"""What can be said of a model and a guide at the price of one run of each: do they speak of the same variables?"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, GTMPyroError, kind_and_line
from gtm_pyro.inference.randomness import callers_random_state, module_parameters, set_seed
from gtm_pyro.reading import Reading

_SEED = 0


class ProgramError(ConfigError):
    """A model or a guide that does not run."""


def check_programs(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Sites, plates, shapes and supports are the same in both.

    :raises ConfigError: the guide lacks a site or has one more, or differs in a shape, a plate or a support; or a
        program cannot be run. Errors of this library pass unchanged.
    """
    with isolated(model, guide, episodes), torch.no_grad():
        own = own_traces(model, guide, episodes, reading)
        for difference in (*site_differences(*own), *plate_differences(*own)):
            raise ConfigError(difference)


@contextmanager
def isolated(model: Any, guide: Any, episodes: Episodes) -> Iterator[None]:
    """Pyro's checks on, its parameter store empty, the caller's random state put back, warnings not shown."""
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    # a function may close over modules that nobody here knows; theirs go to the store
    local = module_parameters(*modules) if len(modules) == 2 else nullcontext()
    with (
        callers_random_state(episodes.device),
        pyro.get_param_store().scope(),
        local,
        pyro.validation_enabled(True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def sample_sites(trace: poutine.Trace) -> dict[str, dict[str, Any]]:
    """Sites drawn from a distribution, observed or not, without the subsampling of plates."""
    sites: dict[str, Any] = {
        name: node for name, node in trace.nodes.items() if node["type"] == "sample" and not site_is_subsample(node)
    }
    return sites


def latent_sites(trace: poutine.Trace) -> dict[str, dict[str, Any]]:
    return {name: node for name, node in sample_sites(trace).items() if not node["is_observed"]}


def own_traces(
    model: Any, guide: Any, episodes: Episodes, reading: Reading | None
) -> tuple[poutine.Trace, poutine.Trace]:
    """Each on its own: a replayed model could not run on values of a wrong shape."""
    found = []
    for name, program in (("model", model), ("guide", guide)):
        set_seed(_SEED, episodes.device)
        try:
            found.append(poutine.trace(program).get_trace(episodes, reading))
        except GTMPyroError:
            raise
        except Exception as error:
            raise ProgramError(f"{name}: expected a program that runs, got {kind_and_line(error)}") from error
    return found[0], found[1]


def site_differences(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> Iterator[str]:
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


def plate_differences(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> Iterator[str]:
    ours, theirs = latent_sites(model_trace), latent_sites(guide_trace)
    for name in ours.keys() & theirs.keys():
        expected, got = ({f.name: (f.size, f.dim) for f in s[name]["cond_indep_stack"]} for s in (ours, theirs))
        for plate in [*expected, *(plate for plate in got if plate not in expected)]:
            if expected.get(plate) != got.get(plate):
                one, other = (
                    f"size {p[plate][0]} at dim {p[plate][1]}" if plate in p else "none" for p in (expected, got)
                )
                yield f"plate {plate!r} of site {name!r}: expected {one} as in the model, got {other}"
