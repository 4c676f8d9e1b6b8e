"""The controller of a temporal model: what the next latent depends on, made of latents and actions so far."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.memory.controlled import ControlledMemory


class ControllerState(NamedTuple):
    """
    :ivar h: h_t, ``(*batch, hidden_dim)``.
    :ivar cell: of the LSTM, likewise.
    :ivar z: the latent that was written last, ``(*batch, latent_dim)``; zeros before the first.
    :ivar read: what was read last, ``(*batch, num_heads * latent_dim)``.
    :ivar memory: the state of the memory; None without one.
    """

    h: Tensor
    cell: Tensor
    z: Tensor
    read: Tensor
    memory: Any


class Controller(nn.Module):
    """Psi_{t-1}, the memory context of step t: Gemici et al. 2017, eqs. (9) to (16).

    ::

        h_t = LSTM(h_{t-1}, z_{t-1}, c_t)           eq. (9); in eq. (13) with what was read last as well
        phi_t^1..R = read M_{t-1} with h_t          eqs. (10) and (11), or (14) to (16)
        Psi_{t-1} = [phi_t^1..R], or [phi_t^1..R, h_t]

    Without a memory Psi_{t-1} is h_t alone, as in a VRNN.

    :param latent_dim: length of z.
    :param action_dim: length of c_t, which is given.
    :param hidden_dim: length of h.
    :param memory: of the same latent_dim and hidden_dim; None: there is none.
    :raises ConfigError: a size that is no whole number of at least 1, or a memory of other sizes.
    """

    def __init__(self, latent_dim: int, action_dim: int, hidden_dim: int, memory: ControlledMemory | None) -> None:
        super().__init__()
        check_whole(1, latent_dim=latent_dim, action_dim=action_dim, hidden_dim=hidden_dim)
        if memory is not None and (memory.latent_dim, memory.hidden_dim) != (latent_dim, hidden_dim):
            raise ConfigError(
                f"memory: expected latent_dim {latent_dim} and hidden_dim {hidden_dim}, got {memory.latent_dim} and "
                f"{memory.hidden_dim}"
            )
        self.latent_dim, self.action_dim, self.hidden_dim = latent_dim, action_dim, hidden_dim
        self.memory = memory
        self.read_dim = 0 if memory is None else memory.num_heads * latent_dim
        self._feeds_back = memory is not None and memory.feeds_back
        self._shows_h = memory is None or memory.shows_controller
        seen = latent_dim + action_dim + hidden_dim + self._feeds_back * self.read_dim
        self.gates = nn.Linear(seen, 4 * hidden_dim)
        nn.init.constant_(self.gates.bias[hidden_dim : 2 * hidden_dim], 1.0)  # begin by keeping what is known

    @property
    def context_dim(self) -> int:
        """Length of Psi."""
        return self.read_dim + self._shows_h * self.hidden_dim

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> ControllerState:
        """The state before the first step: nothing is written.

        :param like: a tensor of the dtype and on the device that the state is to have.
        """
        sizes = self.hidden_dim, self.hidden_dim, self.latent_dim, self.read_dim
        h, cell, z, read = (like.new_zeros(*batch_shape, size) for size in sizes)
        memory = None if self.memory is None else self.memory.initial(batch_shape, like)
        return ControllerState(h, cell, z, read, memory)

    def read(self, state: ControllerState, c: Tensor) -> tuple[Tensor, ControllerState]:
        """Psi_{t-1}, ``(*batch, context_dim)``, and the state with h_t.

        :param c: c_t, ``(*batch, action_dim)``.
        """
        seen = [state.z, c, state.h, *([state.read] if self._feeds_back else [])]
        enter, keep, new, show = self.gates(torch.cat(seen, -1)).chunk(4, -1)
        cell = keep.sigmoid() * state.cell + enter.sigmoid() * new.tanh()
        h = show.sigmoid() * cell.tanh()
        if self.memory is None:
            return h, ControllerState(h, cell, state.z, state.read, None)
        phi, memory = self.memory.read(state.memory, h)
        read = phi.flatten(-2)
        context = torch.cat([read, h], -1) if self._shows_h else read
        return context, ControllerState(h, cell, state.z, read, memory)

    def write(self, state: ControllerState, z: Tensor) -> ControllerState:
        """The state with z_t, ``(*batch, latent_dim)``, in the memory and before the controller."""
        memory = None if self.memory is None else self.memory.write(state.memory, z, state.h)
        return state._replace(z=z, memory=memory)
