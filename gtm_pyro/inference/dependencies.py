"""What the sites of a model and a guide depend on, read off one run of both."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading
from gtm_pyro.storage.checkpoints import program


class Dependencies:
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
