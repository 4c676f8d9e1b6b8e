"""Global localisation: where a guide finds an agent that was put anywhere into a world whose map is in memory."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError, check_positive, check_whole
from gtm_pyro.evaluation.alignment import best_affine, root_mean_square
from gtm_pyro.inference.capabilities import InfersPath
from gtm_pyro.inference.programs import drawing
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.poses.places import nearness
from gtm_pyro.storage.json import write_json
from gtm_pyro.storage.limits import check_episodes
from gtm_pyro.tasks.base import EpisodeData, Split, check_number

RECOVERY_STEPS = 32  # seen after a kidnap, the step of the kidnap included


class WeightedPositions(Protocol):
    """p(s_t | x_{1:t}, a_{1:t}) as particles: see ``gtm_pyro.guides.particles.Particles``."""

    @property
    def loc(self) -> Tensor:
        """``(batch, T, N, state_dim)``."""

    @property
    def log_weight(self) -> Tensor:
        """``(batch, T, N)``, normalised."""


class LocalisingGuide(Protocol):
    """What localisation asks of a guide."""

    memory: SpatialMemory | None
    anywhere: bool

    def filter(self, episodes: Episodes) -> WeightedPositions:
        """Where the agent may be at each step, given the frames up to it."""


class MappingModel(Protocol):
    """What localisation asks of a model."""

    def remember(self, s: Tensor, frames: Tensor) -> SpatialMemory: ...

    def path(self, actions: Tensor) -> TransitionPath: ...


@dataclass(frozen=True, eq=False)
class Localisation:
    """How well agents were found. All tensors are on the CPU, positions in pose units.

    :param metrics: the numbers that :func:`localise` describes; NaN where one is not defined.
    :param first: the walks that made the maps.
    :param second: the walks in the same worlds that were followed.
    :param kidnapped: the step, from 0, at which the agents of ``second`` were put elsewhere; None if they were not.
    :param particles: ``(batch, T, N, pose_dim)``.
    :param weight: of each particle, ``(batch, T, N)``; they sum to one.
    :param estimate: the position that is probably within half a cell of the true one, ``(batch, T, pose_dim)``.
    :param error: its distance from the true one, ``(batch, T)``.
    :param found: whether it is within half a cell, ``(batch, T)``.
    :param in_map: whether the true cell was visited on the first walk, ``(batch, T)``.
    """

    metrics: dict[str, float]
    first: Episodes
    second: Episodes
    kidnapped: int | None
    particles: Tensor
    weight: Tensor
    estimate: Tensor
    error: Tensor
    found: Tensor
    in_map: Tensor

    def by_step(self) -> dict[str, list[float]]:
        """For each step of the second walk, the share of episodes that are found: all, and those in the map."""
        found = self.found.double()
        mapped = (found * self.in_map).sum(0) / self.in_map.sum(0)
        return {"localised_by_step": found.mean(0).tolist(), "localised_in_map_by_step": mapped.tolist()}

    def save(self, path: str | os.PathLike[str], **more: Any) -> None:
        """Write metrics and shares by step as one JSON object, whole or not at all; NaN and infinity become null.

        :param more: what else goes into it, such as settings.
        :raises RunFolderError: the file cannot be written.
        """
        content = {**self.metrics, **more, **self.by_step(), "error_at_the_end": self.error[:, -1].tolist()}
        write_json(path, content)


def two_walks(
    data: EpisodeData,
    elsewhere: Any,
    *,
    num_episodes: int,
    memorised_steps: int,
    observed_steps: int,
    seed: int = 0,
    split: Split = "test",
    device: torch.device | str = "cpu",
) -> tuple[Episodes, Episodes]:
    """Two walks in each of some worlds: one to make a map, and another one to be found on it.

    :param data: of the first walk, which begins where the model expects it.
    :param elsewhere: of the second walk; the agent may start anywhere in it, and be moved.
    :raises ConfigError: a number is too small, or worlds of ``elsewhere`` cannot be walked again.
    :raises EpisodesError: ``data`` does not say which worlds it shows.
    """
    check_whole(1, num_episodes=num_episodes, memorised_steps=memorised_steps, observed_steps=observed_steps)
    check_can_revisit(type(elsewhere))
    check_episodes("num_episodes", num_episodes, memorised_steps + observed_steps, data)
    first = data.sample(
        num_episodes, num_observed=memorised_steps, num_predicted=0, seed=seed, split=split, device=device
    )
    if first.worlds is None:
        raise EpisodesError(f"data: expected episodes with their worlds, to walk there again, {type(data).__name__} "
                            "gives none")  # fmt: skip
    return first, elsewhere.revisit(first.worlds, num_observed=observed_steps, seed=seed)


def check_can_revisit(data: type) -> None:
    """Raise ConfigError unless data of this class can walk in known worlds again."""
    if not hasattr(data, "revisit"):
        raise ConfigError(
            f"data: localisation needs a second walk in the same world, and {data.__name__} has no revisit"
        )


@torch.no_grad()
def localise(
    model: MappingModel,
    guide: LocalisingGuide,
    first: Episodes,
    second: Episodes,
    *,
    mapper: InfersPath,
    kidnapped: int | None = None,
    within: float = 0.5,
    cell_size: float | None = None,
    seed: int = 0,
    chunk_size: int = 16,
) -> Localisation:
    """Make maps of worlds on a first walk, and find the agent on them on a second.

    The map is ``model.remember`` along a path drawn from the mapper; an affine map to true poses is fitted to all first
    walks and then used for the second ones. An agent is found at a step if the estimate, from the frames up to that
    step, is within ``within`` cells of the truth. The estimate is the centre of the disc of that radius, about a
    particle, that holds the most weight. A map holds what the first walk visited: an agent that is elsewhere is counted
    as well, and apart from it are the agents ``_in_map``, whose true cell is in the map at the step that is judged.

    * ``cell_size``: what counted as a cell, in pose units.
    * ``map_rmse``: of the first walks' positions, in pose units; ``map_cells``: cells in a map; ``steps_in_map``: share
      of the second walks' steps in a mapped cell.
    * ``localised``: share found at the last step before the kidnap, or at the last of all; ``localised_in_map``, of
      ``num_in_map``; ``believed``: mean weight in the estimate's disc, which a guide that knows what it does not know
      has equal to ``localised``; ``median_error``, in pose units; ``steps_to_localise``: median number of frames, after
      which the agent is found until the step that is judged.
    * ``recovered`` and so on: the same from the kidnap, whose frame counts, to the last step.
    * ``localised_blind``, ``recovered_blind``: the share that actions alone find, from where the model expects walks to
      begin: walls push different walks to the same place.

    :param guide: is lent the memory of each first walk, with ``anywhere``; its own are put back.
    :param first: with poses.
    :param second: in the same worlds, with poses; what the guide sees.
    :param mapper: gives the path of the first walk.
    :param kidnapped: the step of ``second``, from 0, at which the agents were put elsewhere.
    :param within: in cells.
    :param cell_size: in pose units; None: read off the poses of the first walks, see
        :func:`gtm_pyro.poses.places.nearness`.
    :param chunk_size: episodes at a time.
    :raises ConfigError: a guide without what localisation needs, or a number out of its range.
    :raises EpisodesError: episodes without poses, or another number of first than of second walks.
    """
    _check(guide, first, second, kidnapped)
    check_positive(within=check_number("within", within))
    walked, true = _cpu_poses(first), _cpu_poses(second)
    cells = nearness(walked, cell_size).cells
    starts = range(0, first.batch_size, chunk_size)
    with drawing(seed, first.device, model, guide, mapper):
        paths = [mapper.path(first[i : i + chunk_size]).sample().squeeze(-3) for i in starts]
        blind = model.path(second.actions).without_slips().sample().squeeze(-3).cpu()
        found = []
        for i, s in zip(starts, paths, strict=True):
            with _lent(guide, model.remember(s, first.frames[i : i + chunk_size])):
                found.append(guide.filter(second[i : i + chunk_size]))
    states = torch.cat(paths).cpu()
    align = best_affine(states, walked)
    particles = align(torch.cat([part.loc for part in found]).cpu())
    weight = torch.cat([part.log_weight for part in found]).cpu().exp()
    radius = within * cells.size
    estimate, believed = most_probable(particles, weight, radius)
    error = (estimate - true).norm(dim=-1)
    mapped, entered = (cells.number(poses, walked[:, 0]) for poses in (walked, true))
    in_map = (entered.unsqueeze(2) == mapped.unsqueeze(1)).all(-1).any(-1)
    judged = second.num_steps if kidnapped is None else kidnapped
    reached = ((align(blind) - true).norm(dim=-1) <= radius).double().mean(0)
    metrics: dict[str, float] = {
        "num_episodes": first.batch_size,
        "memorised_steps": first.num_steps,
        "observed_steps": judged,
        "cell_size": cells.size,
        "map_rmse": root_mean_square(align(states) - walked),
        "map_cells": sum(len(walk.unique(dim=0)) for walk in mapped) / len(mapped),
        "steps_in_map": float(in_map.double().mean()),
        **_judge(error[:, :judged], in_map[:, judged - 1], believed[:, judged - 1], radius, "localised"),
        "localised_blind": float(reached[judged - 1]),
    }
    if kidnapped is not None:
        metrics["steps_after_kidnap"] = second.num_steps - kidnapped
        metrics |= _judge(error[:, kidnapped:], in_map[:, -1], believed[:, -1], radius, "recovered")
        metrics["recovered_blind"] = float(reached[-1])
    walks = first.to("cpu"), second.to("cpu")
    return Localisation(metrics, *walks, kidnapped, particles, weight, estimate, error, error <= radius, in_map)


def most_probable(particles: Tensor, weight: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The disc about a particle that holds the most weight: the best guess if within ``radius`` is all that counts.

    :param particles: ``(batch, T, N, pose_dim)``.
    :param weight: ``(batch, T, N)``.
    :returns: the mean of the particles in it, ``(batch, T, pose_dim)``, and their weight, ``(batch, T)``.
    """
    centres, held = [], []
    for points, w in zip(particles.unbind(1), weight.unbind(1), strict=True):  # all pairs of one step at a time
        inside = (torch.cdist(points, points) <= radius).to(w) * w.unsqueeze(-2)
        mass, disc = inside.sum(-1).max(-1)
        share = inside[torch.arange(len(points)), disc] / mass.unsqueeze(-1)
        centres.append((share.unsqueeze(-1) * points).sum(-2))
        held.append(mass)
    return torch.stack(centres, 1), torch.stack(held, 1)


