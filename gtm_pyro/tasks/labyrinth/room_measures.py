"""Whether predicted frames show the right room, as told by a small classifier that knows the true rooms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.views import nearest_view
from gtm_pyro.tasks.base import Measures
from gtm_pyro.tasks.labyrinth.clearance import Clearance
from gtm_pyro.tasks.labyrinth.raycaster import RayCaster
from gtm_pyro.tasks.labyrinth.world import AGENT_RADIUS, World

FRAMES_A_ROOM = 300
"""Rendered for the classifier of a world; every fifth is held out."""
_HELD_OUT = 5
_DOOR = 0.125  # cells: half of a doorway, at most, belongs to a room
_PENALTY = 3e-3  # of squared weights, in nats
_HUES = torch.arange(12) * (math.tau / 12)
_AXES = torch.tensor([[1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]]) / torch.tensor([[2.0], [6.0]]).sqrt()  # of all hues
_SATURATED = 0.15


def nearest_room(world: World, places: np.ndarray) -> np.ndarray:
    """The number of the room around each place, or the nearest one of a place within a doorway.

    :param places: x, y in cells, ``(..., 2)``.
    :returns: ``(...)``, int64.
    """
    rooms, place = world.floors[: world.num_rooms], places[..., None, :2]
    away = np.maximum(rooms[:, :2] - place, place - rooms[:, 2:]).clip(0)
    return np.hypot(away[..., 0], away[..., 1]).argmin(-1)


def free_poses(world: World, rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Random poses in each room and its halves of the doorways, wherever an agent has room.

    :param number: for each room; fewer where nearly all of it is taken.
    :returns: x, y in cells and heading in radians ``(n, 3)``, and the number of the room ``(n,)``.
    """
    clearance, poses = Clearance(world), []
    for room, (left, bottom, right, top) in enumerate(world.floors[: world.num_rooms]):
        places = rng.uniform([left - _DOOR, bottom - _DOOR], [right + _DOOR, top + _DOOR], (10 * number, 2))
        places = places[(clearance.at(places) >= AGENT_RADIUS) & (nearest_room(world, places) == room)][:number]
        poses.append(np.column_stack([places, rng.uniform(0, math.tau, len(places))]))
    drawn = np.concatenate(poses)
    return drawn, nearest_room(world, drawn)


