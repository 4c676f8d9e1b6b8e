"""An oracle for tests: a transition that knows a small world, and an encoder that is its own decoder."""

import pyro
import torch
from pyro.nn import PyroModule

from gtm_pyro.transitions import Transition

SIDE, MOVES = 5, torch.tensor([[0, -1], [0, 1], [-1, 0], [1, 0], [0, 0]])
# the oracle's map of the world: turned by 90 degrees, mirrored and scaled
TO_STATE = torch.tensor([[0.0, 0.5], [0.5, 0.0]])


class HardWalls(Transition):
    """Knows the moves and the walls exactly, in states that are cells from the centre times TO_STATE."""

    def __init__(self, scale=1e-6):
        super().__init__(action_dim=5, scale=scale)

    def loc(self, s, actions):
        cells = s @ TO_STATE.inverse().mT + actions @ MOVES.to(s)
        return cells.clamp(-(SIDE // 2), SIDE // 2) @ TO_STATE.mT


class Copies(PyroModule):
    """Encoder and decoder in one: z is the frame itself."""

    def __init__(self, frame_shape, scale):
        super().__init__()
        self.frame_shape, self.scale = frame_shape, scale

    def statistics(self, frames):
        loc = frames.flatten(-3)
        return {"loc": loc, "scale": torch.full_like(loc, self.scale)}

    def frames(self, z):
        return z.reshape(*z.shape[:-1], *self.frame_shape)

    def forward(self, x):
        if x.shape[-3:] == self.frame_shape:
            return pyro.distributions.Normal(*self.statistics(x).values()).to_event(1)
        return pyro.distributions.Normal(self.frames(x), 0.1).to_event(3)
