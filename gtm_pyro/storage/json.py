"""Numbers as JSON has them: it knows no NaN and no infinity."""

import json
import math
import os
from typing import Any

from gtm_pyro.storage.atomic import write_result


def plain(value: Any) -> Any:
    """The same with None for every number that is not finite, inside dictionaries and lists too."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write an object as JSON, whole or not at all; what is not finite becomes null.

    :raises RunFolderError: the file cannot be written.
    """
    write_result(path, (json.dumps(plain(content), indent=2) + "\n").encode())
