"""Of candidates that explain what is seen equally well, the simplest."""

from collections.abc import Callable

import torch
from torch import Tensor

from gtm_pyro.initialisation.memory_fit import standard_errors

_WORSE = 1.0  # standard errors; a number matters to some episodes only


def about_pivot(displacement: Tensor) -> Tensor:
    """The same map, for the point of the agent that turns move least.

    If p is a point of the agent, so is p + R(h) o: its steps are d + (R(turn) - 1) o. Of all o, that is taken with the
    least sum of squares of the moves.

    :param displacement: of each action, ``(3, action_dim)``.
    """
    move, turn = torch.complex(*displacement[:2].double()), displacement[2].double()
    about = torch.polar(torch.ones_like(turn), turn) - 1
    power = about.abs().square().sum()
    if power == 0:
        return displacement
    left = move - (about.conj() * move).sum() / power * about
    return torch.cat([torch.stack([left.real, left.imag]).to(displacement), displacement[2:]])


def of_other_points(displacement: Tensor, distance: float) -> Tensor:
    """The same map, for points of the agent at up to twice a distance, on all four sides: ``(16, 3, action_dim)``."""
    turn = displacement[2].double()
    about = torch.polar(torch.ones_like(turn), turn) - 1
    shifts = [factor * distance * side for factor in (0.25, 0.5, 1.0, 2.0) for side in (1, -1, 1j, -1j)]
    moves = torch.stack([shift * about for shift in shifts])
    shifted = displacement.repeat(len(shifts), 1, 1)
    shifted[:, :2] += torch.stack([moves.real, moves.imag], 1).to(displacement)
    return shifted


def simplified(found: Tensor, whole: Tensor, relative: Callable[[Tensor], Tensor]) -> Tensor:
    """As many numbers of ``found`` as can be are those of ``whole``, or 0, without it being worse for that.

    :param found: displacements ``(3, action_dim)``.
    :param relative: :meth:`~gtm_pyro.initialisation.memory_fit.Seen.relative` scores of ``(N, 3, action_dim)``.
    """
    best, score, other = found.flatten(), relative(found.unsqueeze(0))[0], whole.flatten()
    for index in (found - whole).abs().flatten().argsort(stable=True).tolist():
        for value in (0.0, float(other[index])):
            simpler = best.clone()
            simpler[index] = value
            if standard_errors(relative(simpler.reshape(1, *found.shape))[0] - score) < _WORSE:
                best = simpler
                break
    return best.reshape(found.shape)
