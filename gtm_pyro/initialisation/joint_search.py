"""Turns and moves proposed at once: where turns alone explain little, a search that begins with them is lost.

Each action has a role: it turns by q one way or the other, moves in one of four directions of the agent's frame, or
does nothing. The q are whole fractions of a turn. With few actions all roles are tried together, with many two at a
time. The moves of the best are then made longer or shorter, and improved action by action, now with roles that turn
and move.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gtm_pyro.initialisation.memory_fit import Keys, Seen, Values, clearly_better, fit_of
from gtm_pyro.transitions import Transition

_PARTS = (2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 18, 20, 24, 30, 32, 36, 40, 45, 48, 60, 64, 72, 90, 120)
WHOLE_FRACTIONS = tuple(2 * math.pi / parts for parts in _PARTS)
# of the turn between one and the next: over a hundred steps, headings then stay within a fraction of a radian
_APART = 1.02
WIDE_TURNS = tuple(math.pi * _APART**-i for i in range(84))

# actions up to which all roles are tried together, and pairs of actions that are tried of more
_FEW, _PAIRS = 4, 64
# candidates that are improved, rounds of that, and episodes that they are compared on until then
_STARTS, _ROUNDS, _EPISODES = 6, 3, 6
# lengths of moves that are tried, over half of a usual turn; one that fits so much worse than the best is as good
_LENGTHS, _AS_GOOD = tuple(2 ** (i / 2) for i in range(-7, 6)), 0.02
# candidates with another role of an action that are kept for what comes second
_NEAR = 4
_NOTHING, _TURN, _BACK, _AHEAD = range(4)


@torch.no_grad()
def joint_search(
    transition: Transition, evidence: Seen, keys: Keys, make: Callable[[Tensor], Values], rates: Sequence[float]
) -> Values:
    """The best of many candidates, first those whose moves have a length that suits the keys.

    A move and a turn can be compared only as the keys do: a candidate's moves begin as half as far as its turns.

    :param keys: of states of a position and a heading.
    :param make: parameters of the transition, of displacements of each action, ``(N, 3, action_dim)``.
    :param rates: turns q that are tried, in radians.
    :returns: the best ones, best first, for :meth:`Seen.relative` scores.
    """
    few = evidence.first(_EPISODES)
    unit = move_like_a_turn(keys, evidence.actions)
    roles = _assignments(evidence.actions.shape[-1])

    def relative(displacements: Tensor, by: Seen = evidence) -> Tensor:
        return by.relative(fit_of(transition, by, keys, make(displacements.to(evidence.actions))))

    starts: list[tuple[float, float, Tensor]] = []
    for rate in rates:
        displacements = _roles(rate, 0.5 * rate * unit)[roles].mT
        means = relative(displacements, few).mean(-1)
        best = means.argsort(stable=True)[:_STARTS].tolist()
        starts += [(float(means[i]), rate, displacements[i]) for i in best]
    starts.sort(key=lambda start: start[0])
    tried = [displacement for _, _, displacement in starts[: 4 * _STARTS]]
    for _, rate, displacement in starts[:_STARTS]:
        scaled, length = _scaled(displacement, relative)
        tried += _improved(scaled, _wider_roles(rate, 0.5 * rate * unit * length), relative)
    every = torch.stack(tried).to(evidence.actions)
    return make(every[relative(every).mean(-1).argsort(stable=True)])


def _scaled(displacement: Tensor, relative: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
    """With moves of the length that is as good as the best one and changes them least, and how much that is."""
    longer = displacement.repeat(len(_LENGTHS), 1, 1)
    longer[:, :2] *= torch.tensor(_LENGTHS).reshape(-1, 1, 1)
    means = relative(longer).mean(-1)
    good = (means <= means.min() + _AS_GOOD).nonzero().flatten().tolist()
    least = min(good, key=lambda i: abs(math.log(_LENGTHS[i])))
    return longer[least], _LENGTHS[least]


def move_like_a_turn(keys: Keys, like: Tensor) -> float:
    """How far a move has to go to be as far as a turn of one radian, to keys."""
    states = like.new_tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1e-2]])
    here, moved, turned = keys(states)
    return float((turned - here).norm() / (moved - here).norm().clamp_min(1e-12)) / 1e-2


def _roles(turn: float, move: float) -> Tensor:
    """Displacements ``(7, 3)``: nothing, two turns and four moves."""
    axes = [[0.0, 0.0, turn], [0.0, 0.0, -turn]]
    axes += [[move, 0.0, 0.0], [-move, 0.0, 0.0], [0.0, move, 0.0], [0.0, -move, 0.0]]
    return torch.tensor([[0.0, 0.0, 0.0], *axes])


def _wider_roles(turn: float, move: float) -> Tensor:
    """Displacements ``(20, 3)``: every turn, the double one too, with every move."""
    moves = [(0.0, 0.0), (move, 0.0), (-move, 0.0), (0.0, move), (0.0, -move)]
    return torch.tensor([[*xy, times * turn] for times in (0, 1, -1, 2) for xy in moves])


def _assignments(actions: int) -> Tensor:
    """Roles of all actions, ``(N, actions)``, each map once: the first that turns turns one way, the first that moves
    moves ahead."""
    if actions <= _FEW:
        chosen = list(itertools.product(range(7), repeat=actions))
    else:
        pairs = list(itertools.combinations(range(actions), 2))
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:_PAIRS].tolist()
        chosen = []
        for i in order:
            for two in itertools.product(range(7), repeat=2):
                roles = dict(zip(pairs[i], two, strict=True))
                chosen.append(tuple(roles.get(action, _NOTHING) for action in range(actions)))
    return torch.tensor([roles for roles in dict.fromkeys(chosen) if _is_first_of_its_kind(roles)])


def _is_first_of_its_kind(roles: Sequence[int]) -> bool:
    turning = [role for role in roles if role in (_TURN, _BACK)]
    moving = [role for role in roles if role >= _AHEAD]
    return turning[:1] in ([], [_TURN]) and moving[:1] in ([], [_AHEAD])


def _improved(best: Tensor, roles: Tensor, relative: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Displacements ``(3, action_dim)``, better action by action until none is clearly so; and those that came near."""
    lowest, tried = relative(best.unsqueeze(0))[0], []
    for _ in range(_ROUNDS):
        before = best
        for action in range(best.shape[1]):
            candidates = best.repeat(len(roles), 1, 1)
            candidates[:, :, action] = roles
            scores = relative(candidates)
            nearest = scores.mean(-1).argsort(stable=True)[:_NEAR].cpu()  # where candidates are
            tried += list(candidates[nearest])
            winner = int(nearest[0])
            if clearly_better(lowest - scores[winner]):
                best, lowest = candidates[winner], scores[winner]
        if best is before:
            break
    return [best, *tried]
