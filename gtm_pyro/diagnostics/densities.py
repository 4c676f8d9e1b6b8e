"""Log densities of a program's sites for many paths at once, and draws of paths and frames beyond what was seen."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.checks import latent_sites, sample_sites
from gtm_pyro.reading import Reading

DRAWS_AT_ONCE = 64  # a read of the memory holds draws x steps x neighbours x latent_dim numbers


class SiteNames(NamedTuple):
    """What the sites are called that a check speaks of.

    :ivar path: of the whole path, s in the GTM-SM; None where no latent is one.
    :ivar latents: of all others, z in the GTM-SM.
    :ivar frame: of the frames, x in the GTM-SM; None where no observed site is of their shape.
    """

    path: str | None
    latents: tuple[str, ...]
    frame: str | None


def site_names(model: Any, guide: Any, episodes: Episodes) -> SiteNames:
    """Sites by their shapes, from one run of each program on the first episode."""
    one, reading = episodes[:1], Reading("predicted" if episodes.num_predicted else "earlier")
    drawn = poutine.trace(guide).get_trace(one, reading)
    sites = sample_sites(poutine.trace(poutine.replay(model, drawn)).get_trace(one, reading))
    shapes = {name: tuple(site["fn"].event_shape) for name, site in sites.items()}
    latent = [name for name in latent_sites(drawn) if name in sites]
    path = None
    if hasattr(guide, "path"):
        wanted = tuple(guide.path(one).event_shape)
        path = next((name for name in latent if shapes[name] == wanted), None)
    seen = (name for name in sites if sites[name]["is_observed"] and shapes[name] == episodes.frame_shape)
    return SiteNames(path, tuple(name for name in latent if name != path), next(seen, None))


def one_by_one(episodes: Episodes) -> Iterator[Episodes]:
    """Each episode as a batch of its own, so that the draws of one fill the computer's memory, not those of all."""
    return (episodes[i] for i in range(episodes.batch_size))


def site_log_probs(program: Any, episodes: Episodes, reading: Reading, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The log density of each site of a model or a guide with some sites held, summed over steps, in nats.

    :param held: values of sites by name; any may have leading dimensions of draws (``s`` ``(draws, batch, 1, T, D)``,
        ``z`` ``(draws, batch, steps, latent_dim)``). No plate is made for them: a site that does not depend on what
        has draws is scored once.
    :returns: by site, ``(draws, batch)``, or ``(batch,)`` where it is the same for all draws.
    """
    trace = poutine.trace(poutine.condition(program, dict(held))).get_trace(episodes, reading)
    nodes: Any = poutine.util.prune_subsample_sites(trace).nodes
    samples = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    return {name: site["fn"].log_prob(site["value"]).sum(-1) for name, site in samples.items()}


def site_distribution(program: Any, episodes: Episodes, reading: Reading, held: Mapping[str, Tensor], site: str) -> Any:
    """What a program draws a site from, given the values of others; ``held`` as for :func:`site_log_probs`."""
    nodes: Any = poutine.trace(poutine.condition(program, dict(held))).get_trace(episodes, reading).nodes
    return nodes[site]["fn"]


def draw_latents(guide: Any, episodes: Episodes, reading: Reading, s: Tensor, names: SiteNames) -> dict[str, Tensor]:
    """The latent besides the path, from the guide along paths ``s`` ``(draws, batch, 1, T, D)``, by its name.

    :returns: of z ``(draws, batch, steps, latent_dim)``; nothing where there is no such latent.
    """
    assert names.path is not None
    return {name: _along(guide, episodes, reading, {names.path: s}, name) for name in names.latents}


def _along(guide: Any, episodes: Episodes, reading: Reading, held: Mapping[str, Tensor], name: str) -> Tensor:
    q, (s,) = site_distribution(guide, episodes, reading, held, name), held.values()
    # a guide whose z does not depend on s has one distribution for all draws
    value: Tensor = q.sample(s.shape[:1]) if len(q.batch_shape) == s.dim() - 3 else q.sample()
    return value


@torch.no_grad()
def draw_paths(model: Any, guide: Any, episodes: Episodes, num_draws: int) -> Tensor:
    """Paths by the protocol of evaluation: the guide sees the first tau frames, the actions lead on from there.

    :returns: ``(draws, batch, T, state_dim)``.
    """
    s = guide.path(episodes.observed).sample((num_draws,)).squeeze(-3)
    if not episodes.num_predicted:
        return s
    transition, past = model.transition, episodes.observed_actions
    actions = torch.cat([past[:, -1:], episodes.predicted_actions], 1)
    noise = transition.scale_noise(torch.randn(*s.shape[:2], actions.shape[1], s.shape[-1]).to(s))
    actions, past = (a.expand(num_draws, *a.shape) for a in (actions, past))
    if getattr(transition, "reads_memory", False):
        transition = transition.reading(model.remember(s, episodes.observed.frames))
    onward: Tensor = transition.rollout(s[..., -1, :], actions, noise, past)
    return torch.cat([s, onward[..., 1:, :]], -2)


def draw_frames(model: Any, episodes: Episodes, s: Tensor, names: SiteNames) -> Tensor:
    """Predicted frames along paths ``(draws, batch, T, state_dim)``, with the decoder's noise.

    :returns: ``(draws, batch, num_predicted, C, H, W)``.
    """
    freed, paths = poutine.uncondition(model), {names.path: s.unsqueeze(-3)}
    along = Predictive(freed, paths, return_sites=(names.frame,), parallel=True)
    frames: Tensor = along(episodes, Reading())[names.frame]
    return frames
