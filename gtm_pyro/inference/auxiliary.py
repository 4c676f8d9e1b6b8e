"""Objectives besides the bound: what a training adds to its loss, no part of a model's density."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.initialisation import Automatic
from gtm_pyro.initialisation.regression import regress
from gtm_pyro.poses.places import usual_move
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import RotatingTranslation

logger = logging.getLogger(__name__)

# Called as Pyro's losses are, with the model, the guide and their arguments; gives what is added to the loss, in nats,
# of all episodes together. Where it has a method initialise(model, episodes), Automatic starting values are by that.
Auxiliary = Callable[..., Any]


@dataclass(frozen=True)
class DisplacementRegression:
    """Squared errors of displacements in the agent's frame: section 4.2.2, Fraccaro et al. 2018.

    The loss grows by ``weight`` nats for each squared unit of the state, or of radians, by which a displacement d_t is
    wrong. Needs true poses of a position and a heading, which are a target only, and a transition whose ``controls``
    are displacements: :class:`~gtm_pyro.transitions.RotatingTranslation` and its kind.

    :param weight: over 0.
    :param pose_unit: so many pose units make one unit of the state. Noise, memory and keys are made for moves of 0.01
        to 3 units of the state; others are warned of.
    :raises ConfigError: a number that is not over 0.
    """

    weight: float
    pose_unit: float = 1.0

    def __post_init__(self) -> None:
        check_positive(weight=self.weight, pose_unit=self.pose_unit)

    def __call__(self, model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> Tensor:
        """``weight`` times the error of all episodes, a scalar.

        :raises ConfigError: a model without a transition that has a heading.
        :raises EpisodesError: episodes without poses of a position and a heading.
        """
        return self.weight * self.error(model, episodes).sum()

    def error(self, model: Any, episodes: Episodes) -> Tensor:
        """Squared error of the displacements d_{2:T}, in units of the state and radians, summed: ``(batch,)``."""
        transition: Any = getattr(model, "transition", None)
        if not getattr(transition, "heading", False):
            got = f"{type(model).__name__}, which has none" if transition is None else type(transition).__name__
            raise ConfigError(f"auxiliary: DisplacementRegression expected a transition with a heading, got {got}")
        d = transition.controls(episodes.actions)[:, 1:]
        return (d - self.targets(episodes)).square().sum((-2, -1))

    def targets(self, episodes: Episodes) -> Tensor:
        """True displacements in units of the state and radians, ``(batch, T - 1, 3)``."""
        displacements = episodes.displacements
        return displacements / displacements.new_tensor([self.pose_unit, self.pose_unit, 1.0])

    def initialise(self, model: Any, episodes: Episodes) -> None:
        """Starting values that explain true displacements: by the transition's own ``regress(actions, displacements)``,
        or by least squares; those of :class:`Automatic` where the model has starting values of its own or neither
        applies."""
        transition: Any = getattr(model, "transition", None)
        own = getattr(transition, "regress", None)
        if hasattr(model, "initialise") or not (own or isinstance(transition, RotatingTranslation)):
            Automatic()(model, episodes)
            return
        targets = self.targets(episodes)
        move = usual_move(targets[..., :2].cumsum(1))
        if not 0.01 <= move <= 3:
            logger.warning(
                "pose_unit: expected moves of 0.01 to 3 units of the state, a usual one is %.3g at pose_unit=%g; "
                "%.2g may be a better one",
                move,
                self.pose_unit,
                move * self.pose_unit,
            )
        if own is not None:
            own(episodes.actions, targets)
        else:
            regress(transition, episodes.actions, targets)
