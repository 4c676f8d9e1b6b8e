"""What standing still does to the paths of the guides, on a trained run of image navigation.

Run: ``python benchmarks/stays.py RUN [--stays 0 50 200] [--episodes 10] [--seed 0] [--json FILE]``. Held-out episodes
of the run's own data are cut at one random memorised step each, where the agent then stands still: its frame is
repeated, the action is "stay". Numbers are of the steps that were there before, so that they can be compared; keys of
the JSON:

``path_error``  of the memorised steps in cells, root mean square after the best affine fit, by guide and stays
``retrieval``   share of predicted steps at visited places that show the right memory, by guide and stays
"""

import argparse
import json
from pathlib import Path

import torch

from gtm_pyro.cli.inputs import trained
from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.alignment import best_affine
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.storage.run_folder import RunFolder

GUIDES = (DeadReckoning, LandmarkCorrected, Smoothing, ParticleGuide)


def standing(episodes: Episodes, stays: int, stay: int, seed: int) -> tuple[Episodes, torch.Tensor]:
    """Episodes with ``stays`` more steps, and where the old ones are in the new, ``(batch, T)``."""
    generator = torch.Generator().manual_seed(seed)
    tau, every = episodes.num_observed, torch.arange(len(episodes.frames)).unsqueeze(-1)
    at = torch.randint(1, tau - 1, (len(every), 1), generator=generator)
    time = torch.arange(episodes.num_steps + stays)
    order = torch.where(time <= at, time, torch.where(time <= at + stays, at, time - stays))
    actions = episodes.actions[every, order]
    actions[(time > at) & (time <= at + stays)] = torch.eye(actions.shape[-1])[stay]
    old = torch.arange(episodes.num_steps)
    longer = Episodes(episodes.frames[every, order], actions, tau + stays, episodes.poses[every, order])
    return longer, torch.where(old <= at, old, old + stays)


def measure(run: Path, stays: list[int], number: int, seed: int) -> dict[str, dict[str, dict[int, float]]]:
    experiment, _ = trained(RunFolder(run), {})
    model, data, asked = experiment.model, experiment.data, experiment.evaluation
    steps = {"num_observed": asked.num_observed, "num_predicted": asked.num_predicted}
    episodes = data.sample(number, **steps, seed=seed, split="test")
    found: dict[str, dict[str, dict[int, float]]] = {"path_error": {}, "retrieval": {}}
    for kind in GUIDES:
        guide = kind(model).eval()
        errors, retrieval = (found[name].setdefault(kind.__name__, {}) for name in found)
        for count in stays:
            longer, kept = standing(episodes, count, data.action_names.index("stay"), seed)
            torch.manual_seed(seed)
            with torch.no_grad():
                path = guide.path(longer).sample().squeeze(1)
            s = path.gather(1, kept.unsqueeze(-1).expand(-1, -1, path.shape[-1]))[:, : episodes.num_observed]
            true = episodes.poses[:, : episodes.num_observed]
            errors[count] = float((best_affine(s, true)(s) - true).square().sum(-1).mean().sqrt())
            metrics = evaluate(model, guide, longer, seed=seed, cell_size=1.0, iwae_particles=0).metrics
            retrieval[count] = metrics["retrieval_accuracy"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stays", type=int, nargs="+", default=[0, 50, 200])
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(arguments.run, arguments.stays, arguments.episodes, arguments.seed)
    for name, by_guide in found.items():
        print(f"{name:20s}", *(f"{count:>8d} stays" for count in arguments.stays))
        for guide, values in by_guide.items():
            print(f"{guide:20s}", *(f"{value:14.4f}" for value in values.values()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
