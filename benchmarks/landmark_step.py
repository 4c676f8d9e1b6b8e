"""What a training step costs with each guide that tracks, as a multiple of dead reckoning's.

Run: ``python benchmarks/landmark_step.py [--hypotheses N] [--json FILE]``. A step is episodes, Pyro's ELBO, backward,
clipping and Adam on the default model: batch 16, 256 memory entries + 32 predicted steps, walls, 5 neighbours, the
guide in training mode. The guides take turns, so that a noisy machine slows all alike; each figure is the median over
turns, on one thread, without the first turns, in which the search is compiled. Without slips, where one hypothesis is
enough, and with a slip in ten steps; keys of the JSON file:

``seconds``     by probability of a slip, then by guide
``ratio``       the same over dead reckoning's
"""

import json
import statistics
import time

import pyro
import torch
from pyro.infer import Trace_ELBO
from timing import step_parser

from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.initialisation import Automatic
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import WalledTranslation

BATCH, OBSERVED, PREDICTED, CLIP = 16, 256, 32, 100.0
TRACKING = (LandmarkCorrected, Smoothing, ParticleGuide)


def measure(slip: float, hypotheses: int | None, turns: int, device: str) -> dict[str, float]:
    """Seconds a step, by guide; all guides share a model, whose walls and moves are found from frames first."""
    torch.manual_seed(0)
    plain, data = ImageNavigation(), ImageNavigation(slip=slip)
    model = GTMSM(WalledTranslation(5)).to(device)
    Automatic()(model, plain.sample(64, num_observed=1, num_predicted=127, seed=1, device=device))
    model.transition.slip.fill_(slip)
    model.transition.slip_scale.copy_(model.transition.displacement.detach().norm(dim=0).max())
    options = {} if hypotheses is None else {"training_hypotheses": hypotheses}
    guides = [DeadReckoning(model), *(kind(model, **options) for kind in TRACKING)]
    losses = {type(guide).__name__: Trace_ELBO()(model, guide) for guide in guides}
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(-3, turns):
        for name, loss in losses.items():
            if device != "cpu":
                torch.cuda.synchronize()
            began = time.perf_counter()
            episodes = data.sample(BATCH, num_observed=OBSERVED, num_predicted=PREDICTED, seed=abs(turn), device=device)
            optimizer.zero_grad()
            (loss(episodes) / (BATCH * PREDICTED)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[3:]) for name, values in seconds.items()}


def main() -> None:
    parser = step_parser(__doc__)
    parser.add_argument("--hypotheses", type=int, help="kept in training; by default as many as the guides keep")
    parser.add_argument("--slips", type=float, nargs="+", default=(0.0, 0.1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)  # as fit does after its first step
    seconds = {
        str(slip): measure(slip, arguments.hypotheses, arguments.turns, arguments.device) for slip in arguments.slips
    }
    ratio = {
        slip: {name: value / found["DeadReckoning"] for name, value in found.items()} for slip, found in seconds.items()
    }
    for slip, found in seconds.items():
        for name, value in found.items():
            print(f"slip {slip:4s} {name:18s} {1e3 * value:8.2f} ms {ratio[slip][name]:6.2f} x DeadReckoning")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"seconds": seconds, "ratio": ratio, "threads": arguments.threads}, file, indent=1)


if __name__ == "__main__":
    main()
