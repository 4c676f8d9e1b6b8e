"""Which classes a run folder may have imported: importing a module runs it, and a folder may be somebody else's."""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.said import PARTS
from gtm_pyro.storage.yaml import Raw

_KNOWN = ("gtm_pyro.", "pyro.", "torch.nn.", "torch.distributions.")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check_trusted(config: Path, raw: Raw, overrides: Mapping[str, str], trust: bool) -> None:
    """Whether a run's classes outside of the library, Pyro and torch were named by whoever asks for them.

    :param overrides: the words of the command, which name what they name.
    :param trust: all of them are to be imported.
    :raises ConfigError: names the first that was not; nothing was imported.
    """
    if trust:
        return
    named = " ".join(overrides.values())
    for path in foreign_classes(raw):
        if not re.search(rf"(^|[^\w.]){re.escape(path)}($|[^\w.])", named):
            raise ConfigError(
                f"{config}: names {path}, which comes with neither gtm_pyro nor Pyro; a module that is imported runs: "
                "if you know this one, add --trust"
            )


def foreign_classes(raw: Raw) -> list[str]:
    """The classes of other packages, or of nobody's, that the fields of an experiment name or may mean."""
    return [path for field in PARTS for path in _foreign(raw.get(field))]


def _foreign(value: Any, is_class: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _foreign(inner, name == "class_path")
    elif isinstance(value, list):
        for inner in value:
            yield from _foreign(inner)
    elif isinstance(value, str) and _DOTTED.fullmatch(value) and not value.startswith(_KNOWN):
        # other text with a dot in it is taken for a class only where there is such a module
        if is_class or _is_module(value.partition(".")[0]):
            yield value


def _is_module(name: str) -> bool:
    """Whether there is a module at the top; it is not imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return True
