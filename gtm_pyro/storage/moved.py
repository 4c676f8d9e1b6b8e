"""Classes and arguments that moved: run folders and experiments of earlier versions name them as they were then."""

from collections.abc import Iterator
from typing import Any

# a name of then, or its beginning, and the name of today; the first that fits counts
MOVED = {
    "gtm_pyro.data.": "gtm_pyro.tasks.",
    "gtm_pyro.emissions.": "gtm_pyro.networks.",
    "gtm_pyro.keys.": "gtm_pyro.memory.",
}

_OURS = "gtm_pyro."
# arguments of transitions, then: the strategy that has them today, their name, and the value that need not be said
_OF_TRANSITIONS = {
    "initialise_slip": ("LoopClosure", "slips", True),
    "initialise_gate": ("LoopClosure", "gate", True),
    "widest": ("MemorySearch", "widest", 0.6),
}


def todays(path: str) -> str:
    """Today's import path of a class, whatever it was called."""
    old = next((old for old in MOVED if path.startswith(old)), None)
    return path if old is None else MOVED[old] + path.removeprefix(old)


def translated(experiment: Any) -> Any:
    """What an experiment's YAML says, with today's import paths, and with arguments where they belong today."""
    found = _with_paths(experiment)
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        _move_starting_values(found)
        _move_regression(found)
    return found


def _with_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_paths(inner) for inner in value]
    return todays(value) if isinstance(value, str) else value


def _move_starting_values(experiment: dict[str, Any]) -> None:
    """How a transition starts became the field ``initialisation``."""
    said: dict[str, dict[str, Any]] = {}
    for arguments in _arguments_of_ours(experiment["model"].get("init_args")):
        for old in _OF_TRANSITIONS.keys() & arguments.keys():
            strategy, name, usual = _OF_TRANSITIONS[old]
            value = arguments.pop(old)
            if value != usual:
                said.setdefault(strategy, {})[name] = value
    for strategy, values in said.items():
        path = f"gtm_pyro.initialisation.{strategy}"
        experiment.setdefault("initialisation", {"class_path": path, "init_args": values})


def _move_regression(experiment: dict[str, Any]) -> None:
    """Displacement regression was two arguments of the model, and is the field ``auxiliary``."""
    model = experiment["model"]
    arguments = model.get("init_args")
    if not (str(model.get("class_path", _OURS)).startswith(_OURS) and isinstance(arguments, dict)):
        return
    weight, unit = arguments.pop("displacement_weight", None), arguments.pop("pose_unit", None)
    if weight:
        values = {"weight": weight} | ({} if unit is None else {"pose_unit": unit})
        path = "gtm_pyro.inference.DisplacementRegression"
        experiment.setdefault("auxiliary", {"class_path": path, "init_args": values})
    elif weight is not None:
        experiment.setdefault("auxiliary", None)
    elif unit is not None:  # laid over the weight of another experiment
        experiment.setdefault("auxiliary", {"init_args": {"pose_unit": unit}})


def _arguments_of_ours(value: Any) -> Iterator[dict[str, Any]]:
    """The ``init_args`` of classes of the library, and of classes that are not named, anywhere within a value."""
    if not isinstance(value, dict):
        return
    arguments = value.get("init_args")
    if isinstance(arguments, dict) and str(value.get("class_path", _OURS)).startswith(_OURS):
        yield arguments
    for inner in value.values():
        yield from _arguments_of_ours(inner)
