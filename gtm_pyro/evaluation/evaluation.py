"""The measures of a model, one definition each. Pixels are in [0, 1]; steps and poses of held-out episodes."""

import math
import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.evaluation.alignment import Alignment, best_affine, best_similarity, root_mean_square
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.evaluation.map_verdict import Regrets, regrets
from gtm_pyro.evaluation.views import compare, drift, pose_measures
from gtm_pyro.inference.programs import EvaluatedGuide, EvaluatedModel, check_can_be_evaluated, drawing, has_heading
from gtm_pyro.poses.places import nearness
from gtm_pyro.poses.planar import relative_poses
from gtm_pyro.storage.atomic import write_arrays
from gtm_pyro.storage.json import write_json

LAST_STEPS = 32

METRIC_NAMES = (
    "retrieval_accuracy",
    "retrieval_accuracy_last_32",
    "visited_share",
    "cell_size",
    "view_distance",
    "view_angle",
    "mse",
    "mse_visited",
    "mse_unvisited",
    "mse_visited_sampled",
    "reconstruction_mse",
    "mean_frame_mse",
    "reconstruction_mse_all",
    "mean_frame_mse_all",
    "mean_frame_mse_unvisited",
    "copy_mse",
    "copy_mse_unvisited",
    "best_copy_mse_unvisited",
    "mse_drift",
    "heading_correlation",
    "heading_rmse",
    "position_error_last",
    "localisation_rmse",
    "localisation_rmse_similarity",
    "localisation_rmse_last_32",
    "localisation_rmse_memorised_path",
    "localisation_rmse_tracked_end",
    "regret",
    "regret_by_chance",
    "familiar_share",
    "elbo",
    "iwae",
    "kl_per_step",
    "num_episodes",
    "num_observed",
    "num_predicted",
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model did on held-out episodes. All tensors are on the CPU.

    :param metrics: the numbers that :func:`evaluate` describes; NaN where one is not defined.
    :param by_horizon: arrays ``(num_predicted,)``, entry h-1 for step tau + h; NaN where no step is of the kind.
    :param episodes: what was evaluated on.
    :param states: inferred, then imagined: ``(batch, T, state_dim)``.
    :param predicted_frames: E[x | z], z the mean of the entry shown, ``(batch, num_predicted, C, H, W)``.
    :param reconstructed_frames: E[x | z], z the encoder's mean for the true frame; same shape.
    :param entries: number of the memory entry shown, -1 for none, ``(batch, num_predicted)``.
    :param visited: whether the true cell was occupied while memorising, ``(batch, num_predicted)``; None without poses.
    :param retrieved: whether the entry shown was written in the true cell, same shape; None without poses.
    :param poses: true ones, ``(batch, T, pose_dim)``; of agents with a heading, as seen from where they start. None
        without.
    :param affine: states to positions; None without poses.
    :param similarity: states to positions; None without poses or where their dimensions differ.
    :param heading: whether the last number of a state is a heading.
    """

    metrics: dict[str, float]
    by_horizon: dict[str, np.ndarray]
    episodes: Episodes
    states: Tensor
    predicted_frames: Tensor
    reconstructed_frames: Tensor
    entries: Tensor
    visited: Tensor | None
    retrieved: Tensor | None
    poses: Tensor | None
    affine: Alignment | None
    similarity: Alignment | None
    heading: bool = False

    @property
    def aligned_states(self) -> Tensor | None:
        """States in pose units by the affine fit, ``(batch, T, pose_dim)``; of agents with a heading, positions."""
        return None if self.affine is None else self.affine(self.states[..., : self.affine.matrix.shape[-1]])

    @property
    def view_tolerance(self) -> tuple[float, float]:
        """How near counted as the same view, in pose units and in radians; NaN without headings."""
        return self.metrics["view_distance"], self.metrics["view_angle"]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the metrics as one flat JSON object, whole or not at all; NaN becomes null.

        :raises RunFolderError: the file cannot be written.
        """
        write_json(path, self.metrics)

    def save_by_horizon(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays by horizon as an NPZ file, whole or not at all.

        :raises RunFolderError: the file cannot be written.
        """
        write_arrays(path, self.by_horizon)


@torch.no_grad()
def evaluate(
    model: EvaluatedModel,
    guide: EvaluatedGuide,
    episodes: Episodes,
    *,
    seed: int = 0,
    cell_size: float | None = None,
    view_tolerance: tuple[float, float] | None = None,
    iwae_particles: int = 8,
    iwae_episodes: int = 8,
    chunk_size: int = 16,
) -> Evaluation:
    """Infer the states of the first tau steps, predict the others from actions alone, and measure.

    The guide sees the first tau steps only, except for the two bounds, which score the predicted frames. Neither
    the caller's random state nor the parameter store is changed.

    A step is visited where its true cell was occupied while memorising; a cell is a pose rounded to a multiple of
    ``cell_size``. With headings (``pose_names``) a step is visited where its view was memorised, at most
    ``view_tolerance`` away. Squared errors are means over pixels and steps, of predicted steps only:

    * ``mse``, ``mse_visited``, ``mse_unvisited``: predicted frames, decoded from the mean of the memory entry shown;
      ``mse_visited_sampled``: decoded from a draw of p(z | s, m).
    * ``reconstruction_mse``: decoder(encoder mean) of the true frames of visited steps, the floor of ``mse_visited``;
      ``mean_frame_mse``: the episode's mean memorised frame for the same steps. ``_all``: over all predicted steps.
    * ``copy_mse``, ``_unvisited``: the memorised frame whose true pose is nearest; ``best_copy_mse_unvisited``: the
      lower of this and ``mean_frame_mse_unvisited``. With headings only.
    * ``mse_drift``: ``mse`` of the last 50 predicted steps over that of the 50 before.
    * ``heading_correlation``: of inferred and true headings, over all steps of all episodes, as seen from where each
      starts; ``heading_rmse``: in radians, the short way round, not fitted, but for the sign.
      ``position_error_last``: at step T after the best similarity fit, as a share of the path's length, mean over
      episodes.
    * ``retrieval_accuracy``: share of visited steps whose entry was written in the true cell; ``_last_32``.
    * ``visited_share``: share of predicted steps that are visited. ``cell_size``, or ``view_distance`` and
      ``view_angle``: what counted as one place, in pose units and radians.
    * ``localisation_rmse``: in pose units, all T steps, after the best affine fit over all episodes; ``_similarity``:
      after the best similarity fit; ``_last_32``: the affine fit, over the last 32 predicted steps.
      ``_memorised_path``: steps 1 to tau, whose frames the guide sees, after the best affine fit of those steps alone;
      ``_tracked_end``: that fit at step tau.
    * ``familiar_share``: of the predicted steps, those whose frame is nearly a memorised one. ``regret``: what it costs
      to weigh memory entries by place at such steps, in nats a frame, the median; ``regret_by_chance``: at places of
      other steps. They tell without true poses whether the map was found: see
      :func:`gtm_pyro.evaluation.map_verdict.doubt`.
    * ``elbo``, ``kl_per_step``, ``iwae``: nats a predicted frame, of log p(x_{tau+1:T} | x_{1:tau}, a); ``iwae`` is
      ``elbo`` and the mean gain of ``iwae_particles`` over one particle on the first ``iwae_episodes`` episodes.

    :param seed: of all draws.
    :param cell_size: in pose units; None: read off the poses, and cells are about where an episode starts, see
        :func:`gtm_pyro.poses.places.nearness`.
    :param view_tolerance: in pose units and in radians; None: read off the poses.
    :param iwae_particles: 0 leaves ``iwae`` out.
    :param chunk_size: episodes at a time; the draws depend on it.
    :raises EpisodesError: episodes without a predicted step, or with a value that is not finite.
    :raises ConfigError: a size that is not over 0; the model or the guide does not have what evaluation asks for.
    """
    check_can_be_evaluated(model, guide)
    episodes.check_finite()
    if not episodes.num_predicted:
        raise EpisodesError(
            f"num_observed: expected fewer than the {episodes.num_steps} steps, got {episodes.num_observed}"
        )
    with drawing(seed, episodes.device, model, guide):
        starts = range(0, episodes.batch_size, chunk_size)
        parts = [_predict(model, guide, episodes[i : i + chunk_size]) for i in starts]
        bounds = [log_weights(model, guide, episodes[i : i + chunk_size]) for i in starts]
        few = log_weights(model, guide, episodes[:iwae_episodes], iwae_particles) if iwae_particles else None
    rolled = _Prediction(*(torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)))
    episodes = episodes.to("cpu")
    poses, tau = episodes.poses, episodes.num_observed
    visited = retrieved = affine = similarity = nearest = None
    heading = has_heading(model)
    states = rolled.states[..., :-1] if heading else rolled.states
    sizes: dict[str, float] = {}
    if poses is not None:
        near = nearness(poses, cell_size, view_tolerance)
        visited, retrieved, nearest = compare(poses, tau, rolled.entries, near, heading=episodes.has_heading)
        headed = dict(zip(("view_distance", "view_angle"), near.view, strict=True))
        sizes = headed if episodes.has_heading else {"cell_size": near.cells.size}
        poses = relative_poses(poses) if episodes.has_heading else poses
    metrics, by_horizon = _measures(episodes, rolled, visited, retrieved, nearest)
    metrics |= sizes
    metrics |= Regrets(rolled.regret, rolled.by_chance, rolled.unlike).measures()
    if poses is not None:
        places = poses
        if episodes.has_heading:
            places = poses[..., :2]
            if heading:
                metrics |= pose_measures(rolled.states, poses)
        affine = best_affine(states, places)
        error = affine(states) - places
        metrics["localisation_rmse"] = root_mean_square(error)
        metrics["localisation_rmse_last_32"] = root_mean_square(error[:, tau:][:, -LAST_STEPS:])
        by_horizon["localisation_rmse"] = error[:, tau:].double().square().sum(-1).mean(0).sqrt().numpy()
        seen = states[:, :tau]
        tracked = best_affine(seen, places[:, :tau])(seen) - places[:, :tau]
        metrics["localisation_rmse_memorised_path"] = root_mean_square(tracked)
        metrics["localisation_rmse_tracked_end"] = root_mean_square(tracked[:, -1])
        if states.shape[-1] == places.shape[-1]:
            similarity = best_similarity(states, places)
            metrics["localisation_rmse_similarity"] = root_mean_square(similarity(states) - places)
    elbo = torch.cat([bound.total[0] for bound in bounds]).mean().item() / episodes.num_predicted
    kl = torch.cat([bound.kl[0] for bound in bounds]).mean().item() / episodes.num_predicted
    gain = math.nan if few is None else few.iwae_gain().mean().item() / episodes.num_predicted
    metrics |= {"elbo": elbo, "iwae": elbo + gain, "kl_per_step": kl}
    metrics |= {"num_episodes": episodes.batch_size, "num_observed": tau, "num_predicted": episodes.num_predicted}
    return Evaluation(
        metrics={name: metrics.get(name, math.nan) for name in METRIC_NAMES},
        by_horizon=by_horizon,
        episodes=episodes,
        states=rolled.states,
        predicted_frames=rolled.frames,
        reconstructed_frames=rolled.reconstructed,
        entries=rolled.entries,
        visited=visited,
        retrieved=retrieved,
        poses=poses,
        affine=affine,
        similarity=similarity,
        heading=heading,
    )


class _Prediction(NamedTuple):
    states: Tensor
    frames: Tensor
    reconstructed: Tensor
    entries: Tensor
    sampled_error: Tensor
    regret: Tensor
    by_chance: Tensor
    unlike: Tensor


def _predict(model: EvaluatedModel, guide: EvaluatedGuide, episodes: Episodes) -> _Prediction:
    observed = episodes.observed
    s = guide.path(observed).sample().squeeze(-3)
    memory = model.remember(s, observed.frames)
    start, actions, frames = s[:, -1], episodes.predicted_actions, episodes.predicted_frames
    past = observed.actions
    rollout = model.imagine(start, memory, actions, past=past)
    sampled = model.imagine(start, memory, actions, sample=True, past=past)
    reconstructed = model.decoder.frames(model.encoder.statistics(frames)["loc"])
    states = torch.cat([s, rollout.states], 1)
    sampled_error = _squared_error(sampled.frames, frames)
    found = regrets(model, states, episodes)
    return _Prediction(states, rollout.frames, reconstructed, rollout.entries, sampled_error, *found)


def _squared_error(frames: Tensor, true: Tensor) -> Tensor:
    """Mean over pixels, ``(batch, steps)``."""
    return (frames - true).square().mean((-3, -2, -1))


_Measures = tuple[dict[str, float], dict[str, np.ndarray]]


def _measures(
    episodes: Episodes,
    rolled: _Prediction,
    visited: Tensor | None,
    retrieved: Tensor | None,
    nearest: Tensor | None,
) -> _Measures:
    """Everything that is a mean over some of the predicted steps, as one number and by horizon."""
    true, everywhere = episodes.predicted_frames, torch.ones_like(rolled.entries, dtype=torch.bool)
    known = everywhere if visited is None else visited
    error = _squared_error(rolled.frames, true)
    floor = _squared_error(rolled.reconstructed, true)
    mean_frame = _squared_error(episodes.observed_frames.mean(1, keepdim=True), true)
    means = {
        "mse": (error, everywhere),
        "reconstruction_mse_all": (floor, everywhere),
        "mean_frame_mse_all": (mean_frame, everywhere),
    }
    if visited is not None and retrieved is not None:
        means |= {
            "mse_visited": (error, known),
            "mse_unvisited": (error, ~known),
            "mse_visited_sampled": (rolled.sampled_error, known),
            "reconstruction_mse": (floor, known),
            "mean_frame_mse": (mean_frame, known),
            "mean_frame_mse_unvisited": (mean_frame, ~known),
            "retrieval_accuracy": (retrieved, known),
            "visited_share": (visited, everywhere),
        }
    if nearest is not None:
        pairs = zip(episodes.frames, nearest, true, strict=True)  # one at a time, for copies are large
        copied = torch.stack([_squared_error(frames[steps], shown) for frames, steps, shown in pairs])
        means |= {"copy_mse": (copied, everywhere), "copy_mse_unvisited": (copied, ~known)}
    # a mean over no step is NaN
    numbers = {name: float(value[chosen].double().mean()) for name, (value, chosen) in means.items()}
    numbers["mse_drift"] = drift(error)
    if nearest is not None:
        rivals = (numbers["copy_mse_unvisited"], numbers["mean_frame_mse_unvisited"])
        numbers["best_copy_mse_unvisited"] = min(rivals)
    if retrieved is not None:
        last = slice(-LAST_STEPS, None)
        numbers["retrieval_accuracy_last_32"] = float(retrieved[:, last][known[:, last]].double().mean())
    by_horizon = {
        name: ((value.double() * chosen).sum(0) / chosen.sum(0)).numpy() for name, (value, chosen) in means.items()
    }
    return numbers, by_horizon