@dataclass(frozen=True, eq=False)
class RoomClassifier:
    """Multinomial logistic regression of rooms on colours.

    :ivar mean: of the features, and their ``scale``, ``(F,)``.
    :ivar weight: ``(F, rooms)``, with ``bias`` ``(rooms,)``.
    :ivar accuracy: share of right answers on rendered frames that were held out.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    accuracy: float = math.nan

    def __call__(self, frames: Tensor) -> Tensor:
        """The room that each frame shows: ``(n, 3, H, W)`` in [0, 1] to ``(n,)``."""
        return ((_features(frames) - self.mean) / self.scale @ self.weight + self.bias).argmax(-1)


def fit_classifier(frames: Tensor, rooms: Tensor, num_rooms: int) -> RoomClassifier:
    """Learn to tell rooms apart, also by frames that are blurred, as a decoder's are.

    :param frames: ``(n, 3, H, W)`` in [0, 1].
    :param rooms: their numbers, ``(n,)``; every fifth is held out for the classifier's own accuracy.
    """
    held_out = torch.arange(len(rooms)) % _HELD_OUT == _HELD_OUT - 1
    sharp, target = frames[~held_out], rooms[~held_out].repeat(3)
    features = torch.cat([_features(shown) for shown in (sharp, _blurred(sharp, 8), _blurred(sharp, 4))])
    mean, scale = features.mean(0), features.std(0) + 1e-3
    x = (features - mean) / scale
    with torch.enable_grad():
        weight = torch.zeros(x.shape[1], num_rooms, requires_grad=True)
        bias = torch.zeros(num_rooms, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = F.cross_entropy(x @ weight + bias, target) + _PENALTY * weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
    parts = (mean, scale, weight.detach(), bias.detach())
    right = RoomClassifier(*parts)(frames[held_out]) == rooms[held_out]
    return RoomClassifier(*parts, accuracy=float(right.double().mean()))


def classifier_of(world: World, seed: np.random.SeedSequence, size: int = 32) -> RoomClassifier:
    """A classifier for the rooms of one world, from frames that the ray-caster renders at random poses.

    :param size: of a frame, in pixels.
    """
    poses, rooms = free_poses(world, np.random.default_rng(seed), FRAMES_A_ROOM)
    frames = RayCaster([world], size).render(torch.from_numpy(poses).unsqueeze(0))[0]
    return fit_classifier(frames.float() / 255, torch.from_numpy(rooms), world.num_rooms)


def room_measures(
    evaluation: Evaluation, worlds: Sequence[World], *, seed: int, view_tolerance: tuple[float, float]
) -> Measures:
    """How often frames are of the room in which the agent stands, by a classifier for each world.

    Only steps count in a room that the agent was in while memorising: ``room_visited_share`` of the predicted ones.
    A place within a doorway belongs to the nearest room. ``room_accuracy`` is the share of counted steps of all
    episodes at which the classifier tells the true room by the predicted frame; ``_true_frames``: by the true one,
    which is less than 1, for an agent may look into another room; ``_reconstructed``: by decoder(encoder mean) of the
    true one; ``_copy``: by the memorised frame whose true pose is nearest; ``_most_seen``: always answering the room of
    most memorised steps. ``room_classifier_accuracy``: on rendered frames that the classifiers were not fitted to.

    :param worlds: one for each episode.
    :param seed: of the poses at which frames are rendered, none of them an episode's.
    :param view_tolerance: what a cell and a radian are worth when the nearest pose is sought.
    """
    episodes, tau = evaluation.episodes, evaluation.episodes.num_observed
    assert episodes.poses is not None  # a labyrinth knows them
    nearest = nearest_view(episodes.poses, tau, view_tolerance)
    shown = {"": evaluation.predicted_frames, "_true_frames": episodes.predicted_frames}
    shown["_reconstructed"] = evaluation.reconstructed_frames
    pictures = {name: frames for name, frames in shown.items() if frames is not None}
    names = (*pictures, "_copy", "_most_seen")
    right: dict[str, list[Tensor]] = {name: [] for name in names}
    counted, own = [], []
    for i, world in enumerate(worlds):
        classify = classifier_of(world, _seed(seed, i), episodes.frame_shape[-1])
        rooms = torch.from_numpy(nearest_room(world, episodes.poses[i].double().numpy()))
        seen, true = rooms[:tau], rooms[tau:]
        told = {name: classify(frames[i]) for name, frames in pictures.items()} | {
            "_copy": classify(episodes.observed_frames[i])[nearest[i]],
            "_most_seen": seen.bincount().argmax(),
        }
        for name in names:
            right[name].append(told[name] == true)
        counted.append(torch.isin(true, seen))
        own.append(classify.accuracy)
    known = torch.stack(counted).double()
    by_horizon, metrics = {"room_visited_share": known.mean(0).numpy()}, {"room_visited_share": float(known.mean())}
    for name in names:
        hits = torch.stack(right[name]) * known
        # a mean over no step is NaN
        by_horizon[f"room_accuracy{name}"] = (hits.sum(0) / known.sum(0)).numpy()
        metrics[f"room_accuracy{name}"] = float(hits.sum() / known.sum())
    return Measures(metrics | {"room_classifier_accuracy": float(np.mean(own))}, by_horizon)


def _seed(seed: int, episode: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, crc32(b"room classifier"), episode])


def _features(frames: Tensor) -> Tensor:
    """Averages of 4 x 4 blocks, and how much weak and strong colour there is of each of 12 hues: ``(n, 72)``."""
    frames = frames.float()
    across, up = torch.einsum("nchw,kc->knhw", F.adaptive_avg_pool2d(frames, 8), _AXES)
    colours = [across * hue.cos() + up * hue.sin() for hue in _HUES]
    amounts = [(colour - least).clamp_min(0).mean((-2, -1)) for least in (0.0, _SATURATED) for colour in colours]
    return torch.cat([F.adaptive_avg_pool2d(frames, 4).flatten(1), torch.stack(amounts, 1)], 1)


def _blurred(frames: Tensor, blocks: int) -> Tensor:
    coarse = F.adaptive_avg_pool2d(frames, blocks)
    return F.interpolate(coarse, size=frames.shape[-2:], mode="bilinear")
