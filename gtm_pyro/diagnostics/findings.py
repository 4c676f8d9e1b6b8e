"""What one check has found."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gtm_pyro.diagnostics.advice import advise


class Named(NamedTuple):
    """An array with names for its dimensions."""

    dims: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Finding:
    """The result of one check.

    :param check: its name, one of ``CHECKS``.
    :param numbers: for evaluation.json; NaN or infinite where one is not defined.
    :param arrays: for posterior.nc and the figures.
    :param guide: the class of the guide, for advice that does not name it again.
    """

    check: str
    numbers: dict[str, float]
    arrays: dict[str, Named]
    guide: str = ""

    @property
    def advice(self) -> str:
        """One sentence: what the numbers mean and what to do."""
        return advise(self.check, self.numbers, self.guide)
