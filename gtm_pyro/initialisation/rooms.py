"""A rectangular room around an agent that slides along its walls, found from frames and actions alone."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gtm_pyro.errors import check_whole
from gtm_pyro.localisation.moves import typical_move
from gtm_pyro.localisation.starts import REACH, Resemblance, contradiction, resemblance
from gtm_pyro.transitions import SlidingTranslation


class Room(NamedTuple):
    """Rectangles about the origin.

    :ivar angle: of the first axis, in radians, ``(...)``.
    :ivar half: half the sides along the first and the second axis, in state units, ``(..., 2)``.
    """

    angle: Tensor
    half: Tensor

    @property
    def axes(self) -> Tensor:
        """Unit vectors along both sides, as rows, ``(..., 2, 2)``."""
        x, y = self.angle.cos(), self.angle.sin()
        return torch.stack([torch.stack([x, y], -1), torch.stack([-y, x], -1)], -2)


class FoundRoom(NamedTuple):
    """What :class:`RoomSearch` found.

    :ivar room: the best one.
    :ivar start: where episodes begin in it, ``(state_dim,)``; None where each begins elsewhere.
    :ivar contradiction: of frames along paths in it, a step: see :func:`gtm_pyro.localisation.starts.contradiction`.
    :ivar open: the same in a world without walls.
    """

    room: Room
    start: Tensor | None
    contradiction: float
    open: float


@dataclass(frozen=True)
class RoomSearch:
    """The rectangle, of any angle and any sides, in which paths contradict frames least.

    Rooms are tried with a grid of places in which episodes may begin: all in the same, or each in its own. First
    squares of many sizes at the angles of the commonest moves and some others, then rectangles near the best.

    :param num_episodes: that rooms are scored on.
    :param num_steps: of each.
    :param num_sizes: of the first squares.
    :param num_angles: besides those of moves.
    :param rounds: of rectangles near the best, each closer than the last.
    :raises ConfigError: a number that is not over 0.
    """

    num_episodes: int = 16
    num_steps: int = 128
    num_sizes: int = 16
    num_angles: int = 6
    rounds: int = 5

    def __post_init__(self) -> None:
        check_whole(1, **vars(self))

    @torch.no_grad()
    def __call__(self, transition: SlidingTranslation, frames: Tensor, actions: Tensor, same_start: bool) -> FoundRoom:
        """
        :param transition: of which M is used, in two dimensions.
        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``.
        :param same_start: whether all episodes begin in the same place.
        """
        frames, actions = (x[: self.num_episodes, : self.num_steps] for x in (frames, actions))
        seen, moves = resemblance(frames), transition.moves(actions)
        moves[:, 0] = 0
        move = typical_move(transition, actions)
        reach = REACH * move
        free = moves.cumsum(1)
        alone = contradiction(free.unsqueeze(1), seen, reach).mean()
        unit, widest = float(move.mean()), float((free.amax(1) - free.amin(1)).amax()) / 2
        sizes = torch.linspace(min(unit, widest), max(widest, unit), self.num_sizes)
        # half moves are where walls of a grid are
        halves = 0.5 * unit * torch.arange(2, 2 + self.num_sizes)
        sizes = torch.cat([halves, sizes[sizes > halves[-1]]])
        others = torch.arange(self.num_angles) * (0.5 * math.pi / self.num_angles)
        angles = torch.cat([_directions(moves), others.to(moves)])
        grid = torch.cartesian_prod(angles, sizes.to(moves))
        rooms = Room(grid[:, 0], grid[:, 1:].expand(-1, 2))
        best, score, start = self._best(rooms, moves, seen, reach, same_start)
        generator = torch.Generator().manual_seed(0)
        for i in range(self.rounds):
            near = torch.randn(self.num_sizes, 3, generator=generator).to(moves) * 0.5**i
            # one number alone in half of the rooms
            near[::2] *= torch.eye(3).to(moves)[torch.arange(len(near[::2])) % 3]
            angle = best.angle + 0.15 * near[:, 0]
            half = (best.half + 0.5 * unit * near[:, 1:]).clamp_min(0.5 * unit)
            found = self._best(Room(angle, half), moves, seen, reach, same_start)
            if found[1] < score:
                best, score, start = found
        return FoundRoom(best, start if same_start else None, float(score), float(alone))

    def _best(
        self, rooms: Room, moves: Tensor, seen: Resemblance, reach: Tensor, same_start: bool
    ) -> tuple[Room, Tensor, Tensor]:
        scores, starts = [], []
        for angle, half in zip(*rooms, strict=True):
            room = Room(angle, half)
            score, places = _contradictions(room, moves, seen, reach)
            score = score.mean(0) if same_start else score.flatten(1).amin(1)
            starts.append(places[score.argmin()] if same_start else places[0])
            scores.append(score.min() if same_start else score.mean())
        which = int(torch.stack(scores).argmin())
        return Room(rooms.angle[which], rooms.half[which]), scores[which], starts[which]


def _directions(moves: Tensor, most: int = 2) -> Tensor:
    """Angles of the commonest moves, up to a quarter of a turn: walls are often parallel to them."""
    flat = moves.flatten(0, 1)
    length = flat.norm(dim=-1)
    flat = flat[length > 0.1 * length.max()]
    if not len(flat):
        return moves.new_zeros(1)
    angle = torch.atan2(flat[:, 1], flat[:, 0]).remainder(math.pi / 2)
    values, counts = (angle / 1e-3).round().unique(return_counts=True)
    return 1e-3 * values[counts.topk(min(most, len(values))).indices]


def _contradictions(
    room: Room, moves: Tensor, seen: Resemblance, reach: Tensor, most: int = 15
) -> tuple[Tensor, Tensor]:
    """Of paths from a grid of first places in a room: ``(batch, N, M)``, and the places, ``(N * M, 2)``.

    As :func:`~gtm_pyro.localisation.starts.contradiction` has it. Along the two axes of a rectangle paths do not know
    of each other, and the exponential of a sum of squares is a product: all N x M places cost as much as N + M.

    :param moves: ``(batch, T, 2)``.
    :param most: places a side; they are a typical move apart, or further where that does not suffice.
    """
    batch, time = moves.shape[:2]
    move = float(reach.mean()) / REACH
    index = seen.other.reshape(batch, 1, -1)
    lines, near, still = [], [], []
    for axis, half in zip(room.axes, room.half, strict=True):
        line = half * torch.linspace(-1, 1, min(most, round(2 * float(half) / move) + 1)).to(moves)
        steps = (moves @ axis).unsqueeze(1)
        path = [line.expand(batch, -1)]
        for t in range(1, time):
            path.append((path[-1] + steps[..., t]).clamp(-half, half))
        place = torch.stack(path, -1) / reach[:, None, None]  # (batch, N, T)
        other = place.gather(2, index.expand(-1, len(line), -1)).view(batch, len(line), time, -1)
        near.append(torch.exp(-0.5 * (other - place.unsqueeze(-1)).square()).flatten(2))
        still.append(torch.exp(-2 * place.diff(dim=2).square()))
        lines.append(line)
    alike = seen.alike.reshape(batch, 1, -1)
    lost = alike.sum(-1, keepdim=True) - (alike * near[0]) @ near[1].mT
    stuck = (seen.changed[:, None, 1:] * still[0]) @ still[1].mT
    return (lost + stuck) / time, torch.cartesian_prod(*lines) @ room.axes
