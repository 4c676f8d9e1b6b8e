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

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import torch
from pyro import poutine
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_MMD,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.randomness import callers_random_state, module_parameters
from gtm_pyro.reading import Reading
from gtm_pyro.storage.checkpoints import program


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
        reason = check(loss, _Pair(model, guide, episodes, reading))
    if reason:
        raise ConfigError(f"loss: {type(loss).__name__} does not fit the guide {type(guide).__name__}: {reason}")


class _Pair:
    """One run of a guide, and of its model with the guide's values."""

    def __init__(self, model: nn.Module, guide: nn.Module, episodes: Episodes, reading: Reading) -> None:
        self.model, self.guide = model, guide
        with _Tracked():
            guided = poutine.trace(guide).get_trace(episodes, reading)
        self.drawn = {name: site for name, site in _samples(guided).items() if not site["is_observed"]}
        self.held = {name: _leaf(site["value"]) for name, site in self.drawn.items()}
        modelled = poutine.trace(poutine.condition(model, self.held)).get_trace(episodes, reading)
        self.sites = _samples(modelled)
        self.param_sites = [*guided.param_nodes, *modelled.param_nodes]

    @property
    def names(self) -> tuple[str, str]:
        return type(self.model).__name__, type(self.guide).__name__

    def not_reparameterised(self) -> list[str]:
        """Sites of the guide whose draws have no gradient."""
        return [name for name, site in self.drawn.items() if not site["fn"].has_rsample]

    def drawn_from(self) -> Iterator[tuple[str, str]]:
        """Pairs (later, earlier) of the guide's sites, the later of which is drawn from the earlier, if indirectly."""
        for later, earlier in _ordered(self.drawn):
            if _depends(self.drawn[later]["value"], self.drawn[earlier]["value"]):
                yield later, earlier

    def conditioned_on(self) -> Iterator[tuple[str, str]]:
        """Pairs (later, earlier) of the guide's sites, the density of the later of which has the earlier in it."""
        for later, earlier in _ordered(self.drawn):
            site = self.drawn[later]
            if _depends(site["fn"].log_prob(site["value"].detach()), self.drawn[earlier]["value"]):
                yield later, earlier

    def parents(self, name: str) -> list[str]:
        """Latents that the model's density of a latent depends on."""
        if name not in self.sites:
            return []
        density = self.sites[name]["fn"].log_prob(self.held[name])
        return [other for other, value in self.held.items() if other != name and _depends(density, value)]

    def parameters(self) -> tuple[list[str], list[str]]:
        """What the densities of the guide, and of the model, depend on when all draws are held: names of parameters."""
        named = {n: p for n, p in program(self.model, self.guide).named_parameters() if p.requires_grad}
        guide = [site["fn"].log_prob(self.held[name]).sum() for name, site in self.drawn.items()]
        model = [site["fn"].log_prob(site["value"]).sum() for site in self.sites.values()]
        of_guide, of_model = (
            [name for name, p in named.items() if any(_depends(density, p) for density in densities)]
            for densities in (guide, model)
        )
        return of_guide, of_model

    def enumerated(self) -> bool:
        """Whether a site of either program says that it is to be enumerated."""
        return any(site["infer"].get("enumerate") for sites in (self.drawn, self.sites) for site in sites.values())


def _mean_field(loss: Any, pair: _Pair) -> str | None:
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


def _renyi(loss: Any, pair: _Pair) -> str | None:
    if loss.num_particles < 2:
        return f"it needs num_particles of at least 2, got {loss.num_particles}; with 1 it is Trace_ELBO"
    plain = pair.not_reparameterised()
    if plain and loss.alpha == 0:
        return f"with alpha 0 a draw that is not reparameterised, as {plain[0]} is, gives its parameters no gradient"
    if not pair.param_sites:
        return f"it trains only parameters that Pyro sees; make {' and '.join(pair.names)} PyroModules"
    return None


def _wake_sleep(loss: Any, pair: _Pair) -> str | None:
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


def _enumerating(loss: Any, pair: _Pair) -> str | None:
    if loss.strict_enumeration_warning and not pair.enumerated():
        model, guide = pair.names
        return f'no site of {model} or {guide} has infer={{"enumerate": ...}}; without any it is Trace_ELBO'
    return None


def _tail_adaptive(loss: Any, pair: _Pair) -> str | None:
    return "it has gradients and no value, and a training is watched by its value; RenyiELBO has both"


def _mmd(loss: Any, pair: _Pair) -> str | None:
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
_CHECKS: tuple[tuple[type, Callable[[Any, _Pair], str | None]], ...] = (
    (TraceMeanField_ELBO, _mean_field),
    (TraceTailAdaptive_ELBO, _tail_adaptive),
    (RenyiELBO, _renyi),
    (ReweightedWakeSleep, _wake_sleep),
    (TraceEnum_ELBO, _enumerating),
    (TraceTMC_ELBO, _enumerating),
    (Trace_MMD, _mmd),
)


class _Tracked(Messenger):
    """Every draw becomes a node of the autograd graph, whether or not a parameter is behind it."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not msg["is_observed"] and isinstance(value, Tensor) and value.is_floating_point():
            msg["value"] = value.clone() if value.requires_grad else _leaf(value)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(value.is_floating_point())


def _samples(trace: poutine.Trace) -> dict[str, Any]:
    nodes = prune_subsample_sites(trace).nodes
    return {name: site for name, site in nodes.items() if site["type"] == "sample"}


def _ordered(sites: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = list(sites)
    for i, later in enumerate(names):
        for earlier in names[:i]:
            yield later, earlier


def _depends(result: Tensor, source: Tensor) -> bool:
    """Whether a gradient comes from ``result`` to ``source``."""
    if not (result.requires_grad and source.requires_grad):
        return False
    (grad,) = torch.autograd.grad(result.sum(), source, retain_graph=True, allow_unused=True)
    return grad is not None
