"""Conformance of models and guides, the user's own included: one call, or one subclass under pytest.

``check_pair(model, guide, episodes)`` runs every check; :class:`PairConformance` is the same as a class of tests.
"""

from gtm_pyro.inference.checks import check_programs
from gtm_pyro.testing.batches import check_batches
from gtm_pyro.testing.bound import check_bound
from gtm_pyro.testing.densities import check_densities, check_log_probs
from gtm_pyro.testing.evaluating import check_evaluation
from gtm_pyro.testing.gradients import check_finite_gradients, check_gradients
from gtm_pyro.testing.pair import PairConformance, check_pair
from gtm_pyro.testing.placement import check_devices, check_float64
from gtm_pyro.testing.running import ConformanceError, NotApplicable
from gtm_pyro.testing.sites import check_plates, check_signature, check_sites, check_warnings
from gtm_pyro.testing.state import check_particles, check_repeatable, check_saving, check_vectorized_particles

__all__ = [
    "ConformanceError",
    "NotApplicable",
    "PairConformance",
    "check_batches",
    "check_bound",
    "check_densities",
    "check_devices",
    "check_evaluation",
    "check_finite_gradients",
    "check_float64",
    "check_gradients",
    "check_log_probs",
    "check_pair",
    "check_particles",
    "check_plates",
    "check_programs",
    "check_repeatable",
    "check_saving",
    "check_sites",
    "check_signature",
    "check_vectorized_particles",
    "check_warnings",
]
