"""Encoders and decoders."""

from gtm_pyro.networks.frames import Decoder, Encoder, FrameDecoder, FrameEncoder

__all__ = ["Decoder", "Encoder", "FrameDecoder", "FrameEncoder"]
