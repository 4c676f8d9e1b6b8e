"""What a model does on held-out episodes, in numbers. Pixels are in [0, 1]; steps and poses of held-out episodes."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.evaluation.alignment import Alignment
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.evaluation.frame_errors import frame_measures, squared_error
from gtm_pyro.evaluation.map_verdict import Regrets, regrets
from gtm_pyro.evaluation.measures import measured
from gtm_pyro.evaluation.placement import compared, localised
from gtm_pyro.inference.capabilities import Capability, Program, capabilities, has_heading, predictions
from gtm_pyro.inference.programs import drawing
from gtm_pyro.storage.atomic import write_arrays
from gtm_pyro.storage.json import write_json


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model did on held-out episodes. All tensors are on the CPU; what it cannot do, or poses do not tell, is
    None.

    :param metrics: the numbers that were measured: see ``gtm_pyro.evaluation.measures``.
    :param by_horizon: arrays ``(num_predicted,)``, entry h-1 for step tau + h; NaN where no step is of the kind.
    :param episodes: what was evaluated on.
    :param states: inferred, then imagined: ``(batch, T, state_dim)``.
    :param predicted_frames: what the model expects to see, ``(batch, num_predicted, C, H, W)``.
    :param reconstructed_frames: E[x | z], z the encoder's mean for the true frame; same shape.
    :param entries: number of the memory entry shown, -1 for none, ``(batch, num_predicted)``.
    :param visited: whether the agent was within half a cell while memorising, ``(batch, num_predicted)``.
    :param retrieved: whether the entry shown was written there, same shape.
    :param poses: true ones, ``(batch, T, pose_dim)``; of agents with a heading, as seen from where they start.
    :param affine: states to positions.
    :param similarity: states to positions; None also where their dimensions differ.
    :param heading: whether the last number of a state is a heading.
    :param kl_steps: KL of posterior and prior at each step, memorised ones too, in nats: ``(batch, T)``.
    """

    metrics: dict[str, float]
    by_horizon: dict[str, np.ndarray]
    episodes: Episodes
    states: Tensor | None
    predicted_frames: Tensor | None
    reconstructed_frames: Tensor | None
    entries: Tensor | None
    visited: Tensor | None
    retrieved: Tensor | None
    poses: Tensor | None
    affine: Alignment | None
    similarity: Alignment | None
    heading: bool = False
    kl_steps: Tensor | None = None

    @property
    def aligned_states(self) -> Tensor | None:
        """States in pose units by the affine fit, ``(batch, T, pose_dim)``; of agents with a heading, positions."""
        if self.affine is None or self.states is None:
            return None
        return self.affine(self.states[..., : self.affine.matrix.shape[-1]])

    @property
    def view_tolerance(self) -> tuple[float, float]:
        """How near counted as the same view, in pose units and in radians; NaN without headings."""
        return self.metrics.get("view_distance", math.nan), self.metrics.get("view_angle", math.nan)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the metrics as one flat JSON object, whole or not at all.

        :raises RunFolderError: the file cannot be written.
        """
        write_json(path, measured(self.metrics))

    def save_by_horizon(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays by horizon as an NPZ file, whole or not at all.

        :raises RunFolderError: the file cannot be written.
        """
        write_arrays(path, self.by_horizon)


