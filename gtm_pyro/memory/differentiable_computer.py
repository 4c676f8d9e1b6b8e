"""The Differentiable Neural Computer's memory: Graves et al. 2016, methods; Gemici et al. 2017, section 3.2."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtm_pyro.memory.addressing import allocation, content_weights, linked, strength
from gtm_pyro.memory.controlled import ControlledMemory, begin_as_latent


class LinkedSlots(NamedTuple):
    """
    :ivar slots: M, ``(*batch, L, latent_dim)``.
    :ivar usage: u, ``(*batch, L)``, from 0 for a free slot to 1.
    :ivar link: ``(*batch, L, L)``, [i, j]: how far i was written right after j.
    :ivar precedence: p, ``(*batch, L)``: how far a slot was written last.
    :ivar read: weights of the last read, ``(*batch, num_heads, L)``.
    :ivar write: weights of the last write, ``(*batch, L)``, which sum to at most 1.
    """

    slots: Tensor
    usage: Tensor
    link: Tensor
    precedence: Tensor
    read: Tensor
    write: Tensor


class DifferentiableNeuralComputer(ControlledMemory):
    """Slots that are allocated and freed, found by content, or before or after the one that was read last::

        u_t = (u + w_w - u w_w) prod_r (1 - f^r w_r^r)                the last weights, f the free gates
        w_w = g_w (g_a allocation(u_t) + (1 - g_a) content)           the write weights
        M_t = M_{t-1} (1 - w_w e) + w_w a                             e, a and the gates are maps of [z_t, h_t]
        L_t, p_t                                                      temporal links, see ``addressing.linked``
        w_r = pi_1 L_t^T w_r + pi_2 content + pi_3 L_t w_r            backwards, by content, forwards

    Weights of a read sum to at most 1, and to 1 where all of them go by content.

    :param latent_dim: also the length of a slot; this and the others as of
        :class:`~gtm_pyro.memory.controlled.ControlledMemory`.
    """

    def __init__(self, latent_dim: int = 32, hidden_dim: int = 84, num_slots: int = 20, num_heads: int = 5) -> None:
        super().__init__(latent_dim, hidden_dim, num_slots, num_heads)
        self.read_heads = nn.Linear(hidden_dim, num_heads * (latent_dim + 4))
        # key, e, a; beta, g_a, g_w; the free gates
        self._interface = [latent_dim] * 3 + [1] * 3 + [num_heads]
        self.write_head = nn.Linear(latent_dim + hidden_dim, sum(self._interface))
        begin_as_latent(self.write_head, 2 * latent_dim, latent_dim)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> LinkedSlots:
        shapes = (
            (self.num_slots, self.latent_dim),
            (self.num_slots,),
            (self.num_slots, self.num_slots),
            (self.num_slots,),
        )
        heads = (self.num_heads, self.num_slots), (self.num_slots,)
        return LinkedSlots(*(like.new_zeros(*batch_shape, *shape) for shape in (*shapes, *heads)))

    def _read(self, state: LinkedSlots, h: Tensor) -> tuple[Tensor, LinkedSlots]:
        key, beta, modes = self.read_heads(h).unflatten(-1, (self.num_heads, -1)).split([self.latent_dim, 1, 3], -1)
        content = content_weights(key, strength(beta).squeeze(-1), state.slots)
        backward, forward = state.read @ state.link, state.read @ state.link.mT
        weights = (torch.stack([backward, content, forward], -1) * modes.softmax(-1).unsqueeze(-2)).sum(-1)
        return weights @ state.slots, state._replace(read=weights)

    def _write(self, state: LinkedSlots, z: Tensor, h: Tensor) -> LinkedSlots:
        raw = self.write_head(torch.cat([z, h], -1)).split(self._interface, -1)
        key, erase, add, beta, allocated, gate, free = raw
        usage = self._used(state, free.sigmoid())
        content = content_weights(key.unsqueeze(-2), strength(beta), state.slots).squeeze(-2)
        weights = gate.sigmoid() * (content + allocated.sigmoid() * (allocation(usage) - content))
        where = weights.unsqueeze(-1)
        slots = state.slots * (1 - where * erase.sigmoid().unsqueeze(-2)) + where * add.unsqueeze(-2)
        link, precedence = linked(state.link, state.precedence, weights)
        return LinkedSlots(slots, usage, link, precedence, state.read, weights)

    @staticmethod
    def _used(state: LinkedSlots, free: Tensor) -> Tensor:
        """u_t: what was written is in use, what was read under an open gate ``(*batch, num_heads)`` is free again."""
        kept = (1 - free.unsqueeze(-1) * state.read).prod(-2)
        return (state.usage + state.write - state.usage * state.write) * kept
