"""What tells a transition how its axes lie and where its walls are: Chen's report on the GTM-SM, 2018."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.reading import Reading

# the first four actions are steps along two axes: one way, back, the other way, back
_STEPS = 4


@dataclass(frozen=True)
class AxesAndWalls:
    """Axes at right angles, of one length, and walls that are learnt from labels: eqs. (5) and (6), Chen 2018.

    For each episode the loss grows by the sum of three terms, in nats::

        orthogonality ((M_0 M_2)² + (M_1 M_3)²)
        norm sum_i (|M_i| - length)², i = 0..3
        -walls sum_jk (y_jk log sigma_d(j M_0 + k M_2) + (1 - y_jk) log(1 - sigma_d(j M_0 + k M_2)))

    where M_i is the displacement of action i, j and k go from -outside to outside, and y_jk is 1 where both are at most
    ``inside``. It tells the model what no frame and no action says: which actions lie on which axis, how long a move
    is, and the room that episodes begin in the middle of. The labelled places move with M, which has no gradient from
    them.

    :param orthogonality: lambda_1.
    :param norm: lambda_2.
    :param length: of a move, in units of the state; D / 8 in the report.
    :param walls: lambda_3.
    :param inside: moves from the middle of the room to its walls.
    :param outside: moves up to which places are labelled.
    :raises ConfigError: a number out of its range.
    """

    orthogonality: float = 0.0
    norm: float = 0.0
    length: float = 0.1875
    walls: float = 0.0
    inside: int = 4
    outside: int = 8

    def __post_init__(self) -> None:
        check_positive(length=self.length, inside=self.inside)
        for name in ("orthogonality", "norm", "walls"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}: expected a number of at least 0, got {getattr(self, name)}")
        if not self.outside > self.inside:
            raise ConfigError(f"outside: expected more than the {self.inside} moves inside, got {self.outside}")

    def __call__(self, model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> Tensor:
        """The three terms, for all episodes together, a scalar.

        :raises ConfigError: a model without such axes, or without a gate where walls are wanted.
        """
        transition: Any = getattr(model, "transition", None)
        if not hasattr(transition, "moves") or transition.action_dim < _STEPS:
            raise ConfigError(f"auxiliary: AxesAndWalls expected a transition M of {_STEPS} actions or more")
        if self.walls and not hasattr(transition, "gate_logit"):
            raise ConfigError(f"auxiliary.walls: expected a transition with a gate, got {type(transition).__name__}")
        axes = transition.moves(torch.eye(transition.action_dim, device=episodes.device)[:_STEPS])
        total = self.penalty(axes)
        if self.walls:
            total = total + self.walls * self.label_loss(transition, axes.detach())
        return episodes.batch_size * total

    def penalty(self, axes: Tensor) -> Tensor:
        """Eq. (5) of the displacements ``(4, state_dim)`` of the first four actions."""
        crossed = (axes[:2] * axes[2:]).sum(-1).square().sum()
        return self.orthogonality * crossed + self.norm * (axes.norm(dim=-1) - self.length).square().sum()

    def label_loss(self, transition: Any, axes: Tensor) -> Tensor:
        """Eq. (6) for lambda_3 = 1: the gate as a classifier of places."""
        line = torch.arange(-self.outside, self.outside + 1, device=axes.device)
        steps = torch.cartesian_prod(line, line)
        free = (steps.abs() <= self.inside).all(-1, keepdim=True)
        places = steps.to(axes) @ axes[[0, 2]]
        logit = transition.gate_logit(places)
        return F.binary_cross_entropy_with_logits(logit, free.to(logit), reduction="sum")
