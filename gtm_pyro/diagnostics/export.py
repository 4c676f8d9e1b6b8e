"""A diagnosis in a run folder: numbers in evaluation.json, arrays in posterior.nc, figures in figures/."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gtm_pyro.diagnostics.advice import PREFIXES
from gtm_pyro.diagnostics.diagnosis import Diagnosis
from gtm_pyro.diagnostics.posterior import add_groups, read_groups
from gtm_pyro.storage.json import finite, read_numbers, write_json
from gtm_pyro.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from xarray import Dataset

DIAGNOSED_STEP = "diagnosed_step"  # which parameters a diagnosis is of
GROUP = "diagnostics"


def save_diagnosis(diagnosis: Diagnosis, folder: RunFolder, step: int) -> None:
    """Add the findings to what lies in a folder; those of other checks on the same parameters stay.

    :param step: optimiser steps that the parameters have seen.
    :raises RunFolderError: a file cannot be written. A damaged one is written anew.
    """
    earlier, groups = _earlier(folder, step)
    others = {k: v for k, v in read_numbers(folder.evaluation).items() if not _is_diagnosis(k)}
    write_json(folder.evaluation, {**others, **earlier, **finite(diagnosis.numbers), DIAGNOSED_STEP: step})
    add_groups({**groups, **diagnosis.datasets()}, folder.posterior, replacing=GROUP)
    diagnosis.save_figures(folder.figures)


@contextmanager
def diagnosis_kept(folder: RunFolder, step: int) -> Iterator[None]:
    """Carry a diagnosis of the same parameters through code that writes evaluation.json and posterior.nc anew."""
    numbers, groups = _earlier(folder, step)
    yield
    if numbers:
        write_json(folder.evaluation, {**read_numbers(folder.evaluation), **numbers})
    if groups and folder.posterior.is_file():
        add_groups(groups, folder.posterior, replacing=GROUP)


def _earlier(folder: RunFolder, step: int) -> "tuple[dict[str, float], dict[str, Dataset]]":
    numbers = {k: v for k, v in read_numbers(folder.evaluation).items() if _is_diagnosis(k)}
    if numbers.get(DIAGNOSED_STEP) != step:
        return {}, {}
    return numbers, read_groups(folder.posterior, GROUP)


def _is_diagnosis(name: str) -> bool:
    return name == DIAGNOSED_STEP or name.startswith(tuple(f"{prefix}_" for prefix in PREFIXES.values()))
