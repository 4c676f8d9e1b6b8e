"""What a pair of programs is, and which objectives fit it."""

from gtm_pyro.inference.auxiliary import DisplacementRegression
from gtm_pyro.inference.axes import AxesAndWalls
from gtm_pyro.inference.walls import WallsOfPaths

__all__ = ["AxesAndWalls", "DisplacementRegression", "WallsOfPaths"]
