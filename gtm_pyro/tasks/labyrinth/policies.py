"""Who decides what the agent does: one that turns on the spot, and one that explores."""

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from gtm_pyro.tasks.labyrinth.clearance import Clearance, doorways, room_at
from gtm_pyro.tasks.labyrinth.motion import FRICTION, WALK_ACTIONS, thrust
from gtm_pyro.tasks.labyrinth.world import AGENT_RADIUS, World

_NUMBER = {action.name: number for number, action in enumerate(WALK_ACTIONS)}
_MODES = ((0.0, "forward"), (math.pi, "backward"), (math.pi / 2, "strafe left"), (-math.pi / 2, "strafe right"))
"""Where the agent goes relative to its heading, counter-clockwise, and by which action."""
_LINE_MARGIN, _STOP_MARGIN = AGENT_RADIUS + 0.1, AGENT_RADIUS + 0.04
_DOOR_MARGIN = 0.32
_COAST = FRICTION / (1 - FRICTION)  # tics' worth of the last move that an agent still glides
_SPIN_LEFT = 4.0  # frames' worth of the last turn that is still to come
_VISIT = 0.5  # side of a place that counts as visited, in cells


class TurningPolicy:
    """Turns one way throughout.

    :param action: the number of the turn.
    """

    def __init__(self, action: int) -> None:
        self._action = action

    def __call__(self, pose: np.ndarray) -> int:
        return self._action


