"""Starting values from true displacements, by least squares."""

import torch
from torch import Tensor

from gtm_pyro.transitions import RotatingTranslation


@torch.enable_grad()
def regress(transition: RotatingTranslation, actions: Tensor, displacements: Tensor, iterations: int = 400) -> None:
    """Fit all parameters of a transition to true displacements.

    :param actions: ``(batch, T, action_dim)``.
    :param displacements: of steps 2 to T in the agent's frame, ``(batch, T - 1, 3)``.
    """
    transition.measure_actions(actions)
    parameters = list(transition.parameters())
    optimiser = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")
    # in units of a usual displacement, for it stops where changes are small
    usual = displacements.square().mean().clamp_min(1e-12)

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = (transition.controls(actions)[:, 1:] - displacements).square().mean() / usual
        error.backward()
        return error

    optimiser.step(loss)
    optimiser.zero_grad()
