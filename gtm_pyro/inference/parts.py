"""Whether the parts that a model is made of fit each other; parts of a user's own need not say their sizes."""

from collections.abc import Mapping
from typing import Any

from gtm_pyro.errors import ConfigError


def check_methods(model: Any, needed: Mapping[str, tuple[str, ...]]) -> None:
    """Whether parts have the methods that a model calls.

    :param needed: names of methods by the attribute that holds a part.
    :raises ConfigError: names the part and the first method that it lacks.
    """
    for part, methods in needed.items():
        for method in methods:
            if not callable(getattr(getattr(model, part), method, None)):
                kind = type(getattr(model, part)).__name__
                raise ConfigError(f"{part}: expected methods {' and '.join(methods)}, {kind} has no {method}")


def check_model(guide: Any, model: Any, *methods: str) -> None:
    """Whether a guide's model has the methods that the guide calls.

    :raises ConfigError: names the guide, the model and the first method that it lacks.
    """
    for method in methods:
        if not callable(getattr(model, method, None)):
            raise ConfigError(
                f"guide: {type(guide).__name__} is for models with {' and '.join(methods)}, {type(model).__name__} has "
                f"no {method}"
            )


def check_same(model: Any, size: str, first: str, *others: str) -> None:
    """Whether ``others`` have the size, "latent_dim" for instance, that the part ``first`` has.

    :raises ConfigError: names the part, what was expected and what came.
    """
    expected = getattr(getattr(model, first), size, None)
    for name in others:
        got = getattr(getattr(model, name), size, None)
        if None not in (expected, got) and got != expected:
            raise ConfigError(f"{name}.{size}: expected {expected} as the {first} has it, got {got}")
