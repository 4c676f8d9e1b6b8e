"""How far a posterior can be trusted: one file a check, and ``diagnose``, which runs them."""

from gtm_pyro.diagnostics.diagnosis import CHECKS, Diagnosis, diagnose
from gtm_pyro.diagnostics.findings import Finding

__all__ = ["CHECKS", "Diagnosis", "Finding", "diagnose"]
