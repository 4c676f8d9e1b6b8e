"""Names of files as terminals, pages and figures can show them, whatever bytes they are made of."""

import codecs
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_ERRORS = "gtm-pyro-names"
# letters for private use, in place of the bytes 0x80 to 0xFF; and how YAML writes such a byte
_STAND_IN = 0x10F700
_ESCAPED = re.compile(r"\\uDC([89A-F][0-9A-F])")


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """What Python could not decode in a name comes out as it came in; another letter that has no code is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(_ERRORS, _bytes_or_escapes)


def printable(text: str) -> str:
    """The text with nothing in it that UTF-8 cannot say: a name's bytes are read as UTF-8 where they are."""
    return text.encode("utf-8", _ERRORS).decode("utf-8", "replace")


def load_with_names(load: Callable[[str], Any], text: str) -> Any:
    """What a loader of YAML makes of a text with bytes in it that Python could not decode, which libyaml refuses.

    :param load: from a text to mappings, lists and strings.
    """
    lettered = _ESCAPED.sub(lambda match: chr(_STAND_IN + int(match[1], 16)), _lettered(text))
    return load(text) if lettered == text else _byted(load(lettered))


def _lettered(text: str) -> str:
    return "".join(chr(ord(c) - 0xDC00 + _STAND_IN) if "\udc80" <= c <= "\udcff" else c for c in text)


def _byted(value: Any) -> Any:
    if isinstance(value, dict):
        return {_byted(key): _byted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_byted(inner) for inner in value]
    if isinstance(value, str):
        return "".join(chr(ord(c) - _STAND_IN + 0xDC00) if 0x80 <= ord(c) - _STAND_IN <= 0xFF else c for c in value)
    return value


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as a word of a command that can be pasted."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


@contextmanager
def streams_that_show_every_name() -> Iterator[None]:
    """Standard output and error, inside, fail on no name and no letter."""
    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors=_ERRORS)
        yield
