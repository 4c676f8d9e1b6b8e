"""Whether a trained pair could be put to use."""

from typing import Any

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import GTMPyroError, kind_and_line
from gtm_pyro.inference.capabilities import weighs_entries
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import ConformanceError, NotApplicable, conformance_check, copied
from gtm_pyro.training.restarts import median_regret


@conformance_check
def check_evaluation(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """What follows training works with these parts too: evaluation, generation, diagnosis, the test for being stuck.

    :raises NotApplicable: a guide that has no path of the memorised steps alone; or no step is predicted.
    """
    # packages that take a second to import
    from gtm_pyro.diagnostics.diagnosis import CHECKS, diagnose, lacking
    from gtm_pyro.diagnostics.simulation import simulate
    from gtm_pyro.evaluation.evaluation import evaluate

    if not episodes.num_predicted:
        raise NotApplicable("expected episodes with predicted steps, got none")
    model, guide = copied(model, guide)
    if hasattr(guide, "path"):
        try:
            guide.path(episodes.observed)
        except GTMPyroError as reason:
            raise NotApplicable(str(reason)) from None
    # calibration takes seconds, and asks for no more than a simulation and a path of it
    checks = [name for name in CHECKS if name != "sbc" and lacking(name, model, guide, episodes) is None]
    steps: dict[str, Any] = {
        "evaluate": lambda: evaluate(model, guide, episodes, iwae_particles=2),
        "diagnose": lambda: diagnose(model, guide, episodes, checks=checks, num_draws=100, frame_episodes=1),
    }
    if hasattr(model, "path"):
        steps["simulate"] = lambda: simulate(model, episodes.actions[:1, :24], episodes.frame_shape)
    if weighs_entries(model):
        used = reading or getattr(model, "reading", None) or Reading()
        steps["max_regret"] = lambda: median_regret(model, guide, episodes, used)
    for name, step in steps.items():
        try:
            step()
        except Exception as error:
            raise ConformanceError(f"{name}: expected to work, got {kind_and_line(error)}") from error
