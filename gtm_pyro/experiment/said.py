"""What an experiment says itself, and which classes it names: the rest is for the data or for defaults to say."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.catalogue import import_class
from gtm_pyro.storage.yaml import Raw

PARTS = ("model", "guide", "data", "loss", "initialisation", "auxiliary")
SIZES = ("action_dim", "frame_shape", "latent_dim", "state_dim")


@dataclass(frozen=True)
class Part:
    """A class that an experiment names, or that it implies.

    :param name: the dotted name of its field, "model.encoder" for instance.
    :param parameters: of its constructor.
    :param implied: the experiment does not name it: it is what the class above it would make by itself.
    """

    name: str
    cls: type
    parameters: Mapping[str, inspect.Parameter]
    implied: bool = False


class Said:
    """The values of an experiment by dotted name, without ``class_path`` and ``init_args``.

    :param overrides: text by dotted name, which is laid over the YAML.
    :ivar values: what is said of each name; a class stands there by its import path.
    :ivar asked: the names that the overrides say something of.
    """

    def __init__(self, raw: Raw, overrides: Mapping[str, str]) -> None:
        self.values: dict[str, Any] = {}
        for name, value in raw.items():
            self._add(name, value)
        before = dict(self.values)
        for name in sorted(overrides, key=lambda name: name.count(".")):
            self._add(_plain(name), _read(overrides[name]))
        self.asked = {_plain(name) for name in overrides} | {n for n in self.values if n not in before}

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def swaps(self, *fields: str) -> bool:
        """Whether the overrides say something of one of these fields, or of what is within it."""
        return any(name.partition(".")[0] in fields for name in self.asked)

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            inner = value
            if "class_path" in value:
                self.values[name] = value["class_path"]
                inner = value.get("init_args") or {}
            for key, item in inner.items():
                self._add(f"{name}.{key}", item)
        else:
            self.values[name] = value

    def parts(self) -> list[Part]:
        """The model, the guide and the classes within them, each after the one that takes it."""
        return [part for field in ("model", "guide") for part in self._parts(field)]

    def _parts(self, name: str, implied: type | None = None) -> Iterator[Part]:
        cls = implied or self._class(name)
        if cls is None:
            return
        parameters = parameters_of(cls)
        yield Part(name, cls, parameters, implied is not None)
        for key, parameter in parameters.items():
            yield from self._parts(f"{name}.{key}", None if f"{name}.{key}" in self else _implied(cls, parameter))

    def _class(self, name: str) -> type | None:
        path = self.values.get(name)
        if not isinstance(path, str) or "." not in path:
            return None
        with suppress(ConfigError, ImportError):  # jsonargparse tells
            return import_class(name, path)
        return None


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """Those of a constructor, and of the constructors above it that it hands ``**kwargs`` to."""
    found: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" in vars(owner) and owner is not object:
            own = inspect.signature(vars(owner)["__init__"]).parameters.values()
            found |= {p.name: p for p in list(own)[1:] if p.name not in found and p.kind not in _VARIADIC}
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
    return found


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _implied(cls: type, parameter: inspect.Parameter) -> type | None:
    """The class that an argument stands for while it is None: the first of its types, if that has a size to be told."""
    if parameter.default is not None:
        return None
    try:
        hint = get_type_hints(vars(cls).get("__init__", object.__init__)).get(parameter.name)
    except (NameError, TypeError):
        return None
    first = get_args(hint)[0] if get_origin(hint) in (Union, UnionType) else None
    if (
        not inspect.isclass(first)
        or getattr(first, "_is_protocol", False)
        or not first.__module__.startswith("gtm_pyro.")
    ):
        return None
    parameters = parameters_of(first)
    by_itself = all(p.default is not p.empty for p in parameters.values())  # the class above has no words for it
    return first if by_itself and set(SIZES) & parameters.keys() else None


def _plain(name: str) -> str:
    return name.replace(".init_args.", ".").removesuffix(".class_path")


def _read(text: str) -> Any:
    with suppress(yaml.YAMLError):  # jsonargparse tells
        return yaml.safe_load(text)
    return text
