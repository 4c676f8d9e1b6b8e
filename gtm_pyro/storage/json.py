"""Numbers as JSON has them: it knows no NaN and no infinity."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtm_pyro.storage.atomic import write_result

logger = logging.getLogger(__name__)


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


def read_numbers(path: Path) -> dict[str, float]:
    """The numbers of a file that was derived from a run, an evaluation.json; none where there is no file.

    Earlier versions wrote null for what was not defined; that is left out. A damaged file counts as none, for it can be
    made again: the log says so.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return finite(content)
        got = f"a {type(content).__name__}"
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        got = f"{error.msg} in line {error.lineno}"
    except (OSError, UnicodeDecodeError) as error:
        got = str(error)
    logger.warning("%s: expected an object of numbers in JSON, got %s; it counts as missing", path, got)
    return {}


def finite(content: Mapping[str, Any]) -> dict[str, float]:
    """What is a number, and finite."""
    return {k: v for k, v in content.items() if type(v) in (int, float) and math.isfinite(v)}
