"""The words of a command line, sorted; what they mean is for others to say. Imports nothing heavy: help is quick."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gtm_pyro.catalogue import did_you_mean
from gtm_pyro.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """What a command takes.

    :param usage: the line after "gtm-pyro".
    :param text: the rest of its help.
    :param positionals: the most words that are no option.
    :param options: that take a value.
    :param optional: that may take a value.
    :param fields: fields of an experiment that may be overridden.
    """

    usage: str
    text: str
    positionals: int = 1
    options: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass
class Arguments:
    """The words of one call.

    :param options: text by name; "" for an optional value that was left out.
    :param overrides: text by dotted name of a field.
    """

    positionals: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int | None:
        """An option as a whole number.

        :raises ConfigError: it is none, or below ``least``.
        """
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ConfigError(f"--{name}: expected a whole number of at least {least}, got {text!r}")
        return value


def parse(words: Sequence[str], command: Command) -> Arguments:
    """Sort the words that follow a command's name. Options are ``--name value`` or ``--name=value``.

    :raises ConfigError: an unknown option, one without its value, or a word too many.
    """
    result = Arguments()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            result.positionals.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = _known_spelling(name, command)
        target = _target(name, command, result)
        if target is None:
            known = (*command.options, *command.optional, *command.fields, "help", "debug")
            guess = did_you_mean(name.split(".")[0], known)
            raise ConfigError(f"{word.partition('=')[0]}: no such option{guess.replace('mean ', 'mean --')}")
        has_value = bool(equals) or (bool(rest) and not _is_option(rest[0]))
        if not has_value and name not in command.optional:
            raise ConfigError(f"--{name}: expected a value")
        target[name] = (value if equals else rest.pop(0)) if has_value else ""
    if len(result.positionals) > command.positionals:
        unexpected = result.positionals[command.positionals]
        raise ConfigError(f"{unexpected}: not expected here; usage: gtm-pyro {command.usage}")
    return result


def _known_spelling(name: str, command: Command) -> str:
    head, dot, tail = name.partition(".")
    underscored = head.replace("-", "_")
    known = {*command.options, *command.optional, *command.fields}
    return f"{underscored}{dot}{tail}" if underscored in known else name


def _target(name: str, command: Command, result: Arguments) -> dict[str, str] | None:
    if name in command.options or name in command.optional:
        return result.options
    return result.overrides if name.split(".")[0] in command.fields else None


def _is_option(word: str) -> bool:
    # "-3" and "-1e-3" are values
    return word.startswith("-") and not word[1:2].isdigit() and not word[1:2] == "."
