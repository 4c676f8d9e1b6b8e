"""The messages of jsonargparse, said in one line: which field, what was expected, what came."""

import re
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from inspect import isfunction, signature
from typing import Any

from gtm_pyro.errors import did_you_mean
from gtm_pyro.experiment.catalogue import class_path

_FIELD = re.compile(r'Parser key "(?P<name>[^"]*)":\s*(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']*)':\s*(?P<rest>.*)")
_CALLABLE = re.compile(r"Type collections\.abc\.Callable.* expects a function or a callable class: ")
_VALUE = re.compile(r"Expected an? (?P<type>.+?)\. Got value: (?P<value>.*)")
_UNKNOWN = re.compile(
    r"(?:Option '|Group '[^']*' does not accept option '|unrecognized arguments: --)(?P<option>[^'=]*)"
)
_SUBCLASS = re.compile(r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<base>.*)")
_NO_CALL = re.compile(r"Expected '(?P<path>[^']*)' to be a class that instantiates into callable")
# one type of a union that a class is none of; another one may say more
_OTHER_CLASS = re.compile(r"Import path .*does not (correspond to a subclass of|implement protocol) \w+$")
_LAST_TYPE = re.compile(
    r"Expected a \[.*<class '(?P<base>[^']*\.[^']*)'>, <class 'NoneType'>\]\. Got value: (?P<path>\w+(\.\w+)+)$"
)
_NO_CLASS = re.compile(r"Not a valid subclass of .+\. Got value: (?P<value>.*)")
_RESTRICTED = re.compile(r"Not of type (?P<type>\w+):")
_UNION_LINES = ("Does not validate", "Errors:", "Given value")
_PATH = "Expected a dot import path string:"
_GIVEN = re.compile(r"\. Got value: Namespace\((?:class_path='(?P<path>[^']*)')?.*")
_IMPORT = (_PATH, "No module named ", "module '")
_FILE = re.compile("Expected a path but (?P<value>.*) either not accessible or invalid")
_REQUIRED = "the following arguments are required: "


def describe(error: BaseException) -> str:
    """One line for an error of jsonargparse or of a constructor, beginning with the field's dotted name.

    :raises ConfigError: a class that cannot be found, in the words of ``class_path``.
    """
    names: list[str] = []
    owner, leaf, alternatives = "", "", ""
    for line in str(error).splitlines():
        rest = _CALLABLE.sub("", line.strip().removeprefix("- "))
        if match := _FIELD.match(rest):
            names.append(match["name"])
            rest = _CALLABLE.sub("", match["rest"])
            if match := _FIELD.match(rest):
                names.append(match["name"])
                rest = match["rest"]
        if match := _CLASS.match(rest):
            owner, rest = match["path"], match["rest"]
        if rest.startswith("Subtypes: "):
            alternatives = rest.removeprefix("Subtypes: ")
        elif rest.startswith("Given value: ") and alternatives:
            leaf = f"Expected a {alternatives}. Got value: {rest.removeprefix('Given value: ')}"
        elif alternatives and _OTHER_CLASS.match(rest):
            continue
        elif rest and not rest.startswith(_UNION_LINES) and not _is_alternative(rest):
            leaf = rest
        if leaf:
            break
    name, text = ".".join(names), leaf or "not accepted"
    if match := _GIVEN.search(text):
        owner, text = match["path"] or owner, text[: match.start()]
    if match := _UNKNOWN.match(text):
        # without an owner the option has its whole name, otherwise what follows the owner's
        return _unknown_field(name, owner, match["option"].split(".")[0] if owner else match["option"], text)
    if (match := _FILE.search(str(error))) and text.startswith(("Expected a <class 'list'>", _PATH)):
        return f"{name}: expected a list in YAML, or the name of a YAML file that holds one, got {match['value']}"
    if name and text.startswith(_IMPORT):
        with suppress(ModuleNotFoundError):  # within the class's module; its text says which
            class_path(name, text.rpartition(":")[2].strip() if ":" in text else owner)
    if match := _LAST_TYPE.match(text):
        text = _misfit(match["base"], match["path"])
    elif match := _NO_CALL.match(text):
        text = f"expected a class whose objects can be called, got {match['path']}"
    elif match := _NO_CLASS.match(text):
        text = f"expected a class_path and its init_args, got {match['value']}"
    elif match := _VALUE.match(text):
        text = f"expected {_type_name(match['type'])}, got {match['value']}"
    elif match := _RESTRICTED.match(text):
        text = f"expected {_type_name(match['type'])}"
    elif match := _SUBCLASS.match(text):
        text = f"expected a {match['base']}, got {match['path']}"
    elif text.startswith(_PATH):
        text = f"expected the import path of a class (module.Class), got {text.removeprefix(_PATH).strip()}"
    elif text.startswith(_REQUIRED):
        text = f"{owner or 'the class'} needs a value for {text.removeprefix(_REQUIRED)}"
    return f"{name}: {text}" if name else text


def _is_alternative(text: str) -> bool:
    """Whether a line says what one type of a union would have needed."""
    return text.startswith("Expected a ") and "Got value" not in text and not text.startswith(_PATH)


def _misfit(base: str, path: str) -> str:
    """Why a class is none of what it was named for.

    :param base: the import path of a protocol, or of a class.
    """
    kind, mine = (getattr(import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in (base, path))
    methods = [m for m, member in vars(kind).items() if isfunction(member) and (m == "__call__" or m[0] != "_")]
    if not getattr(kind, "_is_protocol", False) or not methods:
        return f"expected a {kind.__name__}, got {path}"
    lacking = [name for name in methods if not hasattr(mine, name)]
    if lacking:
        return f"expected methods {' and '.join(methods)}, {mine.__name__} has no {lacking[0]}"
    asked = " and ".join(f"{name}{_plain(getattr(kind, name))}" for name in methods)
    return f"expected methods {asked}, those of {mine.__name__} take other arguments"


def _plain(method: Callable[..., Any]) -> str:
    return f"({', '.join(name for name in signature(method).parameters if name != 'self')})"


def _unknown_field(name: str, owner: str, unknown: str, text: str) -> str:
    if match := re.match(r"Group '([^']*)'", text):
        name = match[1]
    given = f"{name}.{unknown}" if name else unknown
    if not owner:
        return f"{given}: no such field"
    module, _, class_name = owner.rpartition(".")
    known = list(signature(getattr(import_module(module), class_name)).parameters)
    return f"{given}: no such field of {class_name}, which has {', '.join(known)}{did_you_mean(unknown, known)}"


def _type_name(text: str) -> str:
    text = re.sub(r"<class '(?:[^']*\.)?([^']*)'>", r"\1", text)
    text = re.sub(r"typing\.Literal\[([^\]]*)\]", r"\1", text).replace("'", "").replace("NoneType", "null")
    text = text.replace("PositiveInt", "a whole number over 0").replace("NonNegativeInt", "a whole number from 0")
    return " or ".join(text.strip("[]()").split(", "))
