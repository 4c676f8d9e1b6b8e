"""Classes that moved: run folders and experiments of earlier versions name them as they were called then."""

from typing import Any

# a name of then, or its beginning, and the name of today; the first that fits counts
MOVED = {
    "gtm_pyro.data.": "gtm_pyro.tasks.",
    "gtm_pyro.emissions.": "gtm_pyro.networks.",
    "gtm_pyro.keys.": "gtm_pyro.memory.",
}


def todays(path: str) -> str:
    """Today's import path of a class, whatever it was called."""
    old = next((old for old in MOVED if path.startswith(old)), None)
    return path if old is None else MOVED[old] + path.removeprefix(old)


def translated(value: Any) -> Any:
    """What an experiment's YAML says, with today's import paths."""
    if isinstance(value, dict):
        return {name: translated(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [translated(inner) for inner in value]
    return todays(value) if isinstance(value, str) else value
