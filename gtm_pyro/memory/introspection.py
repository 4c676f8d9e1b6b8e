"""The introspection network: latents as they are, read by their position: Gemici et al. 2017, section 3.1."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gtm_pyro.memory.addressing import softplus_weights
from gtm_pyro.memory.controlled import ControlledMemory

# of gates at the start, before the sigmoid: what is not let through cannot be learnt from
OPEN = 2.0


class Queue(NamedTuple):
    """The latents of the last L steps, the newest first; zeros where nothing was written yet.

    :ivar latents: ``(*batch, L, latent_dim)``.
    """

    latents: Tensor


class Introspection(ControlledMemory):
    """A queue of latents, first in, first out, that is read by position::

        w_t^r = k(h_t) / sum k(h_t)                 eq. (10), k a network with softplus outputs
        phi_t^r = w_t^r M_{t-1}                     eq. (11)
        Psi_t^r = phi_t^r sigmoid(g_t^r)            eq. (12), g a linear map of h_t

    Place i holds what was written i steps before the last write. A place that is still empty reads as zeros.

    :param latent_dim: this and the others as of :class:`~gtm_pyro.memory.controlled.ControlledMemory`.
    """

    shows_controller = False
    feeds_back = False

    def __init__(self, latent_dim: int = 32, hidden_dim: int = 128, num_slots: int = 20, num_heads: int = 5) -> None:
        super().__init__(latent_dim, hidden_dim, num_slots, num_heads)
        self.attention = position_network(hidden_dim, num_heads * num_slots)
        self.gates = nn.Linear(hidden_dim, num_heads * latent_dim)
        nn.init.constant_(self.gates.bias, OPEN)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> Queue:
        return Queue(like.new_zeros(*batch_shape, self.num_slots, self.latent_dim))

    def weights(self, h: Tensor) -> Tensor:
        """w_t, ``(*batch, num_heads, num_slots)``, from the newest latent to the oldest: eq. (10)."""
        return softplus_weights(self.attention(h).unflatten(-1, (self.num_heads, self.num_slots)))

    def _read(self, state: Queue, h: Tensor) -> tuple[Tensor, Queue]:
        gates = self.gates(h).unflatten(-1, (self.num_heads, self.latent_dim)).sigmoid()
        return self.weights(h) @ state.latents * gates, state

    def _write(self, state: Queue, z: Tensor, h: Tensor) -> Queue:
        return Queue(pushed(state.latents, z))


def position_network(hidden_dim: int, size: int) -> nn.Module:
    """k, "a deep feed-forward network"."""
    return nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ELU(), nn.Linear(hidden_dim, size))


def pushed(queue: Tensor, newest: Tensor) -> Tensor:
    """A queue ``(*batch, L, D)`` with the newest ``(*batch, D)`` in front and without the oldest."""
    return torch.cat([newest.unsqueeze(-2), queue[..., :-1, :]], -2)
