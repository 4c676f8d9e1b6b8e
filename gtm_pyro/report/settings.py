"""In which settings runs differ."""

from typing import Any

# how often a run writes and what it keeps is no difference between runs
_IGNORED = ("checkpoint_every", "log_every", "evaluation.posterior_episodes", "evaluation.posterior_samples")
_LONG = 24


def differences(settings: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Fields that differ between runs, by their dotted names, one value a run; "-" where it has none.

    :param settings: what each run's config.yaml says.
    """
    configs = [_flat(config) for config in settings]
    found = {}
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [_short(config[name]) if name in config else "-" for config in configs]
        if len(set(values)) > 1 and name not in _IGNORED:
            found[name] = tuple(_lettered(values) if max(map(len, values)) > _LONG else values)
    # what one compares for stands first
    first = [name for name in ("model", "data", "guide", "loss", "seed") if name in found]
    return {name: found[name] for name in (*first, *(name for name in found if name not in first))}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every value by its dotted name, as one would type it on the command line."""
    if isinstance(value, dict) and value:
        inside = {"class_path": name, "init_args": name}
        parts = [_flat(inner, inside.get(key, f"{name}.{key}".lstrip("."))) for key, inner in value.items()]
        return {k: v for part in parts for k, v in part.items() if v != {}}
    return {name: value}


def _short(value: Any) -> str:
    """A class by its own name, other values as they are."""
    text = str(value)
    return text.rpartition(".")[2] if isinstance(value, str) and text.replace(".", "").isidentifier() else text


def _lettered(values: list[str]) -> list[str]:
    """A curriculum, or anything else too long for a column: A, B, ... in the order of appearance."""
    order = list(dict.fromkeys(values))
    return [chr(ord("A") + order.index(value)) if len(order) <= 26 else str(order.index(value)) for value in values]


def labelled(name: str, value: str) -> str:
    """A value as it stands beside others in a figure."""
    return value if name in ("guide", "loss", "model", "data") else f"{name.rpartition('.')[2]} {value}"