class ExploringPolicy:
    """Goes to where, and in a direction in which, it has been least, by all eight walking actions; keeps off walls.

    Through several rooms it makes a short tour first, then visits them again in other orders.

    :param world: which it knows.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._world, self._rng, self._clearance = world, rng, Clearance(world)
        self._doors = doorways(world)
        self._visits: dict[tuple[int, int, int], int] = {}
        self._way: list[np.ndarray] = []  # places still to be reached
        self._tour: list[int] = []  # rooms still to be reached
        self._tours = 0
        self._mode, self._patience, self._turn_left, self._goals = 0, 0, 0.0, 0
        self._last: np.ndarray | None = None
        self._last_action = 0

    def __call__(self, pose: np.ndarray) -> int:
        place, heading = pose[:2], float(pose[2])
        velocity, spin = self._felt(pose)
        key = self._key(place, heading)
        self._visits[key] = self._visits.get(key, 0) + 1
        glide = velocity * (1 / (1 - FRICTION))
        self._patience -= 1
        if self._way and self._reached(self._way[0], place, place + 0.5 * glide):
            self._way.pop(0)
            self._start_leg(place, heading)
            if not self._way and not self._tour and self._rng.uniform() < 0.3:
                self._turn_left = float(self._rng.choice([-1, 1]) * self._rng.uniform(0.8, 4))
        if self._turn_left:
            before, self._turn_left = self._turn_left, self._turn_left - spin
            if before * (self._turn_left - _SPIN_LEFT * spin) > 0:
                return self._safe("turn left" if before > 0 else "turn right", place, heading, velocity)
            self._turn_left = 0.0
        if not self._way or self._patience < 0:
            self._way = self._new_way(place)
            self._start_leg(place, heading)
        return self._safe(self._steer(place + 0.5 * glide, heading + _SPIN_LEFT * spin), place, heading, velocity)

    def _reached(self, stop: np.ndarray, place: np.ndarray, soon: np.ndarray) -> bool:
        """Whether a place on the way is near where the agent is about to be, and no longer through a doorway."""
        near = float(np.abs(stop - soon).max()) < 0.25
        return near and room_at(self._world, *place) == room_at(self._world, *stop)

    def _felt(self, pose: np.ndarray) -> tuple[np.ndarray, float]:
        """Velocity after the last frame, in cells a tic ``(2,)``, and the last turn in radians."""
        last, self._last = self._last, pose.copy()
        if last is None:
            return np.zeros(2), 0.0
        # of two tics m and FRICTION m + a
        push = np.array(thrust(WALK_ACTIONS[self._last_action], float(pose[2])))
        move = pose[:2] - last[:2]
        return (move - (move - push) / (1 + FRICTION)) * FRICTION, float(pose[2] - last[2])

    def _steer(self, place: np.ndarray, heading: float) -> str:
        """The action that leads to the next place on the way, from where and how the agent is about to be."""
        offset, name = _MODES[self._mode]
        aim = self._way[0] - place
        error = _wrapped(math.atan2(aim[1], aim[0]) - offset - heading)
        side = "left" if error > 0 else "right"
        # a turn while walking is wide, and would circle a near place for ever
        if abs(error) > (0.3 + 0.25 * min(2.0, math.hypot(*aim)) if name == "forward" else 0.35):
            return f"turn {side}"
        return f"forward {side}" if name == "forward" and abs(error) > 0.2 else name

    def _safe(self, name: str, place: np.ndarray, heading: float, velocity: np.ndarray) -> int:
        """The action's number, or where it would lead into a wall that of one that does not."""
        number = _NUMBER[name]
        if self._room_after(np.array([number]), place, heading, velocity)[0][0] < _STOP_MARGIN:
            room, ends = self._room_after(np.arange(len(WALK_ACTIONS)), place, heading, velocity)
            aim = self._way[0] if self._way else place
            far = np.linalg.norm(ends - aim, axis=1)
            # both turns end at one place: rather that towards the aim
            left = _wrapped(math.atan2(aim[1] - place[1], aim[0] - place[0]) - heading) > 0
            far[_NUMBER["turn left" if left else "turn right"]] -= 0.01
            safe = room >= _STOP_MARGIN
            number = int(np.where(safe, far, np.inf).argmin() if safe.any() else room.argmax())
        self._last_action = number
        return number

    def _room_after(
        self, numbers: np.ndarray, place: np.ndarray, heading: float, velocity: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where a frame of each action and half a glide lead to, ``(actions, 2)``, and the clearance on the way."""
        push = np.array([thrust(WALK_ACTIONS[number], heading) for number in numbers])
        first = velocity + push
        second = FRICTION * first + push
        move = first + second + 0.5 * _COAST * second
        # the middle and the end at once
        places = place + np.stack([0.5 * move, move])
        return self._clearance.at(places).min(0), places[1]

    def _start_leg(self, place: np.ndarray, heading: float) -> None:
        """Choose how to move to the next place, and give up after a while."""
        if not self._way:
            return
        walking = 0.9 if self._tour else 0.55
        others = (1 - walking) / 3
        aim = self._way[0] - place
        bearing = math.atan2(aim[1], aim[0])
        # rather not by a long turn
        turns = np.array([abs(_wrapped(bearing - offset - heading)) for offset, _ in _MODES])
        weights = np.array([walking, others, others, others]) * np.exp(-turns)
        self._mode = int(self._rng.choice(4, p=weights / weights.sum()))
        self._patience = 25 + int(18 * math.dist(place, self._way[0]))

    def _new_way(self, place: np.ndarray) -> list[np.ndarray]:
        room = room_at(self._world, *place)
        if room is None and self._way:
            room = room_at(self._world, *self._way[0])
        if room is None:
            boxes = self._world.floors[: self._world.num_rooms]
            room = int(np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - place).max(1).argmin())
        if self._world.num_rooms > 1 and self._goals <= 0:
            while self._tour and self._tour[0] == room:
                self._tour.pop(0)
            if not self._tour:
                self._tour = self._new_tour(room)
            way = self._through_doors(room, self._tour[0], place)
            self._goals = 0 if self._tours == 1 else int(self._rng.integers(1, 3))
            return way
        self._goals -= 1
        return self._goal(place, room)

    def _new_tour(self, room: int) -> list[int]:
        """The other rooms, in the shortest order at first and in a random one later."""
        others = self._rng.permutation([r for r in range(self._world.num_rooms) if r != room]).tolist()
        self._tours += 1
        if self._tours > 1:
            return others

        def length(order: Sequence[int]) -> int:
            return sum(len(self._rooms_between(a, b)) for a, b in zip([room, *order], order, strict=False))

        return min(map(list, permutations(others)), key=length)

    def _rooms_between(self, start: int, end: int) -> list[int]:
        """Rooms of the shortest way, both ends included."""
        ways = [[start]]
        for way in ways:
            if way[-1] == end:
                return way
            ways += [[*way, b] for a, b in self._doors if a == way[-1] and b not in way]
        return [start]  # rooms that no doorway joins: stay

    def _through_doors(self, room: int, end: int, place: np.ndarray) -> list[np.ndarray]:
        rooms = self._rooms_between(room, end)
        way: list[np.ndarray] = []
        for one, other in zip(rooms, rooms[1:], strict=False):
            box = self._doors[one, other]
            middle, first = (box[:2] + box[2:]) / 2, self._world.floors[one]
            axis = 0 if box[0] >= first[2] - 1e-9 or box[2] <= first[0] + 1e-9 else 1
            out = np.zeros(2)
            ahead = middle[axis] - (first[axis] + first[axis + 2]) / 2
            out[axis] = math.copysign(0.35 + (box[axis + 2] - box[axis]) / 2, ahead)
            start = way[-1] if way else place
            if self._clearance.along(start, middle + out) >= _DOOR_MARGIN:
                way.append(middle + out)
            else:
                way += [*self._leg(start, middle - out, one), middle + out]
        return way

    def _leg(self, start: np.ndarray, end: np.ndarray, room: int) -> list[np.ndarray]:
        """The end, perhaps with a place before it from which it is in sight."""
        needed = min(_LINE_MARGIN, float(self._clearance.at(start)) - 0.05)
        if self._clearance.along(start, end) >= needed:
            return [end]
        places = self._candidates(room)
        far = np.linalg.norm(places - start, axis=1) + np.linalg.norm(places - end, axis=1)
        for place in places[far.argsort()]:
            if min(self._clearance.along(start, place), self._clearance.along(place, end)) >= needed:
                return [place, end]
        return [end]

    def _candidates(self, room: int) -> np.ndarray:
        """Random places of a room that are clear of walls, ``(n, 2)``."""
        left, bottom, right, top = self._world.floors[room]
        places = self._rng.uniform([left, bottom], [right, top], (40, 2))
        return places[self._clearance.at(places) >= 0.32]

    def _goal(self, place: np.ndarray, room: int) -> list[np.ndarray]:
        """To the place whose way is newest, in the direction in which the agent will look."""
        best, found = -math.inf, [place]
        for end in self._candidates(room)[:16]:
            far = math.dist(place, end)
            if far < 0.6:
                continue
            heading = math.atan2(end[1] - place[1], end[0] - place[0])
            steps = place + np.linspace(0, 1, 2 + int(far / 0.3))[1:, None] * (end - place)
            score = float(np.mean([1 / (1 + self._visits.get(self._key(p, heading), 0)) for p in steps]))
            # the last place itself counts whatever the direction
            seen = sum(self._visits.get((*self._key(end, 0)[:2], octant), 0) for octant in range(8))
            score += 1 / (1 + seen) + 0.2 * self._rng.uniform()
            if score > best:
                best, found = score, [end]
        return self._leg(place, found[0], room)

    @staticmethod
    def _key(place: np.ndarray, heading: float) -> tuple[int, int, int]:
        """A place of the visits: column, row, octant."""
        return math.floor(place[0] / _VISIT), math.floor(place[1] / _VISIT), round(heading / (math.pi / 4)) % 8


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
