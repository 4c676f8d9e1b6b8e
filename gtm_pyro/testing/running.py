"""How the checks run a pair of programs: seeded, apart from everything global, and with one kind of error."""

import copy
import functools
import unittest
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import GTMPyroError, kind_and_line
from gtm_pyro.inference.checks import ProgramError, isolated, sample_sites
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading

SEED = 0
Check = TypeVar("Check", bound=Callable[..., None])


class ConformanceError(GTMPyroError, AssertionError):
    """A model and a guide that do not fit together, or one that is no sound Pyro program: one line, what and where."""


class NotApplicable(unittest.SkipTest):
    """A check that says nothing about this pair, and why. pytest and unittest count it as skipped."""


def conformance_check(function: Check) -> Check:
    """Run a check apart from global state, and name it in its errors, those of the programs included."""
    name = function.__name__.removeprefix("check_").replace("_", " ")

    @functools.wraps(function)
    def run(model: Any, guide: Any, episodes: Episodes, *args: Any, **options: Any) -> None:
        try:
            with isolated(model, guide, episodes):
                function(model, guide, episodes, *args, **options)
        except NotApplicable as reason:
            raise NotApplicable(f"{name}: {reason}") from None
        except (ConformanceError, ProgramError) as error:
            raise ConformanceError(f"{name}: {error}") from error.__cause__
        except Exception as error:
            raise ConformanceError(f"{name}: expected the pair to run, got {kind_and_line(error)}") from error

    return cast(Check, run)


def traces(
    model: Any, guide: Any, episodes: Episodes, reading: Reading | None, seed: int | None = SEED
) -> tuple[poutine.Trace, poutine.Trace]:
    """The model's trace, replayed on a draw of the guide's, and the guide's; both with log probabilities.

    :param seed: None goes on in the random stream.
    """
    if seed is not None:
        set_seed(seed, episodes.device)
    drawn = poutine.trace(guide).get_trace(episodes, reading)
    scored = poutine.trace(poutine.replay(model, drawn)).get_trace(episodes, reading)
    drawn.compute_log_prob()
    scored.compute_log_prob()
    return scored, drawn


def plate_nesting(trace: poutine.Trace) -> int:
    """How many batch dimensions the plates of a trace take."""
    dims = [frame.dim for node in sample_sites(trace).values() for frame in node["cond_indep_stack"] if frame.dim]
    return -min(dims, default=0)


def loss_of(
    model: Any, guide: Any, episodes: Episodes, reading: Reading | None, seed: int | None = SEED, particles: int = 1
) -> float:
    """The negative ELBO in nats.

    :param seed: None goes on in the random stream.
    """
    if seed is not None:
        set_seed(seed, episodes.device)
    return float(Trace_ELBO(num_particles=particles).loss(model, guide, episodes, reading))


def backward(model: Any, guide: Any, episodes: Episodes, reading: Reading | None, seed: int = SEED) -> Tensor:
    """The loss whose gradients are now those of the parameters."""
    for parameter in named_parameters(model, guide).values():
        parameter.grad = None
    set_seed(seed, episodes.device)
    loss = Trace_ELBO().differentiable_loss(model, guide, episodes, reading)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise NotApplicable("no parameter requires a gradient")
    loss.backward()
    return loss.detach()


def named_parameters(model: Any, guide: Any) -> dict[str, nn.Parameter]:
    """Every parameter that requires a gradient, named ``model.*`` or ``guide.*``; a shared one once."""
    pair = nn.ModuleDict({k: p for k, p in (("model", model), ("guide", guide)) if isinstance(p, nn.Module)})
    return {name: p for name, p in pair.named_parameters() if p.requires_grad}


def copied(model: Any, guide: Any) -> tuple[nn.Module, nn.Module]:
    """A deep copy of both, the guide's reference to the model included.

    :raises NotApplicable: one is a plain function, which has no copy of its own.
    """
    for name, program in (("model", model), ("guide", guide)):
        if not isinstance(program, nn.Module):
            raise NotApplicable(f"expected modules, the {name} is a {type(program).__name__}")
    twin: tuple[nn.Module, nn.Module] = copy.deepcopy((model, guide))
    return twin


def close(first: float, second: float, relative: float = 1e-6) -> bool:
    """Equal but for rounding; NaN is equal to nothing."""
    return abs(first - second) <= relative * max(abs(first), abs(second), 1.0)


def all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
