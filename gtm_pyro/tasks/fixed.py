"""Always the same episodes."""

from typing import Any

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import check_whole
from gtm_pyro.tasks.base import GENERAL_TASK, EpisodeData


class FixedEpisodes:
    """Another source whose seed does not move: one batch in every step, to overfit or for a guide without a network.

    :param data: where the episodes come from.
    :param seed: which of them.
    :raises ConfigError: a seed that is not a whole number.
    """

    def __init__(self, data: EpisodeData, seed: int = 0) -> None:
        check_whole(0, seed=seed)
        self.data, self.seed = data, seed

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.data.action_names

    @property
    def action_dim(self) -> int:
        return self.data.action_dim

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return self.data.frame_shape

    @property
    def task(self) -> str:
        """As the other source says."""
        return str(getattr(self.data, "task", GENERAL_TASK))

    @property
    def cell_size(self) -> float | None:
        """As the other source says."""
        return getattr(self.data, "cell_size", None)

    @property
    def view_tolerance(self) -> tuple[float, float] | None:
        """As the other source says."""
        return getattr(self.data, "view_tolerance", None)

    @property
    def lengths(self) -> Any:
        """As the other source says."""
        return getattr(self.data, "lengths", None)

    def sample(self, batch_size: int, *, seed: int, **asked: Any) -> Episodes:
        """As of the other source, whatever the seed; the splits stay apart.

        :param asked: the other arguments of :meth:`EpisodeData.sample`.
        """
        return self.data.sample(batch_size, seed=self.seed, **asked)
