"""Files that are written whole or not at all."""

import os
from pathlib import Path

from gtm_pyro.errors import RunFolderError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one, an error the old one.

    :raises OSError: no rights, a full disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name itself reaches the disk only with the folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_result(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file, and the folders above it where they are missing.

    :raises RunFolderError: it cannot be written (no rights, a full disk); whatever stood there stays as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise RunFolderError(f"{path}: could not be written ({error.strerror or error})") from error
    return path
