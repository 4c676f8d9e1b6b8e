"""The precision of networks alone: states, distances, densities and the loss keep their own.

Rounded to bfloat16, a path of hundreds of steps would be off by whole cells, and neighbours would change places.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError

Precision = Literal["float32", "bfloat16"]

_chosen: ContextVar[Precision] = ContextVar("precision", default="float32")


def check_precision(precision: str) -> None:
    """Raise ConfigError for an unknown name."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: expected {' or '.join(get_args(Precision))}, got {precision!r}")


@contextmanager
def networks_in(precision: Precision) -> Iterator[None]:
    """Within it, what is called by :func:`network` computes in this precision."""
    token = _chosen.set(precision)
    try:
        yield
    finally:
        _chosen.reset(token)


def network(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``layers(x)``, in the precision of :func:`networks_in`; parameters and the result keep theirs.

    Hand over hidden layers alone: a last layer in float32 costs little and keeps what is near equal apart.
    """
    if _chosen.get() == "float32":
        return layers(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        return layers(x).to(x.dtype)
