"""What a memory knows of a maze's layout, and what the state of a recurrent network knows.

Run: ``python benchmarks/maze_layout.py RUN [--seed 0] [--json FILE]``, RUN of ``memory-maze-9x9``, whose data are
shards with ``layouts``. A probe is told a place in the frame in which the agent started, and says whether it is in a
wall. Probes are taught and tested on the cells, outer walls included, that were seen until then: those that rays over
the field of view meet from the true poses, up to the first wall. Training: the run's training episodes after 50, 100
and 150 steps; test: its test episodes after 150.

*memory*: of the entries, states along the inferred path and the encoder's latents, those 16 that look at the place
best. A network reads each with the place as seen from its state; the answers are averaged by attention. States are in
units of the model; how long a cell is in these is fitted once, to training episodes.
*gru*: a network reads the state of a GRU and the place. The GRU (256) reads the same encoder's latents and the actions;
it was trained on the training episodes to predict latents 1, 4 and 16 steps ahead, given the actions in between.
*place*: a network that reads the place alone.

Keys of the JSON: for each of them ``accuracy`` and ``balanced_accuracy``, the mean of that in walls and in free cells;
``walls``, the share of walls among seen cells; ``seen``, the share of cells that were seen.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.cli.inputs import trained
from gtm_pyro.episodes import Episodes
from gtm_pyro.poses.planar import relative_poses, turned, turned_back
from gtm_pyro.storage.run_folder import RunFolder

STEPS, ENTRIES, AHEAD = (50, 100, 150), 16, (1, 4, 16)
FIELD_OF_VIEW, FARTHEST = math.radians(80), 12.0
PLACES = 48  # of an episode, in a training step


class Walks(NamedTuple):
    """Whole episodes: latents ``(batch, T, D)``, actions, inferred states ``(batch, T, 3)`` in cells; cells' centres
    as seen from where the agent started, ``(batch, cells, 2)``; whether each is a wall, and when it is seen first."""

    z: Tensor
    actions: Tensor
    states: Tensor
    places: Tensor
    wall: Tensor
    seen_at: Tensor

    def pick(self, rows: Tensor) -> "Walks":
        return Walks(*(part[rows] for part in self))


def first_seen(layout: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """The first step in which each cell, outer walls included, is seen: ``(side + 2, side + 2)``, T for never.

    :param layout: free cells, indexed [y, x].
    :param poses: x, y in cells and heading, ``(T, 3)``.
    """
    free = np.pad(layout, 1).astype(bool)
    at = np.full(free.shape, len(poses))
    angle = poses[:, 2:] + np.linspace(-0.5, 0.5, 33) * FIELD_OF_VIEW
    going, step = np.ones_like(angle, dtype=bool), np.arange(len(poses))[:, None]
    for far in np.arange(0, FARTHEST, 0.1):
        x = np.floor(poses[:, :1] + far * np.cos(angle)).astype(int) + 1
        y = np.floor(poses[:, 1:2] + far * np.sin(angle)).astype(int) + 1
        x, y = x.clip(0, free.shape[1] - 1), y.clip(0, free.shape[0] - 1)
        np.minimum.at(at, (y[going], x[going]), np.broadcast_to(step, x.shape)[going])
        going &= free[y, x]
    return at


class Memory(nn.Module):
    """Whether places are in a wall, read off the entries that look at them."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(latent + 6, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2))
        self.answer, self.weight = nn.Linear(128, 1), nn.Linear(128, 1)

    def forward(self, walks: Walks, places: Tensor, tau: int) -> Tensor:
        states = walks.states[:, None, :tau]
        seen = turned_back(places.unsqueeze(2) - states[..., :2], states[..., 2])  # (batch, places, tau, 2)
        far = seen.norm(dim=-1)
        aside = torch.atan2(seen[..., 1], seen[..., 0]).abs()
        worst = far + 4 * (aside - FIELD_OF_VIEW / 2).clamp_min(0)
        near = worst.topk(ENTRIES, largest=False).indices
        z = walks.z[torch.arange(len(near))[:, None, None], near]
        ahead, left = (x.gather(-1, near) for x in seen.unbind(-1))
        distance = (ahead.square() + left.square() + 1e-3).sqrt()
        where = torch.stack([ahead, left, distance, ahead / distance, left / distance, left / (ahead.abs() + 0.3)], -1)
        hidden = self.read(torch.cat([z, where], -1))
        return (self.weight(hidden).softmax(2) * self.answer(hidden)).sum((2, 3))


class Recurrent(nn.Module):
    """A GRU over latents and actions, and what it predicts of later latents."""

    def __init__(self, latent: int, actions: int, size: int = 256) -> None:
        super().__init__()
        self.gru = nn.GRU(latent + actions, size, batch_first=True)
        self.ahead = nn.ModuleList(
            nn.Sequential(nn.Linear(size + k * actions, 256), nn.LeakyReLU(0.2), nn.Linear(256, latent)) for k in AHEAD
        )

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        states: Tensor = self.gru(torch.cat([z, actions], -1))[0]
        return states

    def loss(self, z: Tensor, actions: Tensor) -> Tensor:
        h, total = self(z, actions), z.new_zeros(())
        for k, network in zip(AHEAD, self.ahead, strict=True):
            given = actions[:, 1:].unfold(1, k, 1).flatten(2)  # actions t + 1 to t + k
            total = total + F.mse_loss(network(torch.cat([h[:, :-k], given], -1)), z[:, k:])
        return total


