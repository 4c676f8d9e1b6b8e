"""All checks in one call, or as a class of tests."""

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.own_loops import warn_of_stored_parameters
from gtm_pyro.reading import Reading
from gtm_pyro.testing.batches import check_batches
from gtm_pyro.testing.bound import check_bound
from gtm_pyro.testing.densities import check_densities, check_log_probs
from gtm_pyro.testing.evaluating import check_evaluation
from gtm_pyro.testing.gradients import check_finite_gradients, check_gradients
from gtm_pyro.testing.placement import check_devices, check_float64
from gtm_pyro.testing.running import ConformanceError, NotApplicable
from gtm_pyro.testing.sites import check_plates, check_signature, check_sites, check_warnings
from gtm_pyro.testing.state import check_particles, check_repeatable, check_saving, check_vectorized_particles

_FIRST = (check_signature, check_sites, check_plates)
_THEN = (
    check_warnings,
    check_log_probs,
    check_densities,
    check_batches,
    check_repeatable,
    check_particles,
    check_vectorized_particles,
    check_float64,
    check_devices,
    check_bound,
    check_evaluation,
)


def check_pair(
    model: Any,
    guide: Any,
    episodes: Episodes,
    reading: Reading | None = None,
    *,
    make: Callable[[], tuple[Any, Any, Any]] | None = None,
    unused: Collection[str] = (),
    constants: Collection[str] = (),
    leave_out: Collection[str] = (),
) -> dict[str, str]:
    """Run every check of :class:`PairConformance` on a model and a guide.

    :param episodes: a few, short: checks run the pair some hundred times.
    :param reading: which steps are scored; by default what the programs choose.
    :param make: gives a new pair, to load a saved state into; see :func:`check_saving`.
    :param unused: parameters that need no gradient; see :func:`check_finite_gradients`.
    :param constants: methods of the guide that the gradient takes as given; see :func:`check_gradients`.
    :param leave_out: names of checks, such as ``check_vectorized_particles``.
    :returns: ``passed``, or why it does not apply, for each check that ran.
    :raises ConformanceError: one line for each check that failed. Where variables do not match, nothing else is run.
    :raises EpisodesError: a frame or an action is not finite.
    :warns StoredParametersWarning: Pyro's parameter store holds tensors of other programs under the names of these.
    """
    episodes.check_finite()
    for program in (model, guide):
        if isinstance(program, nn.Module):
            warn_of_stored_parameters(program)
    outcome: dict[str, str] = {}
    failures: list[ConformanceError] = []

    def attempt(check: Callable[..., None], **options: Any) -> None:
        if check.__name__ in leave_out:
            return
        try:
            check(model, guide, episodes, reading, **options)
            outcome[check.__name__] = "passed"
        except NotApplicable as reason:
            outcome[check.__name__] = str(reason)
        except ConformanceError as error:
            failures.append(error)

    for check in _FIRST:
        attempt(check)
    if not failures:
        for check in _THEN:
            attempt(check)
        attempt(check_finite_gradients, unused=unused)
        attempt(check_gradients, constants=constants)
        attempt(check_saving, make=make)
    if failures:
        raise ConformanceError("\n".join(map(str, failures))) from failures[0]
    return outcome


class PairConformance:
    """Tests of a model and a guide, for pytest::

        class TestMine(PairConformance):
            def make(self):
                torch.manual_seed(0)
                model = MyModel()
                return model, MyGuide(model), episodes

    A class attribute changes how a test runs; overriding a test replaces it.
    """

    reading: Reading | None = None
    """Which steps are scored; by default what the programs choose."""
    unused: Collection[str] = ()
    """Parameters that need no gradient, such as ``guide.scale``."""

    constants: Collection[str] = ()
    """Methods of the guide, such as a search, whose results the gradient takes as given."""

    def make(self) -> tuple[Any, Any, Episodes]:
        """A new model, its guide, and a few short episodes."""
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method make that returns (model, guide, episodes)"
        )

    def test_signature(self) -> None:
        check_signature(*self.make(), self.reading)

    def test_sites(self) -> None:
        check_sites(*self.make(), self.reading)

    def test_plates(self) -> None:
        check_plates(*self.make(), self.reading)

    def test_warnings(self) -> None:
        check_warnings(*self.make(), self.reading)

    def test_log_probs(self) -> None:
        check_log_probs(*self.make(), self.reading)

    def test_densities(self) -> None:
        check_densities(*self.make(), self.reading)

    def test_batches(self) -> None:
        check_batches(*self.make(), self.reading)

    def test_finite_gradients(self) -> None:
        check_finite_gradients(*self.make(), self.reading, unused=self.unused)

    def test_gradients(self) -> None:
        check_gradients(*self.make(), self.reading, constants=self.constants)

    def test_repeatable(self) -> None:
        check_repeatable(*self.make(), self.reading)

    def test_particles(self) -> None:
        check_particles(*self.make(), self.reading)

    def test_vectorized_particles(self) -> None:
        check_vectorized_particles(*self.make(), self.reading)

    def test_saving(self) -> None:
        check_saving(*self.make(), self.reading, make=self.make)

    def test_float64(self) -> None:
        check_float64(*self.make(), self.reading)

    def test_devices(self) -> None:
        check_devices(*self.make(), self.reading)

    def test_bound(self) -> None:
        check_bound(*self.make(), self.reading)

    def test_evaluation(self) -> None:
        check_evaluation(*self.make(), self.reading)
