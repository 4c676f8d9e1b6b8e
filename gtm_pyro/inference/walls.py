"""What teaches a transition to see walls: paths of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.inference.capabilities import Capability, check_can
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import RememberedWalls


@dataclass(frozen=True)
class WallsOfPaths:
    """What each frame shows of walls, taught by where the guide's path went and where it was stopped.

    The bound alone teaches the surest frame of each place. This adds the cross-entropy of every frame that shows it
    (:meth:`RememberedWalls.wall_loss <gtm_pyro.transitions.RememberedWalls.wall_loss>`), so that frames which saw a
    place from afar also learn what it was. No poses are read.

    :param weight: nats of loss for each nat of cross-entropy; over 0.
    :raises ConfigError: a weight that is not over 0.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive(weight=self.weight)

    def __call__(self, model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> Tensor:
        """The cross-entropy of all episodes, a scalar.

        :raises ConfigError: another transition than :class:`RememberedWalls`, or a guide without a path.
        """
        transition: Any = getattr(model, "transition", None)
        if not isinstance(transition, RememberedWalls):
            got = f"{type(model).__name__}, which has none" if transition is None else type(transition).__name__
            raise ConfigError(f"auxiliary: WallsOfPaths expected a transition RememberedWalls, got {got}")
        check_can(Capability.PATH, model, guide, "auxiliary WallsOfPaths")
        with torch.no_grad():
            states = guide.path(episodes).sample().squeeze(-3)
            controls = transition.controls(episodes.actions)
            step, free = states.diff(dim=1)[..., :2].norm(dim=-1), controls[:, 1:, :2].norm(dim=-1)
            blocked = torch.cat([torch.zeros_like(step[:, :1], dtype=torch.bool), step < 0.5 * free], 1)
        return self.weight * transition.wall_loss(transition.walls(episodes.frames), states, controls, blocked).sum()
