"""What the memory's distances see of a state."""

import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_positive


class HeadingKeys(nn.Module):
    """A linear map of position, cosine and sine of the heading: section 4.2, Fraccaro et al. 2018.

    Headings of 30 and 390 degrees have the same key. Parameter ``matrix``, ``(4, 4)``, starts as
    [[I, look_ahead I], [0, radius I]]: squared distances are those of the points looked at, ``look_ahead`` ahead of the
    agent, and radius² times those of the directions. Without ``look_ahead`` a small turn is as far as a move of
    ``radius`` times its angle; with it, views of one thing from several sides are near each other.

    :param radius: in units of the state.
    :param look_ahead: in units of the state.
    :raises ConfigError: a radius that is not positive, or a negative look_ahead.
    """

    state_dim = 3

    def __init__(self, radius: float = 1.0, look_ahead: float = 0.0) -> None:
        super().__init__()
        check_positive(radius=radius)
        if not look_ahead >= 0:
            raise ConfigError(f"look_ahead: expected a number of at least 0, got {look_ahead!r}")
        matrix = torch.tensor([1.0, 1.0, radius, radius]).diag()
        matrix[0, 2] = matrix[1, 3] = look_ahead
        self.matrix = nn.Parameter(matrix)

    def forward(self, s: Tensor) -> Tensor:
        """Keys ``(..., 4)`` of states ``(..., 3)``.

        :raises ConfigError: states of another length.
        """
        if s.shape[-1] != self.state_dim:
            raise ConfigError(f"keys: expected states of a position and a heading, (..., 3), got {tuple(s.shape)}")
        heading = s[..., 2:]
        return torch.cat([s[..., :2], heading.cos(), heading.sin()], -1) @ self.matrix.mT
