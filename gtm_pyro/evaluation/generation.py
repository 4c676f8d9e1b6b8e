"""Long rollouts of a trained model: remember the first steps of an episode, imagine the rest from actions alone."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError, check_whole
from gtm_pyro.evaluation.views import visited_and_retrieved
from gtm_pyro.inference.capabilities import Capability, Imagined, Program, capabilities, check_can
from gtm_pyro.inference.programs import drawing
from gtm_pyro.poses.places import nearness
from gtm_pyro.storage.atomic import write_arrays
from gtm_pyro.storage.limits import check_episodes, check_memory, check_seed
from gtm_pyro.tasks.base import EpisodeData, Split

Pixels = Literal["uint8", "float32"]
# actions from which momentum follows
_PAST = 1000


@dataclass(frozen=True, eq=False)
class Generated:
    """One imagined episode as arrays: ``tau`` remembered steps, then ``steps`` imagined ones.

    :param frames: E[x | z] with z the mean of the memory entry shown, (steps, C, H, W), uint8 (0 to 255) or float32.
    :param actions: (steps, action_dim).
    :param observed_frames: what was remembered, (tau, C, H, W), of the type of the frames.
    :param observed_actions: (tau, action_dim).
    :param states: (steps, state_dim); None of a model that imagines none, as are the next two.
    :param entries: number of the memory entry shown, from 0 to tau - 1; -1 for none, (steps,).
    :param observed_states: inferred from the remembered steps, (tau, state_dim).
    :param observed_poses: true ones, (tau, pose_dim); None where the data has none.
    :param true_frames: what a walker in the true world would see, (steps, C, H, W); None where the data cannot tell (it
        can if it has a method ``walk``).
    :param poses: where that walker would stand, (steps, pose_dim); None where the data cannot tell.
    :param visited: whether the agent was within half a cell while remembering, (steps,); None without poses.
    :param retrieved: whether the entry shown was written there, (steps,); None without poses or entries.
    """

    frames: np.ndarray
    actions: np.ndarray
    observed_frames: np.ndarray
    observed_actions: np.ndarray
    states: np.ndarray | None = None
    entries: np.ndarray | None = None
    observed_states: np.ndarray | None = None
    observed_poses: np.ndarray | None = None
    true_frames: np.ndarray | None = None
    poses: np.ndarray | None = None
    visited: np.ndarray | None = None
    retrieved: np.ndarray | None = None

    @property
    def retrieval_accuracy(self) -> float | None:
        """Share of visited steps whose entry was written there; None if there is none to judge."""
        if self.visited is None or self.retrieved is None or not self.visited.any():
            return None
        return float(self.retrieved[self.visited].mean())

    @property
    def visited_share(self) -> float | None:
        return None if self.visited is None else float(self.visited.mean())

    @property
    def mse_visited(self) -> float | None:
        """Squared error of the frames of visited steps, pixels in [0, 1]."""
        if self.visited is None or self.true_frames is None or not self.visited.any():
            return None
        whole = 255.0 if self.frames.dtype == np.uint8 else 1.0
        total = 0.0
        chosen = np.flatnonzero(self.visited)
        for part in np.array_split(chosen, max(1, len(chosen) // 1000)):
            error = self.frames[part].astype(np.float32) - self.true_frames[part]
            total += float(np.square(error / whole).mean()) * len(part)
        return total / len(chosen)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one NPZ file with an array for each field that is known, whole or not at all.

        :raises RunFolderError: it cannot be written; whatever stood there stays as it was.
        """
        write_arrays(path, {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None})


