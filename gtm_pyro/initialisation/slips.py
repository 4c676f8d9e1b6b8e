"""Starting values where actions sometimes fail: how often they do, and where the agent really was.

All from frames and actions alone. A place is a frame that looks the same; M is the displacement of an action.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.errors import EpisodesError
from gtm_pyro.initialisation.loop_closure import (
    Outcomes,
    close_loops,
    close_short_loops,
    most_textured,
    moves_with_outcome,
    share_open,
    tabulate,
)
from gtm_pyro.localisation.same_frames import SAME_FRAME, frame_changed, frame_tolerance, same_frames

_LEAST_SLIP = 5e-3  # at lower rates, places that look alike by chance cause as many contradictions as slips do
_EARLY = 96  # steps of an episode that are localised: the cost grows with their square, the errors grow too
_LITTLE_TEXTURE = 0.01  # standard deviation of the pixels of an episode's plainest frame, in [0, 1]
_FALSE_LOOPS = 0.02  # if more than this share of equal frames are no loops, M cannot be fitted to all pairs
_STRETCH = 16  # steps before and after, over which a path is judged
_LOST = 0.25  # the share of outcomes that other paths contradict; on the right path it is the share of lost moves
_CONTRADICTION = 1e-6  # the likelihood of what no single slip explains, such as two places that look the same


class Observations(NamedTuple):
    """What is known of each step of some episodes.

    :param place: the first step of the episode with the same frame, ``(batch, time)``.
    :param changed: whether the frame differs from the one before, ``(batch, time)``; the first never does.
    :param moves: M a_t, ``(batch, time, state_dim)``.
    :param tolerance: distance up to which two positions are the same: a quarter of the longest move.
    """

    place: Tensor
    changed: Tensor
    moves: Tensor
    tolerance: float

    @property
    def moving(self) -> Tensor:
        """Whether the action is one that displaces, ``(batch, time)``; not so the first, which led to the start."""
        moving = self.moves.norm(dim=-1) > self.tolerance
        moving[:, 0] = False
        return moving


def observe(frames: Tensor, actions: Tensor, displacement: Tensor, tolerance: float) -> Observations:
    """Places, changes and intended moves of episodes.

    :param frames: ``(batch, time, C, H, W)``.
    :param actions: ``(batch, time, action_dim)``.
    :param displacement: M, ``(state_dim, action_dim)``.
    :param tolerance: mean squared difference of a pixel up to which two frames look the same.
    """
    moves = actions @ displacement.t()
    place = same_frames(frames, tolerance).to(torch.uint8).argmax(-1)
    return Observations(place, frame_changed(frames, tolerance), moves, 0.25 * float(moves.norm(dim=-1).max()))


class SlipRate(NamedTuple):
    """How often actions fail.

    :param rate: e, the share of steps whose displacement is not the one that M and the walls predict. Exactly 0 where
        under 1 step in 200 contradicts.
    :param astray: the share of moves that changed the frame but led to another place than predicted.
    :param num_loops: the loops that tell ``astray``.
    :param num_retries: the moves that had succeeded before, which tell how often a move that is possible is lost.
    """

    rate: float
    astray: float
    num_loops: int
    num_retries: int


def slip_rate(steps: Observations, num_observed: int | None = None, max_gap: int = 8, max_moves: int = 4) -> SlipRate:
    """An estimate of e.

    Three ways to fail are counted, each where it can be told from a wall:

    - An action that displaces nothing is followed by another frame: as it is seen.
    - A move changes the frame but goes astray, with probability q. A loop of k such moves that should close does so
      with probability (1 - q)^k; q maximises the likelihood of the loops of at most ``max_gap`` steps.
    - A move is lost, with probability l, though nothing is in the way. Among moves that had succeeded before from the
      same place, the share l + kappa b leaves the frame as it is, with b the share of blocked moves, for with
      probability kappa the earlier one went astray; (1 - kappa)(1 - l - astray) end where the earlier one did. A
      move repeated at once after it failed is not counted.

    A frame that is occluded looks like another place, and counts as a failure.

    :param num_observed: only the first so many steps of an episode count; by default all.
    """
    moving, changed = steps.moving, steps.changed
    counted = torch.zeros_like(moving)
    counted[:, 1:num_observed] = True
    num_moves, num_still = int((moving & counted).sum()), int((~moving & counted).sum())
    if not num_moves:
        return SlipRate(0.0, 0.0, 0, 0)
    still_changed = int((~moving & counted & changed).sum())
    unchanged = float((moving & counted & ~changed).sum()) / num_moves
    q, num_loops = _astray(steps, counted, max_gap, max_moves)
    lost, again, num_retries = _retries(steps, counted)
    astray = q * (1 - unchanged)
    fresh = moving & counted & ~_pushing(steps)
    first = float((fresh & ~changed).sum()) / max(int(fresh.sum()), 1)
    in_vain = lost
    for _ in range(20):
        blocked = min(max((first - in_vain) / max(1 - in_vain, 1e-6), 0.0), 1.0)
        kappa = max(1 - again / max(1 - in_vain - astray, 1e-6), 0.0) if num_retries else 0.0
        in_vain = max(lost - kappa * blocked, 0.0)
    blocked = min(max((unchanged - in_vain) / max(1 - in_vain, 1e-6), 0.0), 1.0)
    failed = still_changed + num_moves * (astray + in_vain * (1 - blocked))
    rate = failed / (num_moves + num_still)
    return SlipRate(rate if rate >= _LEAST_SLIP else 0.0, q, num_loops, num_retries)


def _astray(steps: Observations, counted: Tensor, max_gap: int, max_moves: int) -> tuple[float, int]:
    """q, and the number of loops that it is from."""
    changed = steps.changed
    position = (steps.moves * changed.unsqueeze(-1)).cumsum(1)
    number = changed.long().cumsum(1)
    odd = (changed & ~steps.moving).long().cumsum(1)  # such a step is known to have slipped
    begins = torch.cat([changed[:, 1:], torch.zeros_like(changed[:, :1])], 1)
    closed, length = [], []
    for gap in range(2, min(max_gap, changed.shape[1] - 1) + 1):
        k = number[:, gap:] - number[:, :-gap]
        loop = (position[:, gap:] - position[:, :-gap]).norm(dim=-1) < steps.tolerance
        loop &= (k >= 2) & (k <= max_moves) & (odd[:, gap:] == odd[:, :-gap])
        loop &= begins[:, :-gap] & changed[:, gap:] & counted[:, gap:]  # each loop once, without idle ends
        closed.append((steps.place[:, gap:] == steps.place[:, :-gap])[loop])
        length.append(k[loop])
    ends, k = torch.cat(closed), torch.cat(length).double()
    if bool(ends.all()):
        return 0.0, len(ends)
    log_right = torch.linspace(1e-5, 0.7, 1400, dtype=torch.float64).neg().log1p().unsqueeze(-1) * k.to("cpu")
    likelihood = torch.where(ends.to("cpu"), log_right, torch.log(-torch.expm1(log_right))).sum(-1)
    return float(torch.linspace(1e-5, 0.7, 1400, dtype=torch.float64)[likelihood.argmax()]), len(ends)


def _retries(steps: Observations, counted: Tensor) -> tuple[float, float, int]:
    """Of moves known to be possible: the share after which the frame is the same, the share that end where they did
    before, and their number. The last time that a move, or its reverse, was made between two places tells."""
    place, changed, moves, moving = steps.place, steps.changed, steps.moves, steps.moving
    before = torch.cat([place[:, :1], place[:, :-1]], 1)
    time = torch.arange(place.shape[1], device=place.device)
    distance = torch.cdist(moves, moves), torch.cdist(moves, -moves)
    alike = (before.unsqueeze(2) == before.unsqueeze(1)) & (distance[0] < steps.tolerance)
    back = (before.unsqueeze(2) == place.unsqueeze(1)) & (distance[1] < steps.tolerance)
    earlier = (alike | back) & (time.unsqueeze(1) > time) & (moving & changed).unsqueeze(1) & moving.unsqueeze(2)
    last = torch.where(earlier, time, -1).amax(-1)
    known, i = (last > 0) & counted & ~_pushing(steps), last.clamp_min(0)
    end = torch.where(alike.gather(2, i.unsqueeze(-1)).squeeze(-1), place.gather(1, i), before.gather(1, i))
    n = int(known.sum())
    if not n:
        return 0.0, 1.0, 0
    return float((known & ~changed).sum()) / n, float((known & changed & (place == end)).sum()) / n, n


def _pushing(steps: Observations) -> Tensor:
    """Whether a step repeats a move that just failed: against a wall that would count one error many times."""
    again = torch.zeros_like(steps.changed)
    alike = (steps.moves[:, 1:] - steps.moves[:, :-1]).norm(dim=-1) < steps.tolerance
    again[:, 1:] = alike & steps.moving[:, :-1] & ~steps.changed[:, :-1]
    return again


class Paths(NamedTuple):
    """Weighted paths that explain what was seen.

    :param s: positions relative to the first, ``(batch, particles, time, state_dim)``.
    :param weight: ``(batch, particles)``, which sum to one over particles.
    """

    s: Tensor
    weight: Tensor


def likely_paths(steps: Observations, astray: float, num_particles: int = 256) -> Paths:
    """Where the agent was, by a particle filter over paths.

    A frame that changes moved the agent by its action, or with probability ``astray`` by another one. A frame that was
    seen before puts it where it was then, which only particles whose moves agree survive; a new one puts it where no
    other frame was seen. A frame that stays the same moves nothing, be it for a wall or for a slip.
    """
    place, changed, moves, tolerance = steps
    batch, time, dim = moves.shape
    astray = max(astray, 1e-3)
    log = torch.tensor([1 - astray, astray / 4, _CONTRADICTION], dtype=moves.dtype, device=moves.device).log()
    others = moves[steps.moving]
    reach = 2 * float(others.norm(dim=-1).max()) + tolerance
    s = moves.new_zeros(batch, num_particles, time, dim)
    weight = moves.new_zeros(batch, num_particles)
    for t in range(1, time):
        last, move = s[:, :, t - 1], moves[:, t, None]
        other = others[torch.randint(len(others), (batch, num_particles), device=moves.device)]
        slipped = (torch.rand(batch, num_particles, device=moves.device) < astray) | ~steps.moving[:, t, None]
        new = last + torch.where(slipped.unsqueeze(-1), other, move)
        index = place[:, t].view(-1, 1, 1, 1).expand(-1, num_particles, 1, dim)
        known = s.gather(2, index).squeeze(2)
        needed = known - last
        agrees = (needed - move).norm(dim=-1) < tolerance
        slip = (needed.norm(dim=-1) < reach) & (needed.norm(dim=-1) > tolerance)
        seen_score = torch.where(agrees, log[0], torch.where(slip, log[1], log[2]))
        clash = ((s[:, :, :t] - new.unsqueeze(2)).abs().amax(-1) < tolerance).any(-1)
        moved, seen = changed[:, t, None], (place[:, t] < t).unsqueeze(-1)
        s[:, :, t] = torch.where(moved.unsqueeze(-1), torch.where(seen.unsqueeze(-1), known, new), last)
        weight += moved * torch.where(seen, seen_score, clash * log[2])
        share = weight.softmax(-1)
        poor = 1 / share.square().sum(-1) < 0.5 * num_particles
        chosen = torch.multinomial(share[poor], num_particles, replacement=True)
        s[poor] = s[poor].gather(1, chosen.view(-1, num_particles, 1, 1).expand(-1, -1, time, dim))
        weight[poor] = 0
    return Paths(s, weight.softmax(-1))


def outcomes(steps: Observations, paths: Paths) -> tuple[Outcomes, float]:
    """What became of moves, as ``loop_closure.moves_with_outcome`` has it, along weighted paths.

    Also the share of tries that are counted: small where episodes do not begin in the same place.

    Moves that went astray tell nothing of where they should have led, and are left out. So are stretches of a path
    whose outcomes most other paths contradict: an agent that is lost finds walls where there are none.
    """
    s, moves = paths.s, steps.moves.unsqueeze(1)
    target = s[:, :, :-1] + moves[:, :, 1:]
    reached = (s[:, :, 1:] - target).norm(dim=-1) < steps.tolerance
    weight = paths.weight.unsqueeze(-1).expand_as(reached)
    tried = (reached | ~steps.changed[:, None, 1:]) & steps.moving[:, None, 1:] & (weight > 1e-9)
    # places are rounded finely, so that different sums of moves stay apart
    grain = 0.1 * steps.tolerance
    trusted = tried
    for _ in range(2):
        trusted = tried & (_contradictions(target, reached, weight, tried, trusted, grain) < _LOST)
    kept = float(weight[trusted].sum() / weight[tried].sum().clamp_min(1e-6))
    return tabulate(target[trusted], reached[trusted], weight[trusted], grain), kept


def _contradictions(
    target: Tensor, reached: Tensor, weight: Tensor, tried: Tensor, trusted: Tensor, grain: float
) -> Tensor:
    """How much the tries around each step of a path disagree with all other tries of their places, in [0, 1].

    All arguments are ``(batch, particles, steps)``, ``target`` with one more dimension.
    """
    places, place = torch.unique((target[tried] / grain).round(), dim=0, return_inverse=True)
    count, ended = (weight * trusted)[tried], reached[tried].to(weight.dtype)
    tries = torch.bincount(place, count, minlength=len(places))[place] - count
    share = (torch.bincount(place, count * ended, minlength=len(places))[place] - count * ended + 0.5) / (tries + 1)
    against = torch.zeros_like(weight)
    against[tried] = torch.where(reached[tried], 1 - share, share)
    near = functools.partial(F.avg_pool1d, kernel_size=2 * _STRETCH + 1, stride=1, padding=_STRETCH)
    return near(against) / near(tried.to(weight.dtype)).clamp_min(1e-6)


class StartingValues(NamedTuple):
    """What :func:`starting_values` found.

    :param displacement: M, ``(state_dim, action_dim)``.
    :param slips: e, and what it is from.
    :param outcomes: what became of the moves that were tried.
    :param consistency: how far places explain whether a move succeeds, in [0, 1]: of :class:`Outcomes` without slips,
        the share of tries that others do not contradict with slips.
    """

    displacement: Tensor
    slips: SlipRate
    outcomes: Outcomes
    consistency: float


def _one_at_a_time(actions: Tensor) -> bool:
    """Whether each action, in its unit, is one of a few: a number that is 1 or -1 and others that are 0, or nothing."""
    used = actions[:, 1:]
    return bool(((used == 0) | (used.abs() == 1)).all()) and bool(((used != 0).sum(-1) <= 1).all())


def starting_values(frames: Tensor, actions: Tensor, state_dim: int, num_observed: int | None = None) -> StartingValues:
    """M, e and the outcomes of moves.

    Where no action fails, M is from all loops of the half of the episodes with the most texture, and their positions
    are counted. Otherwise M is from their short loops, and positions are those of :func:`likely_paths`: without noise
    in all episodes but the plainest.

    Real-valued actions have no e: a wall that cuts a move short cannot be told from an action that fails.

    :param frames: ``(batch, time, C, H, W)``.
    :param actions: ``(batch, time, action_dim)``, in their units.
    :param num_observed: e is for the first so many steps of an episode; by default for all.
    :raises EpisodesError: fewer actions that move than ``state_dim``, or no loop.
    """
    tolerance = frame_tolerance(frames)
    best = most_textured(frames)
    seen, done = frames[best], actions[best]
    try:
        short = close_short_loops(seen, done, state_dim, tolerance).displacement
    except EpisodesError:
        short = None
    if short is not None and _one_at_a_time(actions):
        steps = observe(seen, done, short, tolerance)
        slips = slip_rate(steps, num_observed)
        if slips.rate:
            if tolerance == SAME_FRAME:  # failures are rare; without noise, little texture suffices
                told_apart = frames.std((-2, -1)).mean(-1).amin(1) > _LITTLE_TEXTURE
                told_apart[best] = True
                steps = observe(frames[told_apart], actions[told_apart], short, tolerance)
                slips = slip_rate(steps, num_observed)
            place, changed, moves = (x[:, :_EARLY] for x in steps[:3])
            early = Observations(place, changed, moves, steps.tolerance)
            return StartingValues(short, slips, *outcomes(early, likely_paths(early, slips.astray)))
    displacement = close_loops(seen, done, state_dim, tolerance).displacement
    if short is not None and share_open(seen, done, short, tolerance) > _FALSE_LOOPS:
        displacement = short
    tried = moves_with_outcome(seen, done, displacement, tolerance)
    return StartingValues(displacement, SlipRate(0.0, 0.0, 0, 0), tried, tried.consistency)