class OfState(nn.Module):
    """Whether places are in a wall, from the places and, if there is one, a vector that knows the episode."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.network = nn.Sequential(
            nn.Linear(size + 26, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
        )

    def forward(self, state: Tensor, places: Tensor) -> Tensor:
        waves = places.unsqueeze(-1) * places.new_tensor([0.2, 0.4, 0.8, 1.6, 3.2, 0.1])
        told = torch.cat([places / 5, waves.sin().flatten(-2), waves.cos().flatten(-2)], -1)
        known = state[:, None, : self.size].expand(-1, told.shape[1], -1)
        answer: Tensor = self.network(torch.cat([known, told], -1)).squeeze(-1)
        return answer


def train(network: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-5)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(generator).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        decay.step()


def probed(answer: Callable[[Walks, Tensor, int], Tensor], walks: Walks) -> Callable[[torch.Generator], Tensor]:
    """The loss of a probe, on random places that were seen."""

    def loss(generator: torch.Generator) -> Tensor:
        some = walks.pick(torch.randint(len(walks.z), (8,), generator=generator))
        tau = STEPS[int(torch.randint(len(STEPS), (1,), generator=generator))]
        chosen = (some.seen_at < tau).float().multinomial(PLACES, True, generator=generator)
        places = some.places.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2))
        return F.binary_cross_entropy_with_logits(answer(some, places, tau), some.wall.gather(1, chosen).float())

    return loss


@torch.no_grad()
def scores(answer: Callable[[Walks, Tensor, int], Tensor], walks: Walks) -> dict[str, float]:
    tau = STEPS[-1]
    said, seen = answer(walks, walks.places, tau) > 0, walks.seen_at < tau
    right = said == walks.wall
    parts = [float(right[seen & kind].float().mean()) for kind in (walks.wall, ~walks.wall)]
    return {"accuracy": float(right[seen].float().mean()), "balanced_accuracy": sum(parts) / 2}


@torch.no_grad()
def read_walks(run: Path) -> tuple[Walks, Walks]:
    """Training and test episodes of a run."""
    experiment, _ = trained(RunFolder(run), {})
    model, guide, folder = experiment.model.eval(), experiment.guide.eval(), Path(experiment.data.directory)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("frames", "actions", "poses", "layouts")}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as shard:
            layouts = shard["layouts"]
            for name, found in parts.items():
                array = shard[name]
                found.append(layouts if name == "layouts" else array.reshape(len(layouts), -1, *array.shape[2:]))
    frames, actions, poses, layouts = (np.concatenate(part) for part in parts.values())
    whole = Episodes(
        torch.from_numpy(frames),
        torch.from_numpy(actions.astype(np.int64)),
        STEPS[-1],
        torch.from_numpy(poses),
        pose_names=experiment.data.pose_names,
    )
    z = torch.stack([model.encoder.statistics(episode)["loc"] for episode in whole.frames])
    states = guide.path(whole).sample()[:, 0]
    true = relative_poses(whole.poses)
    seen = [first_seen(layout, walk) for layout, walk in zip(layouts, poses, strict=True)]
    cells = torch.stack(torch.meshgrid(torch.arange(-1.0, 10), torch.arange(-1.0, 10), indexing="xy"), -1).flatten(0, 1)
    places = turned_back(cells + 0.5 - whole.poses[:, :1, :2], whole.poses[:, :1, 2])
    walls = torch.from_numpy(np.pad(layouts, ((0, 0), (1, 1), (1, 1))) == 0).flatten(1)
    num_train = len(experiment.data.lengths["train"])
    # lengths and directions of moves, in cells over units of the model
    a, b = (torch.view_as_complex(x[:num_train, :, :2].double().contiguous()).flatten() for x in (states, true))
    fit = (a.conj() * b).sum() / a.abs().square().sum()
    moved = turned(states[..., :2] * float(fit.abs()), torch.full_like(states[..., 2], float(fit.angle())))
    heading = states[..., 2:] + float(fit.angle())
    actions = F.one_hot(torch.from_numpy(actions.astype(np.int64))).float()
    seen_at = torch.from_numpy(np.stack(seen)).flatten(1)
    walks = Walks(z, actions, torch.cat([moved, heading], -1), places, walls, seen_at)
    every = torch.arange(len(z))
    return walks.pick(every[:num_train]), walks.pick(every[num_train:])


def measure(run: Path, seed: int) -> dict[str, object]:
    training, test = read_walks(run)
    torch.manual_seed(seed)
    mean, scale = training.z.mean((0, 1)), training.z.std((0, 1)).clamp_min(1e-3)
    training, test = (walks._replace(z=(walks.z - mean) / scale) for walks in (training, test))
    latent, actions = training.z.shape[-1], training.actions.shape[-1]
    memory = Memory(latent)
    train(memory, probed(memory, training), 1000)
    recurrent = Recurrent(latent, actions)

    def predicted(generator: torch.Generator) -> Tensor:
        some = training.pick(torch.randint(len(training.z), (16,), generator=generator))
        return recurrent.loss(some.z, some.actions)

    train(recurrent, predicted, 400)
    with torch.no_grad():
        known = [walks._replace(states=recurrent(walks.z, walks.actions)) for walks in (training, test)]
    of_state, of_place = OfState(recurrent.gru.hidden_size), OfState(0)

    def by_state(walks: Walks, places: Tensor, tau: int, probe: OfState = of_state) -> Tensor:
        answer: Tensor = probe(walks.states[:, tau - 1], places)
        return answer

    def by_place(walks: Walks, places: Tensor, tau: int) -> Tensor:
        return by_state(walks, places, tau, of_place)

    train(of_state, probed(by_state, known[0]), 1500)
    train(of_place, probed(by_place, known[0]), 1500)
    seen = test.seen_at < STEPS[-1]
    return {
        "memory": scores(memory, test),
        "gru": scores(by_state, known[1]),
        "place": scores(by_place, known[1]),
        "walls": float(test.wall[seen].float().mean()),
        "seen": float(seen.float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.run, arguments.seed)
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
