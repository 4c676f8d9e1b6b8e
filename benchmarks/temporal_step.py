"""What a training step of each temporal model costs, and what its memory holds: GTMM with each memory, and the VRNN.

python benchmarks/temporal_step.py [--steps 25] [--batch 10] [--json FILE]

Loss and gradients of one batch of frames 8 x 8, on one thread, the best of several repeats; models as wide as they are
by default, with as many slots as steps, and five times as many for LeastRecentlyUsed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import TraceMeanField_ELBO
from timing import best_seconds

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import Filtering
from gtm_pyro.inference.randomness import module_parameters
from gtm_pyro.memory import (
    DifferentiableNeuralComputer,
    Introspection,
    LeastRecentlyUsed,
    NeuralTuringMachine,
    StoredLatents,
)
from gtm_pyro.models import GTMM, VRNN
from gtm_pyro.networks import FrameDecoder, FrameEncoder

SHAPE, LATENT = (1, 8, 8), 32


def models(steps: int) -> dict[str, Any]:
    torch.manual_seed(0)

    def parts() -> dict[str, Any]:
        return {"encoder": FrameEncoder(LATENT, SHAPE), "decoder": FrameDecoder(LATENT, SHAPE)}

    memories = {
        kind.__name__: kind(num_slots=5 * steps if kind is LeastRecentlyUsed else steps)
        for kind in (Introspection, StoredLatents, NeuralTuringMachine, LeastRecentlyUsed, DifferentiableNeuralComputer)
    }
    return {"VRNN": VRNN(1, **parts())} | {name: GTMM(1, memory, **parts()) for name, memory in memories.items()}


def numbers(state: Any) -> int:
    """Held by the controller and its memory for one episode."""
    if isinstance(state, tuple):
        return sum(numbers(part) for part in state)
    return 0 if state is None else state.numel()


def measure(model: Any, steps: int, batch: int) -> dict[str, Any]:
    guide, loss = Filtering(model), TraceMeanField_ELBO()
    actions = torch.zeros(batch, steps, dtype=torch.long)
    episodes = Episodes(torch.rand(batch, steps, *SHAPE), actions, steps, num_actions=1)

    def step() -> None:
        model.zero_grad()
        loss.differentiable_loss(model, guide, episodes).backward()

    with module_parameters(model, guide), pyro.validation_enabled(False):
        step()
        seconds = best_seconds(step, 5.0)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": model.controller.hidden_dim,
        "state": numbers(model.controller.initial((), torch.zeros(()))),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {name: measure(model, options.steps, options.batch) for name, model in models(options.steps).items()}
    for name, row in rows.items():
        print(
            f"{name:<30} {row['parameters']:>8} parameters, width {row['width']:>3}, {row['state']:>6} numbers held, "
            f"{1000 * row['seconds']:6.1f} ms, {row['seconds'] / rows['VRNN']['seconds']:.2f} of the VRNN's"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
