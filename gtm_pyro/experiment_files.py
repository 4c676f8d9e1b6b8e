"""The YAML of experiments: the library's by name, files of one's own, and the config.yaml of runs."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from gtm_pyro.catalogue import did_you_mean
from gtm_pyro.errors import ConfigError, RunFolderError

Raw = dict[str, Any]


def experiments() -> dict[str, str]:
    """The experiments that come with the library, and the first line of each."""
    found = {}
    for path in files("gtm_pyro.experiments").iterdir():
        if path.name.endswith(".yaml"):
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            found[path.name.removesuffix(".yaml")] = first.lstrip("# ").rstrip(". ")
    return dict(sorted(found.items()))


def read_experiment(name: str) -> Raw:
    """What an experiment's YAML says: one of the library's by name, or a file of yours.

    :raises ConfigError: there is no such experiment or file, or it is no YAML mapping.
    """
    if name in experiments():
        return parse_yaml(name, files("gtm_pyro.experiments").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    path = Path(name)
    if not (path.suffix in (".yaml", ".yml") or path.is_file()):
        known = experiments()
        raise ConfigError(
            f"experiment: expected {' or '.join(known)} or a YAML file, got {name!r}{did_you_mean(name, known)}"
        )
    return _read_yaml(path)


def read_run(path: Path) -> Raw:
    """The config.yaml of a run.

    :raises RunFolderError: it is missing or cut short.
    """
    if not path.is_file():
        raise RunFolderError(f"{path}: expected the config of a run, there is no such file")
    try:
        return _read_yaml(path)
    except ConfigError as error:
        raise RunFolderError(str(error)) from None


def _read_yaml(path: Path) -> Raw:
    try:
        return parse_yaml(str(path), path.read_text(encoding="utf-8"))
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
