"""The messages of jsonargparse, said in one line: which field, what was expected, what came."""

import re
from importlib import import_module
from inspect import signature

from gtm_pyro.catalogue import did_you_mean

_FIELD = re.compile(r'Parser key "(?P<name>[^"]*)":\s*(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']*)':\s*(?P<rest>.*)")
_CALLABLE = re.compile(r"Type collections\.abc\.Callable.* expects a function or a callable class: ")
_VALUE = re.compile(r"Expected an? (?P<type>.+?)\. Got value: (?P<value>.*)")
_UNKNOWN = re.compile(r"(?:Option|Group '[^']*' does not accept option) '(?P<option>[^']*)'")
_SUBCLASS = re.compile(r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<base>.*)")
_RESTRICTED = re.compile(r"Not of type (?P<type>\w+):")
_UNION_LINES = ("Does not validate", "Errors:", "Given value")
_PATH = "Expected a dot import path string: "
_REQUIRED = "the following arguments are required: "


def describe(error: BaseException) -> str:
    """One line for an error of jsonargparse or of a constructor, beginning with the field's dotted name."""
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
        elif rest and not rest.startswith(_UNION_LINES) and not _is_alternative(rest):
            leaf = rest
        if leaf:
            break
    name, text = ".".join(names), re.sub(r"\. Got value: Namespace\(.*", "", leaf or "not accepted")
    if match := _UNKNOWN.match(text):
        return _unknown_field(name, owner, match["option"].split(".")[0], text)
    if match := _VALUE.match(text):
        text = f"expected {_type_name(match['type'])}, got {match['value']}"
    elif match := _RESTRICTED.match(text):
        text = f"expected {_type_name(match['type'])}"
    elif match := _SUBCLASS.match(text):
        text = f"expected a {match['base']}, got {match['path']}"
    elif text.startswith(_PATH):
        text = f"expected the import path of a class (module.Class), got {text.removeprefix(_PATH)}"
    elif text.startswith(_REQUIRED):
        text = f"{owner} needs a value for {text.removeprefix(_REQUIRED)}"
    return f"{name}: {text}" if name else text


def _is_alternative(text: str) -> bool:
    """Whether a line says what one type of a union would have needed."""
    return text.startswith("Expected a ") and "Got value" not in text and not text.startswith(_PATH)


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
