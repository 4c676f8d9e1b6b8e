"""All checks of a model and a guide on the same episodes."""

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gtm_pyro.diagnostics.calibration import calibration
from gtm_pyro.diagnostics.coverage import position_coverage
from gtm_pyro.diagnostics.densities import SiteNames, site_names
from gtm_pyro.diagnostics.findings import Finding
from gtm_pyro.diagnostics.pareto import path_khat
from gtm_pyro.diagnostics.pit import pixel_pit
from gtm_pyro.diagnostics.predictive import predictive_check
from gtm_pyro.diagnostics.unseen import unseen_intervals
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError, GTMPyroError, check_whole, did_you_mean, kind_and_line
from gtm_pyro.inference.capabilities import Capability
from gtm_pyro.inference.capabilities import lacking as lacks
from gtm_pyro.inference.programs import drawing
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.limits import check_memory

if TYPE_CHECKING:
    from xarray import Dataset

CHECKS = ("khat", "coverage", "unseen", "ppc", "pit", "sbc")

_NEEDS_POSES = ("coverage", "unseen")
_NEEDS_PREDICTED_STEPS = ("unseen", "ppc", "pit")
_NEEDS_OF_MODEL = {"coverage": "transition", "unseen": "transition", "ppc": "transition", "sbc": "path"}
# what a check looks at among the sites; any pair has latents
_PATH, _FRAME = ("khat", "unseen", "ppc", "sbc"), ("unseen", "ppc", "pit", "sbc")
_ONE_LATENT = ("khat", "sbc")


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the checks found.

    :param findings: by check.
    :param skipped: checks that were not asked for by name and cannot be made, and why.
    """

    findings: dict[str, Finding]
    skipped: dict[str, str]

    @property
    def numbers(self) -> dict[str, float]:
        """For evaluation.json."""
        return {name: value for finding in self.findings.values() for name, value in finding.numbers.items()}

    @property
    def advice(self) -> dict[str, str]:
        """One sentence for each check, those that were skipped included."""
        return {name: finding.advice for name, finding in self.findings.items()} | self.skipped

    def datasets(self) -> "dict[str, Dataset]":
        """The arrays by group of posterior.nc, ``diagnostics/khat`` for instance."""
        from xarray import Dataset

        groups = {}
        for name, finding in self.findings.items():
            names = {array.dims[0]: array.values for array in finding.arrays.values() if array.values.dtype.kind == "U"}
            variables = {k: (a.dims, a.values) for k, a in finding.arrays.items() if a.values.dtype.kind != "U"}
            plain = {k: v for k, v in finding.numbers.items() if math.isfinite(v)}
            groups[f"diagnostics/{name}"] = Dataset(variables, names, plain | {"advice": finding.advice})
        return groups

    def save_figures(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Draw one figure for each check that was made, ``khat.png`` for instance.

        :raises RunFolderError: a file cannot be written.
        """
        from gtm_pyro.diagnostics.figures import FIGURES

        paths = []
        for name, finding in self.findings.items():
            buffer = io.BytesIO()
            FIGURES[name](finding).savefig(buffer, format="png")
            paths.append(write_result(Path(directory) / f"{name}.png", buffer.getvalue()))
        return paths


