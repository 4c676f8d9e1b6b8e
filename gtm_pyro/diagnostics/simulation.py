"""Episodes that a model makes up: states, latents and frames together, from actions alone."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from gtm_pyro.diagnostics.densities import SiteNames
from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading

GTM_SM = SiteNames("s", ("z",), "x")


class Simulated(NamedTuple):
    """Episodes whose steps all count as memorised, with the truth that no data set has.

    ``s`` ``(batch, T, state_dim)``; ``latents``, of z ``(batch, T, latent_dim)``, by name.
    """

    episodes: Episodes
    s: Tensor
    latents: dict[str, Tensor]


@torch.no_grad()
def simulate(model: Any, actions: Tensor, frame_shape: tuple[int, int, int], names: SiteNames = GTM_SM) -> Simulated:
    """Draw from prod_t p(s_t | s_{t-1}, a_t) p(z_t | s_t, m_{<t}) p(x_t | z_t): each step reads what was drawn before.

    Where the transition reads the memory too, s_t is drawn with the frames before it.

    This is the model under ``Reading("earlier")``. The memory needs frames that are still being drawn, so the program
    runs T times along one path, and run t contributes its step t, which reads none but the t - 1 known frames: use
    short episodes.

    :param actions: ``(batch, T, action_dim)``.
    :param frame_shape: ``(C, H, W)``.
    :param names: of the sites, each of which has a value a step, but for the path.
    """
    assert names.path is not None
    batch, steps = actions.shape[:2]
    s = model.path(actions).sample()
    frames = actions.new_zeros(batch, steps, *frame_shape)
    latents: dict[str, Tensor] = {}
    reading = Reading("earlier")
    # by hand, for Predictive runs a program three times for one draw
    freed = poutine.uncondition(model)
    reads = getattr(getattr(model, "transition", None), "reads_memory", False)
    for t in range(steps):
        if reads and t:
            following = model.path(actions, frames).following(s[..., :t, :])
            s = torch.cat([s[..., :t, :], following.unsqueeze(-2), s[..., t + 1 :, :]], -2)
        program = poutine.condition(freed, {names.path: s})
        episodes = Episodes(frames, actions, steps, validate=False)
        nodes: Any = poutine.trace(program).get_trace(episodes, reading).nodes
        # a new tensor each time: the program may keep what it was given
        frames = frames.clone()
        frames[:, t] = nodes[names.frame]["value"][:, t]
        for name in names.latents:
            drawn = nodes[name]["value"]
            latents.setdefault(name, torch.zeros_like(drawn))[:, t] = drawn[:, t]
    return Simulated(Episodes(frames, actions, steps, validate=False), s.squeeze(-3), latents)
