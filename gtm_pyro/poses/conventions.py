"""What the numbers of episodes mean: names of pose columns, headings, actions; and checks that they do.

A pose is a position, or a position in a plane and a heading in radians. The heading grows from the first axis to the
second: at 0 the agent looks along x, at pi / 2 along y (counter-clockwise where y points up). Only differences of
headings modulo a turn matter, so they may be wrapped or not.
"""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.poses.planar import TURN, turned_back

HEADING = "heading"
"""The name of the third of three pose columns where it is a heading."""
_ANGLES = {"angle", "azimuth", "bearing", "deg", "degrees", HEADING, "orientation", "pitch", "rad"}
_ANGLES |= {"radians", "roll", "rotation", "theta", "yaw"}
_FEW_MOVES = 50  # too few to tell whether actions explain them


def check_pose_names(names: Sequence[str] | None, pose_dim: int | None) -> tuple[str, ...] | None:
    """The names as a tuple.

    :param pose_dim: columns of the poses; None without poses.
    :raises EpisodesError: another number of names, an angle that is not the heading of a position in a plane, or no
        names for three columns or more, any of which may be a coordinate or an angle.
    """
    if names is None:
        if pose_dim is not None and pose_dim > 2:
            raise EpisodesError(
                f"pose_names: expected names of the {pose_dim} columns of poses, (x, y, heading) where the third is a "
                "heading in radians, or for instance (x, y, z), got none"
            )
        return None
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise EpisodesError(f"pose_names: expected one name for each column of poses, got {names!r}")
    names = tuple(names)
    if len(names) != pose_dim:
        expected = "none without poses" if pose_dim is None else f"{pose_dim} names, one for each column of poses"
        raise EpisodesError(f"pose_names: expected {expected}, got {names}")
    for column, name in enumerate(names):
        angle = bool(_ANGLES & set(re.findall("[a-z]+", name.lower())))
        if angle and (name, column, len(names)) != (HEADING, 2, 3):
            raise EpisodesError(
                f"pose_names: expected coordinates, or two coordinates and then '{HEADING}', an angle in radians that "
                f"grows from the first axis to the second, got {names}"
            )
    return names


def channels_last(frame_shape: Sequence[int]) -> bool:
    """Whether the sizes of a frame seem to be (height, width, channels)."""
    return len(frame_shape) == 3 and frame_shape[2] in (1, 3, 4) and min(frame_shape[:2]) > 4


def check_values(
    tensors: Mapping[str, Tensor],
    has_heading: bool,
    continuous_actions: bool | None,
    is_first: Tensor | None = None,
) -> None:
    """What a shard or a batch may hold, given that its shapes are right.

    :param tensors: by the names of an episode's fields; those that can hold no bad value may be left out.
    :param is_first: ``(batch, time)``, where episodes start within a recording.
    :raises EpisodesError: names the first bad value with its index.
    """
    for name, tensor in tensors.items():
        check_range(name, tensor, in_unit_interval=name in ("frames", "worlds"))
    if "actions" in tensors:
        check_actions(tensors["actions"], continuous_actions, is_first)
    if has_heading:
        check_headings(tensors["poses"], is_first)


def check_range(name: str, tensor: Tensor, in_unit_interval: bool) -> None:
    # NaN compares as false, so it counts as bad in both cases.
    good = (tensor >= 0) & (tensor <= 1) if in_unit_interval else tensor.isfinite()
    if not bool(good.all()):
        index = (~good).nonzero()[0].tolist()
        expected = "a value in [0, 1]" if in_unit_interval else "a finite value"
        raise EpisodesError(f"{name}{index}: expected {expected}, got {tensor[tuple(index)].item():g}")


def check_headings(poses: Tensor, is_first: Tensor | None = None) -> None:
    """Refuse degrees, as far as they show; what they do to positions is for :func:`check_readings`.

    :param poses: ``(batch, time, 3)``.
    :param is_first: ``(batch, time)``, steps to which nothing turned.
    :raises EpisodesError: a step changes the heading by more than a turn, or all are whole numbers and exceed one.
    """
    heading = poses[..., 2]
    jumps = heading.diff(dim=1).abs()
    far = jumps > TURN + 0.01
    if is_first is not None:
        far &= ~is_first[:, 1:]
    advice = "radians are degrees times pi / 180"
    if bool(far.any()):
        b, t = far.nonzero()[0].tolist()
        raise EpisodesError(
            f"poses[{b}, {t + 1}, 2]: expected a heading in radians, which turns at most once a step, got a change of "
            f"{jumps[b, t].item():g}; {advice}"
        )
    if bool((heading == heading.round()).all()) and bool((heading.abs() > TURN).any()):
        raise EpisodesError(
            f"poses: expected headings in radians, got whole numbers from {heading.min().item():g} to "
            f"{heading.max().item():g}; {advice}"
        )