def frames_until_found(found: Tensor) -> Tensor:
    """How many frames it took until the agent was found for good; infinite where it is lost at the last.

    :param found: ``(batch, T)`` booleans.
    :returns: ``(batch,)``, from 1 on.
    """
    steps = torch.arange(1, found.shape[1] + 1)
    last_lost = torch.where(found, 0, steps).amax(1)
    return torch.where(found[:, -1], last_lost + 1.0, math.inf)


def _judge(error: Tensor, in_map: Tensor, believed: Tensor, radius: float, word: str) -> dict[str, float]:
    found = error <= radius
    last = found[:, -1].double()
    recovery = word == "recovered"
    suffix, time = ("_after_kidnap", "steps_to_recover") if recovery else ("", "steps_to_localise")
    return {
        word: float(last.mean()),
        f"{word}_in_map": float(last[in_map].mean()),
        f"num_in_map{suffix}": int(in_map.sum()),
        f"believed{suffix}": float(believed.double().mean()),
        f"median_error{suffix}": float(error[:, -1].median()),
        time: float(frames_until_found(found).median()),
    }


@contextmanager
def _lent(guide: LocalisingGuide, memory: SpatialMemory) -> Iterator[None]:
    own = guide.memory, guide.anywhere
    guide.memory, guide.anywhere = memory, True
    try:
        yield
    finally:
        guide.memory, guide.anywhere = own


def _check(guide: Any, first: Episodes, second: Episodes, kidnapped: int | None) -> None:
    check_can_localise(guide)
    for name, walk in (("first", first), ("second", second)):
        if walk.poses is None:
            raise EpisodesError(f"{name}: expected episodes with poses, to measure by, got none")
        if walk.has_heading:
            raise EpisodesError(f"{name}: expected poses that are positions alone, got {walk.pose_names}")
    if first.batch_size != second.batch_size:
        raise EpisodesError(
            f"second: expected {first.batch_size} walks, one in the world of each first walk, got {second.batch_size}"
        )
    if kidnapped is not None and not 1 <= kidnapped < second.num_steps:
        raise ConfigError(f"kidnapped: expected a step from 1 to {second.num_steps - 1}, or none, got {kidnapped}")


def check_can_localise(guide: Any) -> None:
    """Raise ConfigError unless a guide can be asked where on a map the agent is."""
    for name in ("filter", "memory", "anywhere"):
        if not hasattr(guide, name):
            raise ConfigError(
                f"guide: localisation needs {name}, which {type(guide).__name__} does not have; use ParticleGuide"
            )


def _cpu_poses(episodes: Episodes) -> Tensor:
    assert episodes.poses is not None
    return episodes.poses.cpu()
