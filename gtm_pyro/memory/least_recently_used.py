"""The memory that writes over what was used least of late: Santoro et al. 2016; Gemici et al. 2017, section 3.2."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory.addressing import content_weights, least_used, strength
from gtm_pyro.memory.controlled import ControlledMemory, begin_as_latent


class UsedSlots(NamedTuple):
    """
    :ivar slots: M, ``(*batch, L, latent_dim)``.
    :ivar read: weights of the last read, ``(*batch, num_heads, L)``.
    :ivar usage: how much each slot was read and written of late, ``(*batch, L)``.
    """

    slots: Tensor
    read: Tensor
    usage: Tensor


class LeastRecentlyUsed(ControlledMemory):
    """Content-based reading alone; each head writes where it read, or over what was used least of late::

        w_w = sigmoid(alpha) w_r + (1 - sigmoid(alpha)) w_lu     eq. (7), Santoro et al. 2016
        M_t = M_{t-1} with the slots of w_lu emptied + w_w a     eq. (8), a of each head is a map of [z_t, h_t]
        u_t = decay u_{t-1} + w_r + w_w                          eq. (5), summed over heads
        w_r = softmax(beta cos(k, M_t))                          eq. (15), Gemici et al. 2017

    where w_lu of head r is one at the slot that is r-th least used. There are as many write heads as read heads, and
    so each step fills that many slots: hence five times as many slots as steps in the paper. Beside Santoro et al. the
    cosines have a strength beta, as in the other memories: without one, weights over 100 slots cannot be sharp.

    :param latent_dim: also the length of a slot; this and the others as of
        :class:`~gtm_pyro.memory.controlled.ControlledMemory`.
    :param decay: of the usage, each step.
    :raises ConfigError: fewer slots than heads, or a decay out of [0, 1].
    """

    def __init__(
        self,
        latent_dim: int = 32,
        hidden_dim: int = 82,
        num_slots: int = 100,
        num_heads: int = 5,
        decay: float = 0.95,
    ) -> None:
        super().__init__(latent_dim, hidden_dim, num_slots, num_heads)
        if num_slots < num_heads:
            raise ConfigError(f"num_slots: expected at least the {num_heads} heads that write, got {num_slots}")
        if not 0 <= decay <= 1:
            raise ConfigError(f"decay: expected from 0 to 1, got {decay}")
        self.decay = decay
        self.keys = nn.Linear(hidden_dim, num_heads * (latent_dim + 1))
        self.written = nn.Linear(latent_dim + hidden_dim, num_heads * (latent_dim + 1))
        for head in range(num_heads):
            begin_as_latent(self.written, head * (latent_dim + 1), latent_dim)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> UsedSlots:
        return UsedSlots(
            like.new_zeros(*batch_shape, self.num_slots, self.latent_dim),
            like.new_zeros(*batch_shape, self.num_heads, self.num_slots),
            like.new_zeros(*batch_shape, self.num_slots),
        )

    def _read(self, state: UsedSlots, h: Tensor) -> tuple[Tensor, UsedSlots]:
        key, beta = self.keys(h).unflatten(-1, (self.num_heads, -1)).split([self.latent_dim, 1], -1)
        weights = content_weights(key, strength(beta).squeeze(-1), state.slots)
        return weights @ state.slots, state._replace(read=weights)

    def _write(self, state: UsedSlots, z: Tensor, h: Tensor) -> UsedSlots:
        raw = self.written(torch.cat([z, h], -1)).unflatten(-1, (self.num_heads, -1))
        add, alpha = raw.split([self.latent_dim, 1], -1)
        free = least_used(state.usage, self.num_heads)
        weights = free + alpha.sigmoid() * (state.read - free)
        kept = state.slots * (1 - free.sum(-2).unsqueeze(-1))
        usage = self.decay * state.usage + state.read.sum(-2) + weights.sum(-2)
        return UsedSlots(kept + weights.mT @ add, state.read, usage)
