"""Unrolling ``s_t = f(s_{t-1}, a_t) + noise_t`` with the gradients of all steps computed at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
Unroll = Callable[[Tensor, Tensor, Tensor], Tensor]


def unroll_plain(step: Step, start: Tensor, inputs: Tensor, noise: Tensor) -> Tensor:
    """The reference: one call of ``step`` for each time step, differentiated by autograd.

    Shapes as in :func:`unroll`.
    """
    path = [start]
    for t in range(1, inputs.shape[-2]):
        path.append(step(path[-1], inputs[..., t, :]) + noise[..., t, :])
    return torch.stack(path, -2)


def unroll(step: Step, start: Tensor, inputs: Tensor, noise: Tensor, sequential: Unroll | None = None) -> Tensor:
    """Unroll a recurrence; gradients equal those of :func:`unroll_plain` and need no graph of ``time`` nodes.

    The values come from a loop without gradients. Since every state is then known, ``step`` is differentiated once, on
    all time steps together, and the chain through time is the linear recurrence of the adjoint method,
    ``lambda_t = g_t + J_{t+1}^T lambda_{t+1}`` with ``J_t`` the Jacobian of step ``t``. First derivatives only.

    :param step: ``(state (*batch, D), input (*batch, A)) -> (*batch, D)``, free to broadcast over more leading
        dimensions.
    :param start: the first state, ``(*batch, D)``.
    :param inputs: ``(*batch, time, A)``; the first is not used.
    :param noise: ``(*batch, time, D)``; the first is not used.
    :param sequential: a faster loop ``(start, inputs, noise) -> path`` for the values, in place of calls of ``step``.
    :returns: states ``(*batch, time, D)``.
    """
    with torch.no_grad():
        path = sequential(start, inputs, noise) if sequential else unroll_plain(step, start, inputs, noise)
    if not torch.is_grad_enabled():
        return path
    if inputs.shape[-2] == 1:
        return start.unsqueeze(-2)
    known = path[..., :-1, :].detach()
    # whether any gradient is wanted, of the parameters too, which only a call of ``step`` can tell
    if not any(t.requires_grad for t in (start, noise, step(known[..., :1, :], inputs[..., 1:2, :]))):
        return path
    previous = known.requires_grad_()
    local = step(previous, inputs[..., 1:, :])
    rows = [
        torch.autograd.grad(component.sum(), previous, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
        for component in local.unbind(-1)
    ]
    path = torch.cat([start.unsqueeze(-2), local + noise[..., 1:, :]], -2)
    adjoint: Tensor = _Adjoint.apply(path, torch.stack(rows, -2))
    return adjoint


class _Adjoint(torch.autograd.Function):
    """Identity, whose backward pass carries gradients from each step to all earlier ones."""

    @staticmethod
    def forward(ctx: Any, path: Tensor, jacobians: Tensor) -> Tensor:
        ctx.save_for_backward(jacobians)
        return path.view_as(path)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (jacobians,) = ctx.saved_tensors
        dim = grad.shape[-1]
        # time first and batch flat: one small batched product a step
        grads = grad.reshape(-1, *grad.shape[-2:]).transpose(0, 1).unsqueeze(-2)
        products = jacobians.reshape(-1, *jacobians.shape[-3:]).transpose(0, 1)
        adjoint = [grads[-1]]
        for g, jacobian in zip(grads[:-1].flip(0), products.flip(0), strict=True):
            adjoint.append(torch.baddbmm(g, adjoint[-1], jacobian))
        stacked = torch.stack(adjoint[::-1], 1)
        return stacked.reshape(*grad.shape[:-1], dim), None
