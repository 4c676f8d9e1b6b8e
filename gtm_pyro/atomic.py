"""Results that are written whole or not at all."""

import os
from pathlib import Path

from gtm_pyro.errors import RunFolderError
from gtm_pyro.run_folder import write_atomically


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
