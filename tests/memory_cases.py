"""Keys, queries and values for tests of the memory."""

import torch
from torch import Tensor


def draw_batch() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Two memories of 40 keys and 7 queries each, in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(2, 40, 2), draw(2, 7, 2), {"loc": draw(2, 40, 3), "scale": draw(2, 40, 3).exp()}
