"""What the memory's distances see of a state."""

import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_positive


class HeadingKeys(nn.Module):
    """A linear map of position, cosine and sine of the heading: section 4.2, Fraccaro et al. 2018.

    Headings of 30 and 390 degrees have the same key. Parameter ``matrix``, ``(4, 4)``, starts as
    diag(1, 1, radius, radius): then a small turn is as far as a move of ``radius`` times its angle.

    :param radius: in units of the state.
    :raises ConfigError: a radius that is not positive.
    """

    state_dim = 3

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__()
        check_positive(radius=radius)
        self.matrix = nn.Parameter(torch.tensor([1.0, 1.0, radius, radius]).diag())

    def forward(self, s: Tensor) -> Tensor:
        """Keys ``(..., 4)`` of states ``(..., 3)``.

        :raises ConfigError: states of another length.
        """
        if s.shape[-1] != self.state_dim:
            raise ConfigError(f"keys: expected states of a position and a heading, (..., 3), got {tuple(s.shape)}")
        heading = s[..., 2:]
        return torch.cat([s[..., :2], heading.cos(), heading.sin()], -1) @ self.matrix.mT
