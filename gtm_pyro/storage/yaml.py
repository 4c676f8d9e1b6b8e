"""YAML of experiments and of runs, with today's names of classes."""

from pathlib import Path
from typing import Any

import yaml

from gtm_pyro.errors import ConfigError, RunFolderError
from gtm_pyro.storage.moved import translated

Raw = dict[str, Any]


def read_run(path: Path) -> Raw:
    """The config.yaml of a run.

    :raises RunFolderError: it is missing or cut short.
    """
    if not path.is_file():
        raise RunFolderError(f"{path}: expected the config of a run, there is no such file")
    try:
        return read_yaml(path)
    except ConfigError as error:
        raise RunFolderError(str(error)) from None


def read_yaml(path: Path) -> Raw:
    """A file's mapping.

    :raises ConfigError: it cannot be read, or is no YAML mapping of names.
    """
    try:
        return translated(parse_yaml(str(path), path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: expected an experiment in YAML ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected an experiment in YAML, got a file that is no text") from None


def parse_yaml(source: str, text: str) -> Raw:
    """A YAML mapping.

    :param source: named in errors.
    :raises ConfigError: not valid YAML, or no mapping of names.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{source}: {where}not valid YAML: {problem}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{source}: expected the fields of an experiment, got {type(content).__name__}")
    return content
