"""What a pair of programs is, and which objectives fit it."""

from gtm_pyro.inference.auxiliary import DisplacementRegression

__all__ = ["DisplacementRegression"]
