"""What goes wrong silently in a training loop of a user's own, said by the programs themselves."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import WeakSet

import pyro
from torch import nn

from gtm_pyro.inference.pyro_private import collects_parameters


class StoredParametersWarning(UserWarning):
    """Pyro's parameter store holds another program's tensors under a program's names, and ``SVI`` would train those."""


Forward = TypeVar("Forward", bound=Callable[..., Any])
# programs that were looked at; an attribute would be copied with a program
_looked_at: WeakSet[nn.Module] = WeakSet()


def program(forward: Forward) -> Forward:
    """For ``forward(self, episodes, reading)`` of a module: a Pyro program that says what ``SVI`` keeps to itself.

    It warns, once a module, of tensors that would be trained in place of its own; and where it fails on frames or
    actions that are not finite, the error names the first of them, not a site.
    """

    @functools.wraps(forward)
    def run(self: Any, episodes: Any, *args: Any, **options: Any) -> Any:
        if self not in _looked_at and _is_training_by_store():
            _looked_at.add(self)
            warn_of_stored_parameters(self)
        try:
            return forward(self, episodes, *args, **options)
        except Exception:
            # here, for to look at every frame of every step takes time
            episodes.check_finite()
            raise

    return cast(Forward, run)


def stored_parameters(module: nn.Module) -> list[str]:
    """Names of parameters in whose place Pyro's parameter store holds other tensors, an earlier program's.

    Pyro puts the parameters of a module into its store under their names, and trains those that are there.
    """
    held = {name.replace("$$$", "."): tensor for name, tensor in pyro.get_param_store().named_parameters()}
    mine = ((name.removesuffix("_unconstrained"), tensor) for name, tensor in module.named_parameters())
    return [name for name, tensor in mine if tensor.requires_grad and held.get(name, tensor) is not tensor]


def warn_of_stored_parameters(module: nn.Module, stacklevel: int = 3) -> None:
    """Warn (StoredParametersWarning) where :func:`stored_parameters` finds some."""
    found = stored_parameters(module)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        warnings.warn(
            f"{type(module).__name__}: Pyro's parameter store holds tensors of another program named {found[0]}{more}; "
            "SVI trains those, and this program would learn nothing: call pyro.clear_param_store() before its first "
            "step",
            StoredParametersWarning,
            stacklevel=stacklevel,
        )


def _is_training_by_store() -> bool:
    """Whether parameters are being collected from the store, as ``SVI.step`` does."""
    return not pyro.settings.get("module_local_params") and collects_parameters()
