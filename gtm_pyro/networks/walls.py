"""What a frame says of the places around the agent: which of them are walls."""

from typing import Any

from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_whole
from gtm_pyro.networks.precision import network


class WallNetwork(nn.Module):
    """Frames to maps of the places around the agent: logits of the probability that a place cannot be entered.

    A map has ``side`` x ``side`` places, in the agent's frame; the agent is in the middle. It begins at logits of 0:
    nothing is known.

    :param frame_shape: ``(C, H, W)``.
    :param side: odd.
    :param hidden: units of the hidden layer.
    :raises ConfigError: a number out of its range.
    """

    def __init__(self, frame_shape: tuple[int, int, int], side: int = 13, hidden: int = 128) -> None:
        super().__init__()
        check_whole(1, side=side, hidden=hidden)
        if side % 2 == 0:
            raise ConfigError(f"side: expected an odd number, so that the agent is in the middle, got {side}")
        self.frame_shape, self.side = tuple(frame_shape), side
        channels, height, width = self.frame_shape
        pixels = channels * height * width
        # of each frame: raw ones of little contrast, as in MiniWorld, teach next to nothing in hundreds of steps
        self.hidden = nn.Sequential(nn.Flatten(), nn.LayerNorm(pixels), nn.Linear(pixels, hidden), nn.ReLU())
        self.logits = nn.Linear(hidden, side * side)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, frames: Any) -> Tensor:
        """Maps ``(..., side, side)`` of frames ``(..., C, H, W)``: first the places behind the agent, and those to the
        side of its second axis last.

        :raises ConfigError: frames of another shape.
        """
        if tuple(frames.shape[-3:]) != self.frame_shape:
            raise ConfigError(f"walls: expected frames (..., {self.frame_shape}), got {tuple(frames.shape)}")
        leading = frames.shape[:-3]
        flat = frames.reshape(-1, *self.frame_shape)
        return self.logits(network(self.hidden, flat)).view(*leading, self.side, self.side)
