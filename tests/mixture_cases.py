"""Mixtures of normals for tests, and torch's own of the same parameters."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

# A Gaussian statistic beyond 5.5 standard errors: false alarm 4e-8 for each number compared.
SIGMAS = 5.5


def parameters(
    *batch: int, components: int = 5, dim: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, loc and scale."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return draw(*batch, components), draw(*batch, components, dim), (0.5 * draw(*batch, components, dim)).exp()


def reference(logits: Tensor, loc: Tensor, scale: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, scale), 1))
