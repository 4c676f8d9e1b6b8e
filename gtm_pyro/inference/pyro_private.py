"""The two private names of Pyro that this library reads, and what it does where a version of Pyro has them no more.

Both are of Pyro 1.9; a test fails under a version without them.
"""

from typing import Any

from pyro.poutine import runtime
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn


def give_parameters_to(module: nn.Module) -> None:
    """Make a module that was built before ``module_local_params`` was set hold its parameters itself.

    Pyro makes the place for them only in modules that are built while the setting is on. Without the private name
    a module that is built before must be built anew under the setting.
    """
    context = module.__dict__.get("_pyro_context")
    if context is not None and not hasattr(context, "param_state"):
        context.param_state = {"params": {}, "constraints": {}}


def collects_parameters() -> bool:
    """Whether somebody is collecting parameters only, as ``SVI.step`` does; False where Pyro does not tell."""
    stack: list[Any] = getattr(runtime, "_PYRO_STACK", [])
    return any(isinstance(handler, TraceMessenger) and handler.param_only for handler in stack)
