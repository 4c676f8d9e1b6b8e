"""The YAML of experiments: the library's by name, files of one's own, and the config.yaml of runs."""

from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from gtm_pyro.errors import ConfigError, RunFolderError, did_you_mean
from gtm_pyro.experiment.moved import translated

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

    Its field ``base`` names another experiment, a file from the folder of its own, over whose fields its own are laid.

    :raises ConfigError: there is no such experiment or file, it is no YAML mapping, or it is its own base.
    """
    layers: list[Raw] = []
    read: list[str] = []
    field, folder, wanted = "experiment", Path(), name
    while True:
        source, content = _find(field, wanted, folder)
        if source in read:
            raise ConfigError(f"{field}: expected another experiment, got a circle: {' -> '.join([*read, source])}")
        base = content.pop("base", None)
        layers.append(content)
        if base is None:
            return reduce(_laid_over, reversed(layers))
        read.append(source)
        field, folder, wanted = f"{source}: base", Path(source).parent, base


def _find(field: str, wanted: Any, folder: Path) -> tuple[str, Raw]:
    """The name or the whole path of an experiment, and what it says."""
    known = experiments()
    if isinstance(wanted, str) and wanted in known:
        resource = files("gtm_pyro.experiments").joinpath(f"{wanted}.yaml")
        return wanted, parse_yaml(wanted, resource.read_text(encoding="utf-8"))
    path = folder / str(wanted)
    if not (isinstance(wanted, str) and (path.suffix in (".yaml", ".yml") or path.is_file())):
        hint = did_you_mean(str(wanted), known)
        raise ConfigError(f"{field}: expected {' or '.join(known)} or a YAML file, got {wanted!r}{hint}")
    return str(path.resolve()), _read_yaml(path)


def _laid_over(old: Any, new: Any) -> Any:
    """Mappings name by name, all else as a whole; another class comes without the old one's arguments."""
    if isinstance(old, str) and isinstance(new, dict) and "init_args" in new:
        old = {"class_path": old}
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if new.get("class_path", old.get("class_path")) != old.get("class_path"):
        return new
    return old | {name: _laid_over(old.get(name), value) for name, value in new.items()}


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
