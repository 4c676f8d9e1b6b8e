"""Dotted overrides of an experiment: "model.transition.scale", "stages.0.steps", ..."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import yaml

from gtm_pyro.catalogue import class_path, import_class
from gtm_pyro.errors import ConfigError

PARTS = ("model", "guide", "data", "loss")
DEFAULT_LOSS = "pyro.infer.Trace_ELBO"

Raw = dict[str, Any]


def apply_overrides(raw: Mapping[str, Any], overrides: Mapping[str, str]) -> Raw:
    """An experiment's fields with some of them replaced; values stay text, for whoever knows their types.

    A class may be named in short where the library has it. Another class keeps the old arguments that it takes too.

    :param raw: what an experiment's YAML says.
    :param overrides: text by dotted name; ``init_args`` may be left out of a name.
    :raises ConfigError: an unknown class, or a name that leads nowhere.
    """
    result: Raw = deepcopy(dict(raw))
    result["loss"] = result.get("loss") or DEFAULT_LOSS
    for part in PARTS:
        if part in result:
            result[part] = _with_full_path(part, result[part])
    # a class before its arguments, whatever their order on the command line
    for name in sorted(overrides, key=lambda name: name.count(".")):
        value = overrides[name]
        keys = name.split(".")
        if keys[:2] == ["learning_rates", "by_prefix"] and len(keys) > 2:
            keys = [*keys[:2], ".".join(keys[2:])]  # a parameter's name has dots of its own
        _set(result, keys, value, name)
    return result


def _set(node: Any, keys: list[str], value: str, name: str) -> None:
    for i, key in enumerate(keys):
        here = ".".join(keys[: i + 1])
        if isinstance(node, list):
            node, key = _list_item(node, key, name)
        elif not isinstance(node, dict):
            raise ConfigError(f"{name}: expected a field, but {'.'.join(keys[:i])} has none: it is {node!r}")
        elif "class_path" in node and key not in ("class_path", "init_args"):
            node["init_args"] = node.get("init_args") or {}
            node = node["init_args"]
        if i + 1 < len(keys):
            if not isinstance(node, list) and node.get(key) is None:
                node[key] = {}
            elif isinstance(node[key], str) and not isinstance(node, list):
                node[key] = _with_full_path(here, node[key])
            node = node[key]
        elif key == "class_path":
            node.update(_change_class(here.removesuffix(".class_path"), node, value))
        elif isinstance(node, dict) and (here in PARTS or _is_class(node.get(key)) and value != "null"):
            node[key] = _change_class(here, node.get(key) or {}, value)
        else:
            node[key] = _value(name, value)


def _list_item(node: list[Any], key: str, name: str) -> tuple[list[Any], Any]:
    if not key.isdecimal() or int(key) >= len(node):
        raise ConfigError(f"{name}: expected a number from 0 to {len(node) - 1} in place of {key!r}")
    return node, int(key)


def _value(name: str, value: str) -> Any:
    if name == "stages" and value.endswith((".yaml", ".yml")):
        try:
            with open(value, encoding="utf-8") as file:
                value = file.read()
        except OSError as error:
            raise ConfigError(f"stages: {value}: expected a YAML file ({error.strerror})") from None
        return _load(name, value)
    return _load(name, value) if value.lstrip()[:1] in ("[", "{") else value


def _load(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name}: expected YAML, got {' '.join(text.split())}") from None


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _with_full_path(part: str, value: Any) -> Raw:
    node = {"class_path": value} if isinstance(value, str) else value
    if not _is_class(node) or not isinstance(node["class_path"], str):
        raise ConfigError(f"{part}: expected a class_path and its init_args, got {value!r}")
    return {**node, "class_path": class_path(part, node["class_path"])}


def _change_class(part: str, old: Mapping[str, Any], name: str) -> Raw:
    if name.lstrip().startswith("{"):
        return _with_full_path(part, _load(part, name))
    path = class_path(part, name)
    if path == old.get("class_path"):
        return dict(old)
    accepted = inspect.signature(import_class(part, path)).parameters
    kept = {name: value for name, value in (old.get("init_args") or {}).items() if name in accepted}
    return {"class_path": path, "init_args": kept}
