"""What a model needs of p(z | s, m) besides a density, whatever distribution a prior returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.distributions import TorchDistribution
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory.spatial import Retrieved
from gtm_pyro.priors.mixture import MixturePrior
from gtm_pyro.priors.mixtures import NormalMixture

# Called with what a read found, a Retrieved, and with the queries' states too where it has reads_states = True. Returns
# a distribution: batch (*batch, Q), event (latent_dim,). With another result than Any, the command line would take it
# for what makes one.
Prior = Callable[..., Any]


def shown(prior: TorchDistribution, read: Retrieved) -> tuple[Tensor, Tensor]:
    """The z that is shown for each query, ``(*batch, Q, latent_dim)``, and the memory entry that it comes from.

    Of a mixture, its heaviest component and that one's entry; of any other distribution, its mean and the nearest
    entry. Entries are numbered in the order of writing, ``(*batch, Q)``; -1 for none.

    :raises ConfigError: a distribution that does not know its mean.
    """
    if isinstance(prior, NormalMixture):
        heaviest = prior.heaviest
        return heaviest.loc, read.entry(heaviest.component)
    try:
        mean: Tensor = prior.mean
    except NotImplementedError:
        raise ConfigError(
            f"prior: expected a distribution that knows its mean, which is shown, got {type(prior).__name__}"
        ) from None
    return mean, read.entry(read.squared_distance.argmin(-1))


def regret(prior: TorchDistribution, read: Retrieved, value: Tensor) -> Tensor:
    """What weighing entries by place costs against the single best one, in nats, at least 0.

    See :meth:`~gtm_pyro.priors.mixtures.NormalMixture.regret`; any other distribution is judged by the mixture that
    :class:`MixturePrior` makes of the same entries.
    """
    mixture = prior if isinstance(prior, NormalMixture) else MixturePrior()(read)
    return mixture.regret(value)
