"""The classes that come with the library, by family, and how a class is found by its name."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gtm_pyro.errors import ConfigError, did_you_mean
from gtm_pyro.storage.moved import todays


@dataclass(frozen=True)
class Family:
    """Classes that can stand in for each other.

    :param package: where they are imported from.
    :param belongs: whether a class in the package is one of them.
    :param part: the field of an experiment that takes one, "" where it is an argument of another class.
    """

    package: str
    belongs: Callable[[type], bool]
    part: str = ""


def _is_program(cls: type) -> bool:
    from torch import nn

    return issubclass(cls, nn.Module)


def _is_memory(cls: type) -> bool:
    return hasattr(cls, "write") and hasattr(cls, "read")


def _is_transition(cls: type) -> bool:
    from gtm_pyro.transitions import Transition

    return issubclass(cls, Transition) and cls is not Transition


def _is_loss(cls: type) -> bool:
    from pyro.infer import ELBO

    # the jit variants cannot compile a program with a memory
    return issubclass(cls, ELBO) and cls is not ELBO and not cls.__name__.startswith("Jit")


FAMILIES = {
    "models": Family("gtm_pyro.models", _is_program, "model"),
    "guides": Family("gtm_pyro.guides", _is_program, "guide"),
    "data": Family("gtm_pyro.tasks", lambda cls: hasattr(cls, "sample"), "data"),
    "losses": Family("pyro.infer", _is_loss, "loss"),
    "initialisations": Family("gtm_pyro.initialisation", lambda cls: True, "initialisation"),
    "auxiliary objectives": Family("gtm_pyro.inference", lambda cls: True, "auxiliary"),
    "transitions": Family("gtm_pyro.transitions", _is_transition),
    "memories": Family("gtm_pyro.memory", _is_memory),
    "priors": Family("gtm_pyro.priors", lambda cls: cls.__name__.endswith("Prior")),
    "keys": Family("gtm_pyro.memory", lambda cls: _is_program(cls) and not _is_memory(cls)),
    "encoders and decoders": Family("gtm_pyro.networks", _is_program),
}


def classes(family: str) -> dict[str, type]:
    """The public classes of a family by short name, in the order of the alphabet."""
    package, belongs = FAMILIES[family].package, FAMILIES[family].belongs
    module = importlib.import_module(package)
    found = {
        name: cls
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if not name.startswith("_") and cls.__module__.startswith(package) and not getattr(cls, "_is_protocol", False)
    }
    return {name: cls for name, cls in found.items() if belongs(cls)}


def short_names() -> dict[str, str]:
    """The full import path of every class of the library by its short name."""
    return {name: f"{FAMILIES[family].package}.{name}" for family in FAMILIES for name in classes(family)}


def class_path(part: str, name: str) -> str:
    """The full import path of the class that a field of an experiment names: "DeadReckoning" or "my_module.MyGuide".

    :param part: the field's dotted name; any family may fill a field within another one.
    :raises ConfigError: there is no such class; names close matches.
    """
    if "." in name:
        name = todays(name)
        import_class(part, name)
        return name
    families = [family for family in FAMILIES if FAMILIES[family].part == part] or list(FAMILIES)
    known = {short: FAMILIES[family].package for family in families for short in classes(family)}
    if name not in known:
        some = f"{' or '.join(known)} or " if len(known) < 4 else ""
        raise ConfigError(
            f"{part}: expected {some}the import path of a class (module.Class), got {name!r}{did_you_mean(name, known)}"
        )
    return f"{known[name]}.{name}"


def import_class(part: str, path: str) -> type:
    """The class at an import path.

    :raises ConfigError: the module cannot be imported, or has no such class.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{part}: cannot import {path}: there is no module {error.name} here or among the installed packages"
        ) from None
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        got = "nothing of that name" if cls is None else f"a {type(cls).__name__}"
        public = [n for n, c in inspect.getmembers(module, inspect.isclass) if not n.startswith("_")]
        raise ConfigError(f"{part}: expected a class {name} in {module_name}, got {got}{did_you_mean(name, public)}")
    return cls


def summary(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".")