@torch.no_grad()
def evaluate(
    model: Program,
    guide: Program,
    episodes: Episodes,
    *,
    seed: int = 0,
    cell_size: float | None = None,
    view_tolerance: tuple[float, float] | None = None,
    iwae_particles: int = 8,
    iwae_episodes: int = 8,
    chunk_size: int = 16,
) -> Evaluation:
    """Infer what the first tau steps tell, predict the others from actions alone, and measure.

    The guide sees the first tau steps only, except for the two bounds, which score the predicted frames. Neither
    the caller's random state nor the parameter store is changed.

    What is measured follows from what the episodes tell and from what model and guide can do, see
    :mod:`gtm_pyro.inference.capabilities`; ``gtm_pyro.evaluation.measures.MEASURES`` describes each number, and what it
    needs. Bounds, and the errors of showing memorised frames, are known of every pair of Pyro programs.

    A step is visited where the agent was within half a ``cell_size`` of it while memorising. With headings
    (``pose_names``) a step is visited where its view was memorised, at most ``view_tolerance`` away. ``iwae`` is
    ``elbo`` and the mean gain of ``iwae_particles`` over one particle on the first ``iwae_episodes`` episodes.

    :param seed: of all draws.
    :param cell_size: in pose units; None: read off the poses, see :func:`gtm_pyro.poses.places.nearness`.
    :param view_tolerance: in pose units and in radians; None: read off the poses.
    :param iwae_particles: 0 leaves ``iwae`` out.
    :param chunk_size: episodes at a time; the draws depend on it.
    :raises EpisodesError: episodes without a predicted step, or with a value that is not finite.
    :raises ConfigError: a size that is not over 0.
    """
    episodes.check_finite()
    if not episodes.num_predicted:
        raise EpisodesError(
            f"num_observed: expected fewer than the {episodes.num_steps} steps, got {episodes.num_observed}"
        )
    with drawing(seed, episodes.device, model, guide):
        starts = range(0, episodes.batch_size, chunk_size)
        parts = [_run(model, guide, episodes[i : i + chunk_size]) for i in starts]
        bounds = [log_weights(model, guide, episodes[i : i + chunk_size]) for i in starts]
        few = log_weights(model, guide, episodes[:iwae_episodes], iwae_particles) if iwae_particles else None
    joined: list[Any] = [_joined(tensors) for tensors in zip(*parts, strict=True)]
    ran = _Run(*joined)
    episodes, heading = episodes.to("cpu"), has_heading(model)
    places = compared(episodes, ran.entries, cell_size, view_tolerance)
    frames = frame_measures(episodes, ran.frames, ran.sampled, ran.reconstructed, places)
    found = localised(ran.path, ran.states, places.poses, episodes, heading, cell_size)
    by_horizon = frames.by_horizon | found.by_horizon
    metrics = frames.metrics | places.sizes | found.metrics | _familiar(ran, episodes)
    elbo = torch.cat([bound.total[0] for bound in bounds]).mean().item() / episodes.num_predicted
    kl = torch.cat([bound.kl[0] for bound in bounds]).mean().item() / episodes.num_predicted
    metrics |= {"elbo": elbo, "kl_per_step": kl}
    if few is not None:
        metrics["iwae"] = elbo + few.iwae_gain().mean().item() / episodes.num_predicted
    metrics |= {
        "num_episodes": episodes.batch_size,
        "num_observed": episodes.num_observed,
        "num_predicted": episodes.num_predicted,
    }
    return Evaluation(
        metrics=measured(metrics),
        by_horizon={name: array for name, array in by_horizon.items() if np.isfinite(array).any()},
        episodes=episodes,
        states=ran.states,
        predicted_frames=ran.frames,
        reconstructed_frames=ran.reconstructed,
        entries=ran.entries,
        visited=places.visited,
        retrieved=places.retrieved,
        poses=places.poses,
        affine=found.affine,
        similarity=found.similarity,
        heading=heading and ran.states is not None,
        kl_steps=ran.kl_steps,
    )


class _Run(NamedTuple):
    """What a pair infers and imagines; None what it cannot."""

    path: Tensor | None
    states: Tensor | None
    frames: Tensor | None
    sampled: Tensor | None
    entries: Tensor | None
    reconstructed: Tensor | None
    kl_steps: Tensor | None
    regret: Tensor
    by_chance: Tensor
    unlike: Tensor

    @property
    def regrets(self) -> Regrets:
        return Regrets(self.regret, self.by_chance, self.unlike)


def _run(model: Any, guide: Any, episodes: Episodes) -> _Run:
    frames, able = episodes.predicted_frames, capabilities(model, guide)
    path, expected, sampled = predictions(model, guide, episodes.observed, episodes.predicted_actions)
    reconstructed = None
    if hasattr(model, "reconstruct"):
        reconstructed = model.reconstruct(episodes)
    elif Capability.RECONSTRUCTS in able:
        reconstructed = model.decoder.frames(model.encoder.statistics(frames)["loc"])
    states = None
    if path is not None and expected is not None and expected.states is not None:
        states = torch.cat([path, expected.states], 1)
    return _Run(
        path,
        states,
        None if expected is None else expected.frames,
        None if sampled is None else squared_error(sampled.frames, frames),
        None if expected is None else expected.entries,
        reconstructed,
        guide.kl_steps(episodes) if Capability.KL_STEPS in able else None,
        *regrets(model, states, episodes),
    )


def _familiar(ran: _Run, episodes: Episodes) -> dict[str, float]:
    if ran.frames is None:
        return ran.regrets.measures()
    true, mean = episodes.predicted_frames, episodes.observed.frames.mean(1, keepdim=True)
    return ran.regrets.measures(squared_error(ran.frames, true), squared_error(mean, true))


def _joined(chunks: Sequence[Tensor | None]) -> Tensor | None:
    known = [chunk for chunk in chunks if chunk is not None]
    return torch.cat(known).cpu() if known else None
