"""What long work shows while it runs, where somebody looks: the commands do, and a training; a library keeps quiet."""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

Item = TypeVar("Item")

# seconds for which nothing is shown, for short work needs no words
_PATIENCE = 2.0
_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)


def interval() -> float:
    """Seconds between two looks of a bar: a log file keeps every one."""
    return 0.5 if sys.stderr.isatty() else 10.0


@contextmanager
def progress_shown(show: bool = True) -> Iterator[None]:
    """Long work inside says on standard error what it does and how far it is."""
    token = _SHOWN.set(show or _SHOWN.get())
    try:
        yield
    finally:
        _SHOWN.reset(token)


def watched(items: Iterable[Item], what: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """The same items, and on a terminal a bar that counts them; elsewhere one line.

    :param what: is done with them: "reading images".
    :param unit: what one is.
    """
    if _SHOWN.get() and sys.stderr.isatty():
        yield from tqdm(items, desc=what, unit=unit, total=total, delay=_PATIENCE, dynamic_ncols=True)
        return
    with phase(what):
        yield from items


@contextmanager
def phase(what: str) -> Iterator[threading.Timer | None]:
    """Work whose end nobody can tell: one line, once it lasts.

    :param what: is done: "searching for starting values".
    """
    if not _SHOWN.get():
        yield None
        return
    timer = threading.Timer(_PATIENCE, lambda: tqdm.write(f"{what} ...", file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()
