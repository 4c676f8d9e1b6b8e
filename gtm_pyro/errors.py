"""Exceptions that users meet. Each carries one line that says what was expected and what came."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral

_TOLD = 10


class GTMPyroError(Exception):
    """Base of every error that a user's input, files or machine can cause.

    The command line prints it and exits with 2.
    """


class EpisodesError(GTMPyroError, ValueError):
    """Frames, actions or poses with a wrong shape, length, type or value, or a damaged shard."""


class ImagesError(GTMPyroError, ValueError):
    """A folder of images that is missing, empty, unreadable or holds a file that is no image."""


class MemoryReadError(GTMPyroError, ValueError):
    """A memory read that cannot be answered: too many neighbours, an empty memory, keys of another dimension."""


class ConfigError(GTMPyroError, ValueError):
    """An unknown experiment, class or field, or a value outside its range."""


class RunFolderError(GTMPyroError):
    """A run folder that is missing, not empty, half-written or from another model."""


class CheckpointError(GTMPyroError):
    """A checkpoint that could not be written or read; the last good one is kept."""


class DeviceError(GTMPyroError, ValueError):
    """A device that this machine does not have."""


class NonFiniteLossError(GTMPyroError, ArithmeticError):
    """The loss or a gradient became NaN or infinite; the last good checkpoint is kept."""


class EngineError(GTMPyroError):
    """An engine that renders worlds did not start, ended or hangs; another one can be started."""


class MissingDependencyError(GTMPyroError, ImportError):
    """An optional package is needed; the message holds the install command."""


class Together:
    """Errors of the files of one folder, which are told together.

    :ivar errors: those of the files so far.
    """

    def __init__(self) -> None:
        self.errors: list[GTMPyroError] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """One file is read inside."""
        try:
            yield
        except (EpisodesError, ImagesError) as error:
            self.errors.append(error)

    def tell(self) -> None:
        """Raise the error if there was one; of several, one that names the first ten and says how many there are."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            first = "; ".join(str(error) for error in self.errors[:_TOLD])
            rest = f"; the first {_TOLD} are: " if len(self.errors) > _TOLD else ": "
            raise type(self.errors[0])(f"{len(self.errors)} files cannot be used{rest}{first}")


def check_positive(**numbers: float) -> None:
    """Check arguments given by name.

    :raises ConfigError: one is not over 0.
    """
    for name, number in numbers.items():
        if not number > 0:
            raise ConfigError(f"{name}: expected a number over 0, got {number}")


def check_whole(
    least: int, most: int | None = None, error: type[GTMPyroError] = ConfigError, **numbers: object
) -> None:
    """Check arguments given by name.

    :raises error: the first that is not a whole number of at least ``least``, and of at most ``most``.
    """
    for name, number in numbers.items():
        whole = isinstance(number, Integral) and not isinstance(number, bool)
        if not whole or int(number) < least or (most is not None and int(number) > most):  # type: ignore[call-overload]
            bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise error(f"{name}: expected a whole number {bounds}, got {number!r}")


def first_line(error: BaseException) -> str:
    """What an error says, without the tensors and tables of shapes that torch and Pyro add."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" :")


def kind_and_line(error: BaseException) -> str:
    """The kind of an error and its first line, for errors that this library did not foresee."""
    return type(error).__name__ + (f" ({first_line(error)})" if str(error).strip() else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" if a known name is close, otherwise nothing."""
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else ""