def check_actions(actions: Tensor, continuous: bool | None, is_first: Tensor | None = None) -> None:
    """
    :param actions: ``(batch, time, action_dim)``; the first step's say nothing.
    :param continuous: True for numbers, False for one-hot vectors, None where nobody said.
    :param is_first: ``(batch, time)``, further steps whose actions say nothing.
    :raises EpisodesError: one-hot vectors that are none, or one column of numbers that look like indices.
    """
    if continuous is False:
        good = ((actions == 0) | (actions == 1)).all(-1) & (actions.sum(-1) == 1)
        none = (actions == 0).all(-1)
        good[:, 0] |= none[:, 0]
        if is_first is not None:
            good |= none & is_first
        if not bool(good.all()):
            b, t = (~good).nonzero()[0].tolist()
            shown = ", ".join(f"{x:g}" for x in actions[b, t].tolist())
            raise EpisodesError(f"actions[{b}, {t}]: expected a one-hot vector, got ({shown})")
    elif continuous is None and actions.shape[-1] == 1:
        whole = bool(((actions == actions.round()) & (actions >= 0)).all())
        if whole and bool((actions > 0).any()):
            raise EpisodesError(
                f"actions: expected one-hot vectors or continuous numbers, got one column of whole numbers up to "
                f"{actions.max().item():g}, which look like indices; give them as whole numbers, (batch, time) of an "
                "integer dtype, make them one-hot (torch.nn.functional.one_hot), or say continuous_actions=True"
            )


def check_readings(poses: Tensor, actions: Tensor, heading: bool) -> str | None:
    """Whether positions follow from actions far better if poses or actions are read in another way than they should.

    Moves, in the agent's frame where there is a heading, are regressed on actions. Where another reading leaves far
    less than the right one, something is doubtful; of agents that glide or slip much, and of those that only turn,
    little can be told.

    :param poses: ``(batch, time, pose_dim)``.
    :param actions: ``(batch, time, action_dim)``, actions[:, t] led to the pose at t.
    :returns: what to change, or None if nothing is doubtful.
    :raises EpisodesError: headings are degrees.
    """
    poses, actions = poses.double(), actions.double()
    moves = poses.diff(dim=1)[:, 1:]  # those with an action before theirs
    positions = moves[..., :2] if heading else moves
    if positions[..., 0].numel() < _FEW_MOVES + 10 * actions.shape[-1] or not bool((positions != 0).any()):
        return None
    senses = {"": 1.0, _OTHER_SENSE: -1.0, _DEGREES: math.pi / 180, f"{_DEGREES}; {_OTHER_SENSE}": -math.pi / 180}
    left: dict[str, tuple[float, float]] = {}
    for sense, factor in senses.items() if heading else [("", 0.0)]:
        seen = turned_back(positions, factor * poses[:, 1:-1, 2]) if heading else positions
        left[sense] = (_unexplained(seen, actions[:, 2:]), _unexplained(seen, actions[:, 1:-1]))
    sense = min(left, key=lambda sense: min(left[sense]))
    if not _clearly_less(min(left[sense]), min(left[""])):
        sense = ""
    if _DEGREES in sense:
        raise EpisodesError(f"poses: {sense}")
    shift = _TAKEN_AT if _clearly_less(left[sense][1], left[sense][0]) else ""
    return "; ".join(doubt for doubt in (sense, shift) if doubt) or None


_TAKEN_AT = "actions[:, t] seem to be those taken at step t, expected those that led there; shift them by one step"
_OTHER_SENSE = "headings seem to grow from y to x, expected from x to y; negate them"
_DEGREES = "headings seem to be degrees, expected radians; multiply them by pi / 180"


def _clearly_less(other: float, stated: float) -> bool:
    return stated > 0.05 and other < 0.6 * stated


def _unexplained(moves: Tensor, actions: Tensor) -> float:
    """The share of squared moves that is left by the best affine map of actions."""
    y = moves.reshape(-1, moves.shape[-1])
    x = actions.reshape(-1, actions.shape[-1])
    x = torch.cat([x, torch.ones_like(x[:, :1])], -1)
    fitted = x @ (torch.linalg.pinv(x) @ y)
    return float((y - fitted).square().sum() / y.square().sum())
