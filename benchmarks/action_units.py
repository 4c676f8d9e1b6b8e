"""What the unit of actions does to the starting values: retrieval after loop closure alone, actions times a factor.

Run: ``python benchmarks/action_units.py [--seed 0]``. Retrieval is the share of predicted steps at visited places whose
nearest memorised state is of the same place; 64 walks of 256 + 32 steps to start from, 16 held-out ones of 256 + 256.
"""

import argparse

import torch

from gtm_pyro import ImageNavigation, WalledTranslation
from gtm_pyro.initialisation import LoopClosure

FACTORS = (0.001, 0.01, 0.1, 1.0, 7.5, 100.0, 1000.0, (1.0, 0.01, 1.0, 30.0, 2.0))


@torch.no_grad()
def retrieval(transition: WalledTranslation, actions: torch.Tensor, poses: torch.Tensor, tau: int) -> float:
    batch, steps = actions.shape[:2]
    s = transition.rollout(torch.zeros(batch, 2), actions, 1e-3 * torch.randn(batch, steps, 2))
    nearest = torch.cdist(s[:, tau:], s[:, :tau]).argmin(-1, keepdim=True)
    cells = poses.round().long()
    same = (cells[:, tau:, None] == cells[:, None, :tau]).all(-1)
    return float(same.gather(-1, nearest).squeeze(-1)[same.any(-1)].float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = ImageNavigation(cuts_per_image=16)
    seen = data.sample(64, num_observed=256, num_predicted=32, seed=arguments.seed + 1)
    new = data.sample(16, num_observed=256, num_predicted=256, seed=arguments.seed + 2, split="test")
    for factor in FACTORS:
        torch.manual_seed(arguments.seed)
        transition, scale = WalledTranslation(5), torch.tensor(factor)
        LoopClosure().start(transition, seen.frames, seen.actions * scale, num_observed=256)
        print(f"{factor!s:32s} {retrieval(transition, new.actions * scale, new.poses, 256):.3f}", flush=True)


if __name__ == "__main__":
    main()
