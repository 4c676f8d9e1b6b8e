"""Latents as they are, read by position and by content: the model that Gemici et al. 2017, section 6, leave open."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtm_pyro.memory.addressing import content_weights, softplus_weights, strength
from gtm_pyro.memory.controlled import ControlledMemory
from gtm_pyro.memory.introspection import OPEN, position_network, pushed


class KeyedQueue(NamedTuple):
    """The latents of the last L steps, the newest first, and the keys that they were written under.

    :ivar latents: ``(*batch, L, latent_dim)``, zeros where nothing was written yet.
    :ivar keys: ``(*batch, L, key_dim)``, likewise.
    :ivar written: ``(*batch, L)``, 1 where something was.
    """

    latents: Tensor
    keys: Tensor
    written: Tensor


class StoredLatents(ControlledMemory):
    """A queue of latents as of :class:`~gtm_pyro.memory.introspection.Introspection`, that content addresses as well::

        key_t = W [z_t, h_t]                                         written beside z_t
        w_t^r = m_t^r position_t^r + (1 - m_t^r) content_t^r
        phi_t^r = w_t^r M_{t-1},   Psi_t^r = phi_t^r sigmoid(g_t^r)  eqs. (11) and (12)

    where position is the softplus attention of eq. (10), content the softmax over cosines of eq. (15) between a query
    and the keys, and m = sigmoid of a linear map of h_t. What is retrieved is z itself, so nothing has to be learnt to
    write it; the keys hold when and after what it was seen, since h_t knows z_{t-1} and the actions.

    :param key_dim: length of keys and queries.
    """

    shows_controller = False
    feeds_back = False

    def __init__(
        self,
        latent_dim: int = 32,
        hidden_dim: int = 120,
        num_slots: int = 20,
        num_heads: int = 5,
        key_dim: int = 16,
    ) -> None:
        super().__init__(latent_dim, hidden_dim, num_slots, num_heads)
        self.key_dim = key_dim
        self.attention = position_network(hidden_dim, num_heads * num_slots)
        self.gates = nn.Linear(hidden_dim, num_heads * latent_dim)
        nn.init.constant_(self.gates.bias, OPEN)
        self.key = nn.Linear(latent_dim + hidden_dim, key_dim)
        self.query = nn.Linear(hidden_dim, num_heads * (key_dim + 2))

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> KeyedQueue:
        return KeyedQueue(
            like.new_zeros(*batch_shape, self.num_slots, self.latent_dim),
            like.new_zeros(*batch_shape, self.num_slots, self.key_dim),
            like.new_zeros(*batch_shape, self.num_slots),
        )

    def weights(self, state: KeyedQueue, h: Tensor) -> Tensor:
        """w_t, ``(*batch, num_heads, num_slots)``, from the newest latent to the oldest."""
        position = softplus_weights(self.attention(h).unflatten(-1, (self.num_heads, self.num_slots)))
        query, beta, mixing = (
            self.query(h).unflatten(-1, (self.num_heads, self.key_dim + 2)).split([self.key_dim, 1, 1], -1)
        )
        content = content_weights(query, strength(beta).squeeze(-1), state.keys, state.written)
        return content + mixing.sigmoid() * (position - content)

    def _read(self, state: KeyedQueue, h: Tensor) -> tuple[Tensor, KeyedQueue]:
        gates = self.gates(h).unflatten(-1, (self.num_heads, self.latent_dim)).sigmoid()
        return self.weights(state, h) @ state.latents * gates, state

    def _write(self, state: KeyedQueue, z: Tensor, h: Tensor) -> KeyedQueue:
        key = self.key(torch.cat([z, h], -1))
        written = torch.cat([torch.ones_like(state.written[..., :1]), state.written[..., :-1]], -1)
        return KeyedQueue(pushed(state.latents, z), pushed(state.keys, key), written)
