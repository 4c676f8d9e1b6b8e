"""The generative temporal model with an external memory: Gemici et al. 2017, section 3."""

from gtm_pyro.memory import Introspection
from gtm_pyro.memory.controlled import ControlledMemory
from gtm_pyro.memory.controller import Controller
from gtm_pyro.models.temporal_vae import TemporalVAE
from gtm_pyro.networks.frames import Decoder, Encoder, FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading


class GTMM(TemporalVAE):
    """p(x, z | a) = prod_t p(x_t | z_t) p(z_t | Psi_{t-1}), Psi_{t-1} read from the memory of z_{1:t-1}: eq. (7).

    The memory says how wide its controller is: by default such that all memories, and the VRNN, have about as many
    parameters as each other (Table 1).

    :param memory: M, with the ways to write and read it; None: :class:`~gtm_pyro.memory.Introspection`.
    :param action_dim: length of the context c_t.
    :param encoder: this and the others as of :class:`~gtm_pyro.models.temporal_vae.TemporalVAE`.
    """

    def __init__(
        self,
        action_dim: int,
        memory: Introspection | ControlledMemory | None = None,
        encoder: FrameEncoder | Encoder | None = None,
        decoder: FrameDecoder | Decoder | None = None,
        reading: Reading | None = None,
        map_dim: int = 64,
    ) -> None:
        memory = Introspection() if memory is None else memory
        controller = Controller(memory.latent_dim, action_dim, memory.hidden_dim, memory)
        super().__init__(controller, encoder, decoder, reading, map_dim)
