"""The Neural Turing Machine's memory: Graves et al. 2014, section 3; in a temporal model: Gemici et al. 2017, 3.2."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.memory.addressing import content_weights, sharpened, shifted, strength
from gtm_pyro.memory.controlled import ControlledMemory, begin_as_latent


class Tape(NamedTuple):
    """
    :ivar slots: M, ``(*batch, L, latent_dim)``.
    :ivar read: weights of the last read, ``(*batch, num_heads, L)``.
    :ivar write: weights of the last write, ``(*batch, 1, L)``.
    """

    slots: Tensor
    read: Tensor
    write: Tensor


class NeuralTuringMachine(ControlledMemory):
    """A tape that heads find their places on by content, or by moving on from where they were::

        w_c = softmax(beta cos(k, M))       eq. (5), Graves et al. 2014
        w_g = g w_c + (1 - g) w_{t-1}       eq. (7)
        w_s = w_g shifted by -1, 0 or 1     eq. (8)
        w_t = w_s^gamma / sum w_s^gamma     eq. (9)
        M_t = M_{t-1} (1 - w e) + w a       eqs. (3) and (4), one write head; e and a are maps of [z_t, h_t]

    All heads begin at the first place of an empty tape.

    :param latent_dim: also the length of a place; this and the others as of
        :class:`~gtm_pyro.memory.controlled.ControlledMemory`.
    """

    def __init__(self, latent_dim: int = 32, hidden_dim: int = 84, num_slots: int = 20, num_heads: int = 5) -> None:
        super().__init__(latent_dim, hidden_dim, num_slots, num_heads)
        # key, beta, g, three shifts, gamma
        self._head = [latent_dim, 1, 1, 3, 1]
        self.read_heads = nn.Linear(hidden_dim, num_heads * sum(self._head))
        self.write_head = nn.Linear(latent_dim + hidden_dim, sum(self._head))
        self.erase_and_add = nn.Linear(latent_dim + hidden_dim, 2 * latent_dim)
        begin_as_latent(self.erase_and_add, latent_dim, latent_dim)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> Tape:
        first = F.one_hot(torch.zeros((), dtype=torch.long, device=like.device), self.num_slots).to(like)
        return Tape(
            like.new_zeros(*batch_shape, self.num_slots, self.latent_dim),
            first.expand(*batch_shape, self.num_heads, -1),
            first.expand(*batch_shape, 1, -1),
        )

    def _weights(self, slots: Tensor, before: Tensor, raw: Tensor) -> Tensor:
        """w_t of heads ``(*batch, heads, slots)`` that were at ``before``."""
        key, beta, gate, shift, gamma = raw.split(self._head, -1)
        content = content_weights(key, strength(beta).squeeze(-1), slots)
        gated = before + gate.sigmoid() * (content - before)
        return sharpened(shifted(gated, shift.softmax(-1)), strength(gamma).squeeze(-1))

    def _read(self, state: Tape, h: Tensor) -> tuple[Tensor, Tape]:
        raw = self.read_heads(h).unflatten(-1, (self.num_heads, -1))
        weights = self._weights(state.slots, state.read, raw)
        return weights @ state.slots, state._replace(read=weights)

    def _write(self, state: Tape, z: Tensor, h: Tensor) -> Tape:
        seen = torch.cat([z, h], -1)
        weights = self._weights(state.slots, state.write, self.write_head(seen).unsqueeze(-2))
        erase, add = self.erase_and_add(seen).unsqueeze(-2).chunk(2, -1)
        where = weights.mT
        return Tape(state.slots * (1 - where * erase.sigmoid()) + where * add, state.read, weights)
