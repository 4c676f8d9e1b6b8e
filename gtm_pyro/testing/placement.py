"""Whether a pair follows its parameters and data to another precision and another device."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.checks import sample_sites
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import (
    SEED,
    ConformanceError,
    backward,
    conformance_check,
    copied,
    named_parameters,
    traces,
)


@conformance_check
def check_float64(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """With parameters and episodes in float64, every value, log probability and gradient is in float64."""
    model, guide = (program.double() for program in copied(model, guide))
    episodes = episodes.to(torch.float64)
    set_seed(SEED, episodes.device)
    # the guide first: a model that is handed values in float32 would fail without saying which
    _check_all_float64("guide", poutine.trace(guide).get_trace(episodes, reading), "value")
    for program, trace in zip(("model", "guide"), traces(model, guide, episodes, reading), strict=True):
        _check_all_float64(program, trace, "value", "log_prob")
    backward(model, guide, episodes, reading)
    for name, parameter in named_parameters(model, guide).items():
        if parameter.dtype != torch.float64:
            raise ConformanceError(f"{name}: expected torch.float64 after .double(), got {parameter.dtype}")


def _check_all_float64(program: str, trace: poutine.Trace, *kinds: str) -> None:
    for name, node in sample_sites(trace).items():
        for kind in kinds:
            got = node[kind].dtype
            if node[kind].is_floating_point() and got != torch.float64:
                raise ConformanceError(f"{kind} of site {name!r} of the {program}: expected torch.float64, got {got}")


@conformance_check
def check_devices(
    model: Any,
    guide: Any,
    episodes: Episodes,
    reading: Reading | None = None,
    *,
    devices: Sequence[str | torch.device] | None = None,
) -> None:
    """The pair runs, forwards and backwards, wherever ``.to(device)`` puts it and its episodes.

    No program may make a tensor on the default device, which is not theirs: this is seen without another device too.
    Scalars, which torch takes along, are allowed; and what Pyro, torch and other installed libraries do.

    :param devices: by default the CPU and, where there is one, the GPU.
    """
    devices = devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in map(torch.device, devices):
        model, guide = (program.to(device) for program in copied(model, guide))
        moved = episodes.to(device)
        for program, trace in zip(("model", "guide"), traces(model, guide, moved, reading), strict=True):
            for name, node in sample_sites(trace).items():
                for what in ("value", "log_prob"):
                    got = node[what].device
                    if got.type != device.type:
                        raise ConformanceError(
                            f"{what} of site {name!r} of the {program}: expected {device}, got {got}"
                        )
        backward(model, guide, moved, reading)
        with _NoDefaultDevice():
            traces(model, guide, moved, reading)


class _NoDefaultDevice(TorchFunctionMode):
    """Refuses tensors that a program makes without saying where."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in _device_constructors() and (kwargs or {}).get("device") is None:
            of_tensor = any(isinstance(a, Tensor) for a in args[:1])  # as_tensor and the like keep its device
            if isinstance(made, Tensor) and made.dim() > 0 and not of_tensor:
                frame = sys._getframe(1)
                if not _installed(frame.f_globals.get("__name__", "")):
                    raise ConformanceError(
                        f"{frame.f_code.co_filename}:{frame.f_lineno}: expected device= of the parameters or the data, "
                        f"got a tensor {tuple(made.shape)} of torch.{func.__name__} on the default device"
                    )
        return made


def _installed(module: str) -> bool:
    return module.partition(".")[0] in ("torch", "pyro")
