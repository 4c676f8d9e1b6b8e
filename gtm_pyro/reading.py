"""How a program reads its memory: which steps are scored, and against which memorised steps."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyro
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError

Scored = Literal["predicted", "others", "earlier", "alone"]


@dataclass(frozen=True)
class Reading:
    """Which steps of an episode are scored, and what each may read.

    ``predicted``: steps ``tau+1..T`` read the first ``tau`` (Fraccaro et al. 2018, eq. 1).
    ``others``: every step reads all other steps of its episode (leave one out): ``T`` training signals an episode in
    place of ``T - tau``. A training signal, not a bound. Where frames change little from step to step, the nearest one
    tells nearly all, and nothing is learnt of what is further away: ``apart`` leaves out the ``apart`` steps before and
    after it too.
    ``earlier``: every step reads all earlier ones (a growing memory); the first has the prior N(0, I). A bound on
    ``log p(x_{1:T} | a_{1:T})``.

    ``alone``: every step has the prior N(0, I) and reads nothing: a plain variational autoencoder, for a first stage.

    ``num_neighbors``: entries read for each scored step; ``None`` is the memory's own number, ``"all"`` the whole
    memory.

    ``num_scored``: so many of the scored steps are drawn each time, by Pyro's subsampling, and their terms stand for
    all: a step of training may then see more episodes. ``None`` scores all of them.
    """

    scored: Scored = "predicted"
    num_neighbors: int | Literal["all"] | None = None
    num_scored: int | None = None
    apart: int = 0

    def __post_init__(self) -> None:
        if self.scored not in get_args(Scored):
            raise ConfigError(f"scored: expected one of {', '.join(get_args(Scored))}, got {self.scored!r}")
        for name in ("num_neighbors", "num_scored"):
            number = getattr(self, name)
            if isinstance(number, int) and number < 1:
                raise ConfigError(f"{name}: expected at least 1, got {number}")
        if self.apart < 0 or (self.apart and self.scored != "others"):
            raise ConfigError(f"apart: expected 0, or a whole number over it with scored: others, got {self.apart}")

    def scored_steps(self, episodes: Episodes) -> slice:
        """The steps that the loss is about."""
        return slice(episodes.num_observed if self.scored == "predicted" else 0, episodes.num_steps)

    def plate(self, episodes: Episodes) -> Any:
        """The plate of the scored steps, dim -1; entered, it gives what ``chosen`` needs.

        :raises EpisodesError: no step is scored.
        """
        size = len(range(episodes.num_steps)[self.scored_steps(episodes)])
        if not size:
            raise EpisodesError(
                f"num_observed: expected fewer than the {episodes.num_steps} steps of an episode, so that some are "
                f"predicted, got {episodes.num_observed}; Reading('others') or Reading('earlier') scores memorised ones"
            )
        if self.apart >= size - 1 and self.apart:
            raise EpisodesError(f"apart: expected at most {size - 2}, as episodes have {size} steps, got {self.apart}")
        few = None if self.num_scored is None else min(self.num_scored, size)
        return pyro.plate("steps", size, subsample_size=few, dim=-1, device=str(episodes.device))

    def chosen(self, episodes: Episodes, steps: Tensor) -> slice | Tensor:
        """The steps that have sites ``z`` and ``x`` this time, as an index of time.

        :param steps: what ``plate`` gave.
        """
        scored = self.scored_steps(episodes)
        return scored if self.num_scored is None else steps + scored.start

    def memorised_steps(self, episodes: Episodes) -> slice:
        """The steps whose states and encodings are written to memory."""
        return slice(0, episodes.num_observed if self.scored == "predicted" else episodes.num_steps)

    def allowed(self, episodes: Episodes, chosen: slice | Tensor = slice(None)) -> Tensor | None:  # noqa: B008
        """Mask ``(chosen, memorised)``, true where a step may read an entry; ``None`` where it may read all."""
        if self.scored == "predicted":
            return None
        ones = torch.ones(episodes.num_steps, episodes.num_steps, dtype=torch.bool, device=episodes.device)
        near = self.apart + 1
        allowed = ones.tril(-1) if self.scored == "earlier" else ones.tril(-near) | ones.triu(near)
        return allowed[chosen]
