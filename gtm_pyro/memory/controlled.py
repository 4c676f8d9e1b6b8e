"""Memories that a recurrent controller writes and reads step by step: Gemici et al. 2017, section 3.

Unlike the spatial memory, whose keys are states, these are addressed by what the controller makes of the past: the
module holds how, the parameters of keys, weights and gates; what is remembered is a value, its state.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_whole


class ControlledMemory(nn.Module):
    """M_t, where latents z_t are written and from where R heads read with weights that the controller's h_t decides.

    Once a step, first a read and then a write::

        phi_t, state = memory.read(state, h_t)
        state = memory.write(state, z_t, h_t)

    A state is a NamedTuple of tensors whose leading dimensions are the batch's; nothing changes it, a call gives a new
    one. Weights of a head are at least 0 and sum to 1 over the places of the memory.

    :param latent_dim: length of z.
    :param hidden_dim: length of h, the controller's width.
    :param num_slots: L, the places of the memory.
    :param num_heads: R, the read heads.
    :cvar shows_controller: whether the context of the prior holds h_t beside what was read (section 3.2) or only what
        was read (section 3.1).
    :cvar feeds_back: whether the controller sees at step t what was read at step t - 1, as f_rnn(..., M_{t-1}, ...) of
        eq. (13) does.
    :raises ConfigError: a size that is no whole number of at least 1.
    """

    shows_controller = True
    feeds_back = True

    def __init__(self, latent_dim: int, hidden_dim: int, num_slots: int, num_heads: int) -> None:
        super().__init__()
        check_whole(1, latent_dim=latent_dim, hidden_dim=hidden_dim, num_slots=num_slots, num_heads=num_heads)
        self.latent_dim, self.hidden_dim = latent_dim, hidden_dim
        self.num_slots, self.num_heads = num_slots, num_heads

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> Any:
        """The state before the first step.

        :param like: a tensor of the dtype and on the device that the state is to have.
        """
        raise NotImplementedError

    def read(self, state: Any, h: Tensor) -> tuple[Tensor, Any]:
        """phi_t, what each head reads ``(*batch, num_heads, latent_dim)``, and the state with the weights that read it.

        :param h: ``(*batch, hidden_dim)``.
        :raises ConfigError: another last dimension.
        """
        self._check(h=(h, self.hidden_dim))
        return self._read(state, h)

    def write(self, state: Any, z: Tensor, h: Tensor) -> Any:
        """The state with z_t written.

        :param z: ``(*batch, latent_dim)``.
        :param h: ``(*batch, hidden_dim)``.
        :raises ConfigError: another last dimension.
        """
        self._check(z=(z, self.latent_dim), h=(h, self.hidden_dim))
        return self._write(state, z, h)

    def _read(self, state: Any, h: Tensor) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def _write(self, state: Any, z: Tensor, h: Tensor) -> Any:
        raise NotImplementedError

    @staticmethod
    def _check(**given: tuple[Tensor, int]) -> None:
        for name, (tensor, size) in given.items():
            if not tensor.dim() or tensor.shape[-1] != size:
                raise ConfigError(f"{name}: expected (..., {size}), got {tuple(tensor.shape)}")


def begin_as_latent(layer: nn.Linear, row: int, latent_dim: int) -> None:
    """Let numbers that a layer makes of [z, h], from ``row`` on, be z and a little of h at the start of a training.

    What is read then tells of frames from the first step on, and how to read can be learnt from it; h tells when.
    """
    with torch.no_grad():
        layer.weight[row : row + latent_dim, :latent_dim] = torch.eye(latent_dim)
