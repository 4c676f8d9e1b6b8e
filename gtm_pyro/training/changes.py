"""What a stage changes of the parts of a training: arguments of its source of episodes, fields of its objective."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, NamedTuple

from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.auxiliary import Auxiliary
from gtm_pyro.tasks.base import EpisodeData
from gtm_pyro.training.stages import Stage


class StageParts(NamedTuple):
    """What a stage is trained on."""

    data: EpisodeData
    auxiliary: Auxiliary | None


def stage_parts(
    data: EpisodeData, auxiliary: Auxiliary | None, stages: Sequence[Stage]
) -> list[tuple[Stage, StageParts]]:
    """Each stage, and what it is trained on.

    :raises ConfigError: names the stage, and what cannot be changed; or a class refuses the change.
    """
    found = []
    for number, stage in enumerate(stages, 1):
        mine = _changed(f"stage {number}: data", data, stage.data)
        found.append((stage, StageParts(mine, _changed(f"stage {number}: auxiliary", auxiliary, stage.auxiliary))))
    return found


def _changed(setting: str, part: Any, changes: Mapping[str, Any]) -> Any:
    """By the part's own ``changed(**arguments)``, or as a dataclass."""
    if not changes:
        return part
    if not hasattr(part, "changed") and not is_dataclass(part):
        got = "none" if part is None else type(part).__name__
        raise ConfigError(f"{setting}: expected a part with a method changed, or a dataclass, got {got}")
    try:
        return part.changed(**changes) if hasattr(part, "changed") else replace(part, **changes)
    except TypeError as error:
        raise ConfigError(f"{setting}: {error}") from error
