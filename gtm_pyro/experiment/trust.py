"""Which classes a run folder may have imported: importing a module runs it, and a folder may be somebody else's."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.said import PARTS
from gtm_pyro.storage.yaml import Raw

_KNOWN = ("gtm_pyro.", "pyro.", "torch.nn.", "torch.distributions.")


def check_trusted(config: Path, raw: Raw, overrides: Mapping[str, str], trust: bool) -> None:
    """Whether a run's classes outside of the library, Pyro and torch were named by whoever asks for them.

    :param overrides: the words of the command, which name what they name.
    :param trust: all of them are to be imported.
    :raises ConfigError: names the first that was not, or a file that may name some; nothing was imported.
    """
    if trust:
        return
    for file in _files(_read(raw["stages"]) if isinstance(raw.get("stages"), str) else raw.get("stages")):
        raise ConfigError(f"{config}: stages: expected them in this file, as runs have them, got {file}; see --trust")
    named = " ".join(overrides.values())
    for path in foreign_classes(raw):
        if not re.search(rf"(^|[^\w.]){re.escape(path)}($|[^\w.])", named):
            raise ConfigError(
                f"{config}: names {path}, which comes with neither gtm_pyro nor Pyro; a module that is imported runs: "
                "if you know this one, add --trust"
            )


def foreign_classes(raw: Raw) -> list[str]:
    """The classes of other packages, or of nobody's, that the fields of an experiment name or may mean."""
    return [path for field, value in raw.items() for path in _foreign(value, field in PARTS)]


def _foreign(value: Any, in_part: bool, is_class: bool = False) -> Iterator[str]:
    """
    :param in_part: whether text may name a class without saying so.
    :param is_class: whether it says so.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _foreign(inner, in_part, name == "class_path")
    elif isinstance(value, list):
        for inner in value:
            yield from _foreign(inner, in_part)
    elif isinstance(value, str):
        read = _read(value)
        if read != value:  # YAML within a text, which is read when the experiment is
            yield from _foreign(read, in_part, is_class)
        elif "." in value and not value.startswith(_KNOWN):
            top = value.partition(".")[0]
            # other text with a dot in it is taken for a class only where there is such a module
            if is_class or (in_part and top.isidentifier() and _is_module(top)):
                yield value


def _files(stages: Any) -> Iterator[str]:
    """What jsonargparse would read in place of a stage, or of a part of one."""
    if isinstance(stages, Mapping):
        for name, inner in stages.items():
            yield from _files(None if name == "frozen" else inner)
    elif isinstance(stages, list):
        for inner in stages:
            yield from _files(inner)
    elif isinstance(stages, str) and Path(stages).is_file():
        yield stages


def _read(text: str) -> Any:
    with suppress(yaml.YAMLError, ValueError):
        return yaml.safe_load(text)
    return text


def _is_module(name: str) -> bool:
    """Whether there is a module at the top; it is not imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return True
