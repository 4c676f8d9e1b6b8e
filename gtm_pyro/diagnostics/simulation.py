"""Episodes that a model makes up: states, latents and frames together, from actions alone."""

from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading


class Simulated(NamedTuple):
    """Episodes whose steps all count as memorised, with the truth that no data set has.

    ``s`` ``(batch, T, state_dim)``, ``z`` ``(batch, T, latent_dim)``.
    """

    episodes: Episodes
    s: Tensor
    z: Tensor


@torch.no_grad()
def simulate(model: Any, actions: Tensor, frame_shape: tuple[int, int, int]) -> Simulated:
    """Draw from prod_t p(s_t | s_{t-1}, a_t) p(z_t | s_t, m_{<t}) p(x_t | z_t): each step reads what was drawn before.

    This is the model under ``Reading("earlier")``. The memory needs frames that are still being drawn, so the program
    runs T times along one path, and run t contributes its step t, which reads none but the t - 1 known frames: use
    short episodes.

    :param actions: ``(batch, T, action_dim)``.
    :param frame_shape: ``(C, H, W)``.
    """
    batch, steps = actions.shape[:2]
    s = model.path(actions).sample()
    frames = actions.new_zeros(batch, steps, *frame_shape)
    z: Tensor | None = None
    reading = Reading("earlier")
    # by hand, for Predictive runs a program three times for one draw
    program = poutine.condition(poutine.uncondition(model), {"s": s})
    for t in range(steps):
        episodes = Episodes(frames, actions, steps, validate=False)
        nodes: Any = poutine.trace(program).get_trace(episodes, reading).nodes
        drawn = nodes["z"]["value"]
        z = torch.zeros_like(drawn) if z is None else z
        # a new tensor each time: the program may keep what it was given
        frames, z = frames.clone(), z.clone()
        frames[:, t], z[:, t] = nodes["x"]["value"][:, t], drawn[:, t]
    assert z is not None
    return Simulated(Episodes(frames, actions, steps, validate=False), s.squeeze(-3), z)
