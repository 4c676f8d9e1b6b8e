"""Whether the gradients of the loss are there, finite, and right."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.checks import latent_sites
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import (
    SEED,
    ConformanceError,
    NotApplicable,
    all_finite,
    backward,
    conformance_check,
    copied,
    loss_of,
    named_parameters,
    traces,
)

# tried from the largest: a rounded loss spoils a small one, a kink or a jump of the loss between its ends a large one
STEP_SIZES = (1e-4, 1e-5, 1e-6)


@conformance_check
def check_finite_gradients(
    model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None, *, unused: Collection[str] = ()
) -> None:
    """The loss gives every parameter that requires it a finite gradient, by the score function where it must.

    :param unused: names of parameters that need not get one, such as ``guide.scale``.
    """
    loss_of(model, guide, episodes, reading)  # parameters that the first call makes
    loss = backward(model, guide, episodes, reading)
    if not all_finite(loss):
        raise ConformanceError(f"expected a finite loss, got {float(loss)}")
    for name, parameter in named_parameters(model, guide).items():
        if parameter.grad is None:
            if name not in unused:
                raise ConformanceError(f"{name}: expected a gradient, got none: the loss does not depend on it")
        elif not all_finite(parameter.grad):
            bad = (~parameter.grad.isfinite()).nonzero()[0].tolist()
            raise ConformanceError(
                f"{name}: expected a finite gradient, got {parameter.grad[tuple(bad)].item()} at {bad}"
            )


@conformance_check
def check_gradients(
    model: Any,
    guide: Any,
    episodes: Episodes,
    reading: Reading | None = None,
    *,
    constants: Collection[str] = (),
    relative: float = 1e-3,
) -> None:
    """The gradient equals central differences of the loss, in float64 and under one seed.

    One random direction for each parameter. A difference counts as right if it is for one of three step sizes.

    :param constants: methods of the guide whose results the gradient takes as given, such as a search: they are
        called once, with the episodes, and keep that result while the parameters move.
    :param relative: tolerance.
    :raises NotApplicable: a guide with a site that is not reparameterised, whose surrogate has another value.
    """
    model, guide = (program.double() for program in copied(model, guide))
    episodes = episodes.to(torch.float64)
    _, drawn = traces(model, guide, episodes, reading)
    for name, node in latent_sites(drawn).items():
        if not node["fn"].has_rsample:
            raise NotApplicable(f"site {name!r} is not reparameterised")
    for name in constants:
        given = getattr(guide, name)(episodes)
        setattr(guide, name, lambda *args, given=given: given)
    loss = float(backward(model, guide, episodes, reading))
    for number, (name, parameter) in enumerate(named_parameters(model, guide).items()):
        set_seed(SEED + number, episodes.device)
        direction = torch.randn_like(parameter)
        expected = 0.0 if parameter.grad is None else float((parameter.grad * direction).sum())
        differences = []
        for step in STEP_SIZES:
            ends = [_loss_at(parameter, direction, sign * step, model, guide, episodes, reading) for sign in (1, -1)]
            differences.append((ends[0] - ends[1]) / (2 * step))
            rounding = 1e-14 * max(abs(loss), 1.0) / step
            if abs(differences[-1] - expected) <= relative * max(abs(expected), abs(differences[-1])) + rounding:
                break
        else:
            raise ConformanceError(
                f"{name}: expected the derivative {differences[1]:.8g} by central differences, got {expected:.8g}"
            )


@torch.no_grad()
def _loss_at(
    parameter: Tensor,
    direction: Tensor,
    step: float,
    model: Any,
    guide: Any,
    episodes: Episodes,
    reading: Reading | None,
) -> float:
    before = parameter.detach().clone()
    parameter.add_(step * direction)
    try:
        return loss_of(model, guide, episodes, reading)
    finally:
        parameter.copy_(before)
