"""Files that are written whole or not at all: the one way in which this library writes.

Whatever makes a file's content makes it in memory. Libraries that write to the disk themselves may leave half a file
where the disk is full, and HDF5 then takes the process down.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from gtm_pyro.errors import GTMPyroError, RunFolderError

Content = bytes | memoryview


def write_atomically(path: Path, content: Content) -> None:
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
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name itself reaches the disk only with the folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_result(
    path: str | os.PathLike[str], content: Content, error_class: type[GTMPyroError] = RunFolderError
) -> Path:
    """Write a file, and the folders above it where they are missing.

    :param error_class: raised if it cannot be written (no rights, a full disk); whatever stood there stays as it was.
    """
    path = Path(path)
    if not path.name:
        raise error_class(f"path: expected the name of a file, got {str(path)!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise error_class(f"{path}: could not be written ({error.strerror or error})") from error
    return path


def write_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    error_class: type[GTMPyroError] = RunFolderError,
    compressed: bool = False,
) -> Path:
    """Write arrays by name as an NPZ file, like :func:`write_result`."""
    content = BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(content, allow_pickle=False, **arrays)  # type: ignore[arg-type, unused-ignore]
    return write_result(path, content.getbuffer(), error_class)
