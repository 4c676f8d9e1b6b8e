"""Names of files as terminals, pages and figures can show them, whatever bytes they are made of."""

import codecs
import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_ERRORS = "gtm-pyro-names"


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
