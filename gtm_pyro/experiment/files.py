"""The YAML of experiments: the library's by name, and files of one's own."""

from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

from gtm_pyro.errors import ConfigError, did_you_mean
from gtm_pyro.storage.yaml import Raw, parse_yaml, read_yaml


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
    There a learning rate of null takes one of the base away, as for a part that is another one now.

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
            return _without_rates_taken_away(reduce(_laid_over, reversed(layers)))
        read.append(source)
        field, folder, wanted = f"{source}: base", Path(source).parent, base


def _without_rates_taken_away(content: Raw) -> Raw:
    rates = content.get("learning_rates")
    if not (isinstance(rates, dict) and isinstance(rates.get("by_prefix"), dict)):
        return content
    kept = {prefix: rate for prefix, rate in rates["by_prefix"].items() if rate is not None}
    return content | {"learning_rates": rates | {"by_prefix": kept}}


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
    return str(path.resolve()), read_yaml(path)


def _laid_over(old: Any, new: Any) -> Any:
    """Mappings name by name, all else as a whole; another class comes without the old one's arguments."""
    if isinstance(old, str) and isinstance(new, dict) and "init_args" in new:
        old = {"class_path": old}
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if new.get("class_path", old.get("class_path")) != old.get("class_path"):
        return new
    return old | {name: _laid_over(old.get(name), value) for name, value in new.items()}
