"""The variational RNN, which has no external memory: Chung et al. 2015, the baseline of Gemici et al. 2017."""

from gtm_pyro.memory.controller import Controller
from gtm_pyro.models.temporal_vae import TemporalVAE
from gtm_pyro.networks.frames import Decoder, Encoder, FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading


class VRNN(TemporalVAE):
    """p(x, z | a) = prod_t p(x_t | z_t) p(z_t | h_t), h_t = LSTM(h_{t-1}, z_{t-1}, a_t): all is in the LSTM's state.

    The network of Chung et al. also gives h_t the frame x_{t-1} itself, and the decoder h_t. Here, as in the models
    with memory that it is compared with, frames are known through their latents alone: so z_{1:T} is one variable.

    :param action_dim: length of the context c_t.
    :param latent_dim: length of z.
    :param hidden_dim: length of h.
    :param encoder: this and the others as of :class:`~gtm_pyro.models.temporal_vae.TemporalVAE`.
    """

    def __init__(
        self,
        action_dim: int,
        latent_dim: int = 32,
        hidden_dim: int = 166,
        encoder: FrameEncoder | Encoder | None = None,
        decoder: FrameDecoder | Decoder | None = None,
        reading: Reading | None = None,
        map_dim: int = 64,
    ) -> None:
        super().__init__(Controller(latent_dim, action_dim, hidden_dim, None), encoder, decoder, reading, map_dim)
