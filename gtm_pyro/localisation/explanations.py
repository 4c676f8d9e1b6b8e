"""What a search over hypotheses is told, and what it finds: ways in which every step of a path may have come about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import check_positive


class Steps(NamedTuple):
    """How every step of a path came about.

    :ivar actions: those carried out, ``(*batch, T, action_dim)``.
    :ivar variance: of the transition, ``(*batch, T)``: large where the agent was moved without an action.
    :ivar target: a landmark's position, which measures s_t, ``(*batch, T, state_dim)``.
    :ivar evidence: the variance of that measurement, ``(*batch, T)``; infinite where there is none.
    :ivar states: the positions that result, ``(*batch, T, state_dim)``.
    """

    actions: Tensor
    target: Tensor
    evidence: Tensor
    variance: Tensor
    states: Tensor

    def unsqueeze(self, dim: int) -> "Steps":
        """Every field with one more dimension of size 1."""
        return Steps(*(field.unsqueeze(dim) for field in self))

    def pick(self, which: Tensor) -> "Steps":
        """Of batch ``(batch, N)``, the ones numbered ``which`` ``(batch, M)``."""
        rows = torch.arange(len(which), device=which.device).unsqueeze(-1)
        return Steps(*(field[rows, which] for field in self))


class Hypotheses(NamedTuple):
    """What ``HypothesisSearch`` finds.

    :param log_weight: log p(hypothesis | x, a), normalised over the hypotheses, ``(*batch, N)``; -inf for none.
    :param online: of the best hypothesis at each step, given the frames up to it, batch ``(*batch)``.
    :param online_gain: how far each online state was drawn from the prediction to its target, ``(*batch, T)``.
    :param online_variance: of a coordinate of the online states, in the unit of a step's variance, ``(*batch, T)``.
    :param filtered: mean of s_t given the frames up to t, under each hypothesis alive then, ``(*batch, T, N, D)``.
    :param filtered_variance: of one coordinate, with a heading that of a position's, ``(*batch, T, N)``.
    :param filtered_log_weight: ``(*batch, T, N)``, normalised.
    :param past: the steps of the hypotheses of these numbers, ``(*batch, M)``, as a batch of that shape.
    """

    log_weight: Tensor
    online: Steps
    online_gain: Tensor
    online_variance: Tensor
    filtered: Tensor
    filtered_variance: Tensor
    filtered_log_weight: Tensor
    past: Callable[[Tensor], Steps]

    @property
    def steps(self) -> Steps:
        """Of each hypothesis, batch ``(*batch, N)``."""
        return self.past(
            torch.arange(self.log_weight.shape[-1], device=self.log_weight.device).expand(self.log_weight.shape)
        )

    @property
    def best(self) -> Steps:
        """Of the heaviest hypothesis, batch ``(*batch, 1)``."""
        return self.past(self.log_weight.argmax(-1, keepdim=True))


@dataclass(frozen=True)
class SearchSettings:
    """What a search over hypotheses is told.

    :param num_hypotheses: N, kept at each step.
    :param landmark_scale: how far from a landmark a frame that looks like it is taken, in moves, where landmarks do not
        say it in state units.
    :param kidnap: probability, at each step, of being moved to a landmark without an action.
    :param overlap: probability that the frame of one place is seen at another place's position.
    :param every_look: let frames that show the same again, while the agent stands still or pushes against a wall, be
        measurements of where it is, each as good as the first. It makes a path too sure; walls are learnt from it.
    """

    num_hypotheses: int = 256
    landmark_scale: float = 0.2
    kidnap: float = 0.0
    overlap: float = 1e-3
    every_look: bool = False

    def __post_init__(self) -> None:
        check_positive(num_hypotheses=self.num_hypotheses, landmark_scale=self.landmark_scale, overlap=self.overlap)