@torch.no_grad()
def diagnose(
    model: Any,
    guide: Any,
    episodes: Episodes,
    *,
    seed: int = 0,
    checks: Sequence[str] | None = None,
    num_draws: int = 200,
    num_simulations: int = 100,
    frame_episodes: int = 16,
    cell_size: float | None = None,
    view_tolerance: tuple[float, float] | None = None,
    resolution: float = 0.0,
) -> Diagnosis:
    """Tell when a posterior can be trusted, by up to six checks, each described where it is defined.

    ============ ================================================== ==============================================
    check        asks                                               defined in
    ============ ================================================== ==============================================
    ``khat``     would importance sampling find the posterior?      ``diagnostics.pareto.path_khat``
    ``coverage`` do credible regions hold the true position?        ``diagnostics.coverage.position_coverage``
    ``unseen``   are predictions unsure of places never visited?    ``diagnostics.unseen.unseen_intervals``
    ``ppc``      do predicted frames look like real ones?           ``diagnostics.predictive.predictive_check``
    ``pit``      is the decoder's noise that of the frames?         ``diagnostics.pit.pixel_pit``
    ``sbc``      is the guide right on the model's own episodes?    ``diagnostics.calibration.calibration``
    ============ ================================================== ==============================================

    The advice of a check weighs all of its numbers together. Where model and guide are exact it raises an alarm in at
    most 1% of the cases, each check for itself; ``khat``, which is no test, in none.

    Neither the caller's random state nor the parameter store is changed.

    Sites may have any names. ``pit`` takes a site of frames; the others a path too, which ``guide.path`` and one site
    are; ``coverage``, ``unseen`` and ``ppc`` the model's ``transition``, which leads it on; ``sbc`` ``model.path``.

    :param model: a program of episodes.
    :param guide: likewise.
    :param seed: of all draws; a check draws the same whichever others are made.
    :param checks: by default all that the data and the model have what it takes for.
    :param num_draws: of the path, for ``khat`` and ``coverage``, at least 100.
    :param num_simulations: episodes for ``sbc``, at least 40.
    :param frame_episodes: how many episodes are enough where frames or memories are read for every draw: for all checks
        but ``coverage``, which takes them all.
    :param cell_size: in pose units, as in :func:`gtm_pyro.evaluate`.
    :param view_tolerance: in pose units and radians, likewise.
    :param resolution: to which positions are known in ``coverage``, in pose units.
    :raises ConfigError: an unknown check, a number out of its range, or one asked for that the model cannot answer.
    :raises EpisodesError: a check asked for that needs poses or predicted steps, which the episodes lack.
    """
    check_whole(100, num_draws=num_draws)
    check_whole(40, num_simulations=num_simulations)
    check_whole(1, frame_episodes=frame_episodes)
    check_memory("num_draws", num_draws, 8 * episodes.batch_size * episodes.num_steps)
    few = episodes[:frame_episodes]
    run: dict[str, Callable[[], Finding]] = {
        "khat": lambda: path_khat(model, guide, few, num_draws, names),
        "coverage": lambda: position_coverage(model, guide, episodes, num_draws, resolution),
        "unseen": lambda: unseen_intervals(model, guide, few, cell_size, view_tolerance, names),
        "ppc": lambda: predictive_check(model, guide, few, names=names),
        "pit": lambda: pixel_pit(model, guide, few, names=names),
        "sbc": lambda: calibration(model, guide, few, num_simulations, names=names),
    }
    wanted = CHECKS if checks is None else tuple(dict.fromkeys(checks))
    for name in wanted:
        if name not in CHECKS:
            raise ConfigError(f"checks: expected some of {', '.join(CHECKS)}, got {name!r}{did_you_mean(name, CHECKS)}")
    with drawing(seed, episodes.device, model, guide):
        names, broken = _names(model, guide, few)
    reasons = {name: lacking(name, model, guide, episodes) or broken or _missing(name, names) for name in wanted}
    skipped = {name: str(error) for name, error in reasons.items() if error is not None}
    if checks is not None:
        for error in filter(None, reasons.values()):
            raise error
    findings = {}
    for name in wanted:
        if name not in skipped:
            with drawing(seed, episodes.device, model, guide):
                findings[name] = replace(run[name](), guide=type(guide).__name__)
    return Diagnosis(findings, skipped)


def lacking(check: str, model: Any, guide: Any, episodes: Episodes) -> ConfigError | EpisodesError | None:
    """What data or pair lack for a check, as far as can be said without a run."""
    if check in _NEEDS_POSES and episodes.poses is None:
        return EpisodesError(f"poses: expected true poses in the data for {check}, this data has none")
    if check in _NEEDS_PREDICTED_STEPS and not episodes.num_predicted:
        return EpisodesError(
            f"num_observed: expected fewer than the {episodes.num_steps} steps for {check}, got {episodes.num_observed}"
        )
    reason = None if check == "pit" else lacks(Capability.PATH, model, guide)
    if reason is not None:
        return ConfigError(f"guide: {check} needs {reason}")
    needed = _NEEDS_OF_MODEL.get(check)
    if needed is not None and not hasattr(model, needed):
        return ConfigError(f"model: {check} needs {needed}, which {type(model).__name__} does not have")
    return None


def _names(model: Any, guide: Any, episodes: Episodes) -> tuple[SiteNames, ConfigError | None]:
    """The sites, or why a pair does not run on a few of the episodes, as an automatic guide does not."""
    try:
        names = site_names(model, guide, episodes)
        if lacks(Capability.PATH, model, guide) is None:
            guide.path(episodes.observed)
        return names, None
    except GTMPyroError as error:
        reason = str(error)
    except Exception as error:  # of a part of a user's own
        reason = f"expected a model and a guide that run, got {kind_and_line(error)}"
    return SiteNames(None, (), None), ConfigError(reason)


def _missing(check: str, names: SiteNames) -> ConfigError | None:
    if check in _PATH and names.path is None:
        return ConfigError(f"guide: {check} needs a latent site of the shape of guide.path, and there is none")
    if check in _FRAME and names.frame is None:
        return ConfigError(f"model: {check} needs an observed site of the shape of a frame, and there is none")
    if check in _ONE_LATENT and len(names.latents) > 1:
        return ConfigError(
            f"model: {check} needs a path and at most one latent site more, got {' and '.join(names.latents)}"
        )
    return None
