"""Seeds that are functions of a run's seed and a step's number; contexts that keep the caller's state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import pyro
import torch
from pyro.util import get_rng_state, set_rng_state
from torch import nn

from gtm_pyro.inference.pyro_private import give_parameters_to


class Purpose(IntEnum):
    """What a derived seed is for; each has its own stream."""

    STEP = 0
    INITIALISE = 1
    REGRET = 2
    TERMS = 3
    VERDICT = 4


def derived_seed(seed: int, step: int, purpose: Purpose) -> int:
    """A seed below 2**32, unrelated to that of every other step, purpose and run."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(1)[0])


def set_seed(seed: int, device: torch.device) -> None:
    """Seed every global generator that a program could use: Python's, NumPy's and torch's."""
    random.seed(seed)
    np.random.seed(seed)
    if device.type == "cpu":  # torch.manual_seed spends 0.3 ms on a stack trace for a GPU
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def callers_random_state(device: torch.device) -> Iterator[None]:
    """Put the global random states (Python's, NumPy's, torch's) back at the end."""
    state = get_rng_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        set_rng_state(state)


@contextmanager
def module_parameters(*programs: nn.Module) -> Iterator[None]:
    """Parameters belong to their modules, not to Pyro's global store: its setting ``module_local_params``."""
    for program in programs:
        for module in program.modules():
            give_parameters_to(module)
    with pyro.settings.context(module_local_params=True):
        yield
