"""Which of Pyro's losses fit which model and guide; a combination that is wrong in theory is refused.

What each loss assumes, in Pyro 1.9:

======================= ======================================================================================
loss                    fits
======================= ======================================================================================
Trace_ELBO              every pair
TraceGraph_ELBO         every pair; for draws that are not reparameterised its gradient has less variance
TraceMeanField_ELBO     reparameterised guides that draw no latent from one that it is the parent of in the model;
                        equals Trace_ELBO where no KL divergence is known in closed form, as for a mixture
RenyiELBO               PyroModules; at least two particles; with alpha 0 (IWAE) reparameterised guides. Its weights are
                        of one episode each where all sites are in one plate of episodes
ReweightedWakeSleep     guides with parameters of their own and sites that are not drawn from each other. Weights are
                        of the whole batch: few episodes a batch, many particles
TraceEnum_ELBO          pairs that mark a site ``infer={"enumerate": ...}``
TraceTMC_ELBO           likewise, with ``num_samples`` for continuous sites
Trace_MMD               reparameterised pairs whose latents do not depend on each other; no bound
TraceTailAdaptive_ELBO  none: it has gradients and no value, and a training is watched by its value
======================= ======================================================================================
"""

from collections.abc import Callable
from inspect import signature
from typing import Any, Protocol

import torch
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.dependencies import Dependencies
from gtm_pyro.inference.randomness import callers_random_state, module_parameters
from gtm_pyro.reading import Reading

FOR_ANY_PAIR: tuple[type, ...] = (Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO, RenyiELBO)
"""Losses that train the pairs of this library; others want pairs of a kind, see the table."""


class Loss(Protocol):
    """What a training asks of a loss: Pyro's have it, and so may an object of a user's own.

    One without ``differentiable_loss`` may have ``loss_and_grads`` instead, with the same arguments: it sets the
    gradients itself, and returns the loss. One with ``at_step(step, total)`` is told before every step how many were
    taken, and how many there will be: that is all that an annealed weight needs, also when a run is resumed. What else
    is to survive a resume, such as a multiplier that is learnt, belongs into the model, as a parameter or a buffer.
    """

    def differentiable_loss(self, model: Any, guide: Any, episodes: Episodes, reading: Reading) -> Tensor:
        """In nats, summed over the episodes; its gradient is followed down."""


def loss_value(loss: Any, model: Any, guide: Any, episodes: Episodes, reading: Reading) -> float:
    """The loss in nats, to see whether it can be evaluated.

    :raises ConfigError: the object has none of the methods of a loss.
    """
    for name in ("loss", "differentiable_loss", "loss_and_grads"):
        if hasattr(loss, name):
            with torch.set_grad_enabled(name == "loss_and_grads"):
                value = getattr(loss, name)(model, guide, episodes, reading)
            return float(torch.as_tensor(value[0] if isinstance(value, tuple) else value).detach())
    raise ConfigError(f"loss: expected differentiable_loss or loss_and_grads, {type(loss).__name__} has neither")


def check_combination(model: nn.Module, guide: nn.Module, loss: Any, episodes: Episodes, reading: Reading) -> None:
    """Refuse a loss whose assumptions the model and the guide do not meet.

    Dependencies are read off one run of both, from the gradients between their sites: one that is not differentiable
    is not seen. A loss of another class than Pyro's passes. The random state is left as it was.

    :raises ConfigError: names the loss, the guide and the reason.
    """
    check = next((check for kind, check in _CHECKS if isinstance(loss, kind)), None)
    if check is None:
        return
    with callers_random_state(episodes.device), module_parameters(model, guide), torch.enable_grad():
        reason = check(loss, Dependencies(model, guide, episodes, reading))
    if reason:
        raise ConfigError(f"loss: {type(loss).__name__} does not fit the guide {type(guide).__name__}: {reason}")


def _mean_field(loss: Any, pair: Dependencies) -> str | None:
    plain = pair.not_reparameterised()
    if plain:
        return f"it needs reparameterised draws, {plain[0]} is none; TraceGraph_ELBO does without"
    for later, earlier in pair.drawn_from():
        if later in pair.parents(earlier):
            return (
                f"its KL divergence of {earlier} takes {later} as given, but the guide draws {later} from {earlier}; "
                "Trace_ELBO assumes nothing of the kind"
            )
    return None


def _renyi(loss: Any, pair: Dependencies) -> str | None:
    if loss.num_particles < 2:
        return f"it needs num_particles of at least 2, got {loss.num_particles}; with 1 it is Trace_ELBO"
    plain = pair.not_reparameterised()
    if plain and loss.alpha == 0:
        return f"with alpha 0 a draw that is not reparameterised, as {plain[0]} is, gives its parameters no gradient"
    if not pair.param_sites:
        return f"it trains only parameters that Pyro sees; make {' and '.join(pair.names)} PyroModules"
    return None


def _wake_sleep(loss: Any, pair: Dependencies) -> str | None:
    of_guide, of_model = pair.parameters()
    if not of_guide:
        return "it trains the guide by its density at given draws, and that has no parameters in it"
    shared = [name for name in of_guide if name in of_model]
    if shared:
        model, _ = pair.names
        return (
            f"it trains the model and the guide by two losses, but both have {shared[0].removeprefix('model.')} and "
            f"{len(shared) - 1} more parameters of {model} in them; it needs a guide with parameters of its own"
        )
    for later, earlier in pair.conditioned_on():
        return (
            f"it holds all draws fixed, but the guide draws {later} from {earlier}, and Pyro lets the gradient of "
            f"{later}'s density through {earlier}; RenyiELBO has none of that"
        )
    if loss.insomnia < 1 and "observations" not in signature(pair.guide.forward).parameters:
        return (
            f"with insomnia {loss.insomnia} it dreams, and the guide has no argument observations; insomnia 1 does not"
        )
    return None


def _enumerating(loss: Any, pair: Dependencies) -> str | None:
    if loss.strict_enumeration_warning and not pair.enumerated():
        model, guide = pair.names
        return f'no site of {model} or {guide} has infer={{"enumerate": ...}}; without any it is Trace_ELBO'
    return None


def _tail_adaptive(loss: Any, pair: Dependencies) -> str | None:
    return "it has gradients and no value, and a training is watched by its value; RenyiELBO has both"


def _mmd(loss: Any, pair: Dependencies) -> str | None:
    plain = pair.not_reparameterised()
    plain += [name for name in pair.drawn if name in pair.sites and not pair.sites[name]["fn"].has_rsample]
    if plain:
        return f"it needs reparameterised draws of guide and model, {plain[0]} is none"
    for name in pair.drawn:
        for parent in pair.parents(name):
            model, _ = pair.names
            return (
                f"it compares the draws of each latent by itself, so what {name} has to do with {parent} in {model} "
                "is not scored"
            )
    return None


# Of a class and its base the class comes first.
_CHECKS: tuple[tuple[type, Callable[[Any, Dependencies], str | None]], ...] = (
    (TraceMeanField_ELBO, _mean_field),
    (TraceTailAdaptive_ELBO, _tail_adaptive),
    (RenyiELBO, _renyi),
    (ReweightedWakeSleep, _wake_sleep),
    (TraceEnum_ELBO, _enumerating),
    (TraceTMC_ELBO, _enumerating),
    (Trace_MMD, _mmd),
)