@torch.no_grad()
def generate(
    model: Program,
    guide: Program,
    data: EpisodeData,
    *,
    steps: int,
    num_observed: int = 256,
    actions: Tensor | None = None,
    seed: int = 0,
    split: Split = "test",
    pixels: Pixels = "uint8",
    chunk_size: int = 1000,
    device: torch.device | str = "cpu",
) -> Generated:
    """Remember the first steps of an episode and imagine ``steps`` more.

    With a path and a memory they are imagined a chunk at a time: but for the result, the memory this takes does not
    grow with ``steps``. A model with a ``predict`` of its own is asked for all of them at once.

    :param steps: imagined ones.
    :param num_observed: remembered ones.
    :param actions: after the remembered steps, (steps, action_dim). By default a random walk: ``data.random_actions``
        where the data has it, otherwise the actions of other episodes, end to end.
    :param seed: of the episode, the random walk and the noise of the states.
    :param split: where the episode is from.
    :param pixels: type of the frames, uint8 (0 to 255) or float32.
    :param chunk_size: imagined steps at a time; the noise depends on it.
    :param device: where to compute.
    :raises ConfigError: a number out of its range, or one that needs more memory than there is; a pair that cannot
        imagine.
    :raises EpisodesError: actions of another shape, or a value that is not finite.
    """
    check_whole(1, steps=steps, num_observed=num_observed, chunk_size=chunk_size)
    check_can(Capability.IMAGINES, model, guide, "generation")
    if pixels not in get_args(Pixels):
        raise ConfigError(f"pixels: expected {' or '.join(get_args(Pixels))}, got {pixels!r}")
    check_seed(seed=seed)
    check_episodes("num_observed", 1, num_observed, data)
    # the frames, and the true ones where they are known
    shown = math.prod(data.frame_shape) * (1 if pixels == "uint8" else 4) * (2 if hasattr(data, "walk") else 1)
    check_memory("steps", steps, shown + 4 * data.action_dim)
    episode = data.sample(1, num_observed=num_observed, num_predicted=1, seed=seed, split=split, device=device).observed
    if actions is None:
        actions = _random_actions(data, episode, steps, seed, split)
    actions = _check_actions(actions, steps, data.action_dim).to(episode.frames)
    known = hasattr(data, "walk") and episode.poses is not None and episode.worlds is not None
    walker = _Walker(data, episode) if known else None
    parts: list[dict[str, np.ndarray]] = []
    with drawing(seed, episode.device, model, guide):
        path, chunks = _imagined(model, guide, episode, actions.unsqueeze(0), chunk_size)
        for taken, imagined in chunks:
            part = {"frames": _to_pixels(imagined.frames[0], pixels)}
            for name in ("states", "entries"):
                tensor = getattr(imagined, name)
                if tensor is not None:
                    part[name] = tensor[0].cpu().numpy()
            if walker:
                part |= walker.step(taken, imagined.entries, pixels)
            parts.append(part)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Generated(
        actions=actions.cpu().numpy(),
        observed_frames=_to_pixels(episode.frames[0], pixels),
        observed_states=None if path is None else path[0].cpu().numpy(),
        observed_actions=episode.actions[0].cpu().numpy(),
        observed_poses=None if episode.poses is None else episode.poses[0].cpu().numpy(),
        **arrays,
    )


def _imagined(
    model: Any, guide: Any, episode: Episodes, actions: Tensor, chunk_size: int
) -> tuple[Tensor | None, Iterator[tuple[Tensor, Imagined]]]:
    """States of the remembered steps, and of one chunk of actions after another what they lead to."""
    path = guide.path(episode).sample().squeeze(-3) if Capability.PATH in capabilities(model, guide) else None
    if path is None or hasattr(model, "predict"):
        return path, iter([(actions, model.predict(guide, episode, actions))])

    def chunks() -> Iterator[tuple[Tensor, Imagined]]:
        memory, start, past = model.remember(path, episode.frames), path[:, -1], episode.actions
        for chunk in actions.split(chunk_size, 1):
            rollout = model.imagine(start, memory, chunk, past=past)
            # friction forgets what was longer ago
            start, past = rollout.states[:, -1], torch.cat([past, chunk], 1)[:, -_PAST:]
            yield chunk, Imagined(rollout.frames, rollout.states, rollout.entries)

    return path, chunks()


class _Walker:
    """The true world: follows the same actions, and says what is seen and whether the right entry was retrieved."""

    def __init__(self, data: Any, episode: Episodes) -> None:
        assert episode.poses is not None
        self.data, self.worlds = data, episode.worlds
        self.cell_size = nearness(episode.poses, getattr(data, "cell_size", None)).cells.size
        self.observed = episode.poses
        self.pose = episode.poses[:, -1]

    def step(self, actions: Tensor, entries: Tensor | None, pixels: Pixels) -> dict[str, np.ndarray]:
        walk = self.data.walk(actions, self.worlds, start=self.pose)
        self.pose = walk.poses[:, -1]
        shown = torch.full(actions.shape[:2], -1, device=actions.device) if entries is None else entries
        visited, retrieved = visited_and_retrieved(self.observed, walk.poses, shown, self.cell_size)
        told = {
            "true_frames": _to_pixels(walk.frames[0], pixels),
            "poses": walk.poses[0].cpu().numpy(),
            "visited": visited[0].cpu().numpy(),
        }
        return told if entries is None else told | {"retrieved": retrieved[0].cpu().numpy()}


def _random_actions(data: Any, episode: Episodes, steps: int, seed: int, split: Split) -> Tensor:
    if hasattr(data, "random_actions"):
        start = None if episode.poses is None else episode.poses[:, -1]
        actions: Tensor = data.random_actions(1, steps, seed=seed, start=start)[0]
        return actions
    # the first action of an episode led to where it starts, so it is left out
    length = episode.num_steps
    count = -(-steps // length)
    others = data.sample(count, num_observed=1, num_predicted=length, seed=seed + 1, split=split)
    return others.predicted_actions.flatten(0, 1)[:steps]


def _check_actions(actions: Tensor, steps: int, action_dim: int) -> Tensor:
    if actions.dim() != 2 or actions.shape[1] != action_dim or len(actions) < steps:
        raise EpisodesError(f"actions: expected ({steps}, {action_dim}), got {tuple(actions.shape)}")
    bad = (~actions.isfinite()).nonzero()
    if len(bad):
        raise EpisodesError(f"actions{bad[0].tolist()}: expected a finite value, got {actions[tuple(bad[0])]:g}")
    return actions[:steps]


def _to_pixels(frames: Tensor, pixels: Pixels) -> np.ndarray:
    if pixels == "uint8":
        frames = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    return frames.cpu().numpy() if pixels == "uint8" else frames.float().cpu().numpy()
