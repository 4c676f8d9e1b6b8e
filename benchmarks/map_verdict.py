"""How ``gtm_pyro.evaluation.map_verdict.doubt`` tells models that have the map from those that lost it.

Run: ``python benchmarks/map_verdict.py RUN [--seeds 3]``, on a run of image navigation that has found it. Printed is
``regret`` over ``regret_by_chance``, largest and smallest over seeds and lengths of episodes, and how often doubt is
cast: with the run's own transition, and with M drawn anew, M a hundred times too small, and walls that are not there.
"""

import argparse
import copy
from pathlib import Path

import torch

from gtm_pyro.cli.inputs import trained
from gtm_pyro.evaluation.map_verdict import doubt, map_measures
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.storage.run_folder import RunFolder

LENGTHS = ((8, 8), (16, 16), (32, 32), (16, 64), (64, 64), (256, 64))


@torch.no_grad()
def spoil(transition: torch.nn.Module, how: str) -> None:
    if how == "M drawn anew":
        transition.displacement.normal_(0, 0.3)
    elif how == "M a hundredth":
        transition.displacement.mul_(0.01)
    elif how == "no walls":
        transition.open_bias = 20.0
        transition._open_gate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    experiment, _ = trained(RunFolder(arguments.run), {})
    for how in ("as trained", "M drawn anew", "M a hundredth", "no walls"):
        shares, doubts, silent, number = [], 0, 0, 0
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            model = copy.deepcopy(experiment.model)
            spoil(model.transition, how)
            for tau, ahead in LENGTHS:
                episodes = experiment.data.sample(4, num_observed=tau, num_predicted=ahead, seed=seed, split="test")
                found = map_measures(model, DeadReckoning(model), episodes, seed)
                share = found["regret"] / found["regret_by_chance"]
                number, doubts = number + 1, doubts + (doubt(found) is not None)
                silent += share != share
                shares += [share] if share == share else []
        print(f"{how:16s} {min(shares):.2g} to {max(shares):.2g}; doubt in {doubts} of {number}, "
              f"too few familiar steps in {silent}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
