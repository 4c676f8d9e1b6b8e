"""How a program reads its memory: which steps are scored, and against which memorised steps."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError

Scored = Literal["predicted", "others", "earlier"]


@dataclass(frozen=True)
class Reading:
    """Which steps of an episode are scored, and what each may read.

    ``predicted``: steps ``tau+1..T`` read the first ``tau`` (Fraccaro et al. 2018, eq. 1).
    ``others``: every step reads all other steps of its episode (leave one out): ``T`` training signals an episode in
    place of ``T - tau``. A training signal, not a bound.
    ``earlier``: every step reads all earlier ones (a growing memory); the first has the prior N(0, I). A bound on
    ``log p(x_{1:T} | a_{1:T})``.

    ``num_neighbors``: entries read for each scored step; ``None`` is the memory's own number, ``"all"`` the whole
    memory.
    """

    scored: Scored = "predicted"
    num_neighbors: int | Literal["all"] | None = None

    def __post_init__(self) -> None:
        if self.scored not in get_args(Scored):
            raise ConfigError(f"scored: expected one of {', '.join(get_args(Scored))}, got {self.scored!r}")
        if isinstance(self.num_neighbors, int) and self.num_neighbors < 1:
            raise ConfigError(f"num_neighbors: expected at least 1, got {self.num_neighbors}")

    def scored_steps(self, episodes: Episodes) -> slice:
        """The steps that have sites ``z`` and ``x``."""
        return slice(episodes.num_observed if self.scored == "predicted" else 0, episodes.num_steps)

    def memorised_steps(self, episodes: Episodes) -> slice:
        """The steps whose states and encodings are written to memory."""
        return slice(0, episodes.num_observed if self.scored == "predicted" else episodes.num_steps)

    def allowed(self, episodes: Episodes) -> Tensor | None:
        """Mask ``(scored, memorised)``, true where a scored step may read an entry; ``None`` where it may read all."""
        if self.scored == "predicted":
            return None
        ones = torch.ones(episodes.num_steps, episodes.num_steps, dtype=torch.bool, device=episodes.device)
        return (
            ones.tril(-1)
            if self.scored == "earlier"
            else ~torch.eye(episodes.num_steps, dtype=torch.bool, device=episodes.device)
        )
