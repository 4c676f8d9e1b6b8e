"""Agents that move along the axes of the state space, with and without walls: eqs. (3) and (4)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.transitions.base import Transition
from gtm_pyro.transitions.recurrence import unroll


class Translation(Transition):
    """s_t = s_{t-1} + M a_t + epsilon_t: a world without walls (Fraccaro et al. 2018, section 4.1).

    Parameter ``displacement``: M of actions in their ``action_unit``, ``(state_dim, action_dim)``.
    """

    def __init__(
        self,
        action_dim: int,
        state_dim: int = 2,
        scale: float = 1e-3,
        learn_scale: bool = False,
        slip: float = 0.0,
        slip_scale: float = 1.0,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale, slip, slip_scale)
        self.displacement = nn.Parameter(0.1 * torch.randn(state_dim, action_dim))

    def moves(self, actions: Tensor) -> Tensor:
        """M a_t, ``(..., state_dim)``."""
        return F.linear(self.standard(actions), self.displacement)

    def loc(self, s: Tensor, actions: Tensor) -> Tensor:
        return s + self.moves(actions)

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        if type(self).loc is not Translation.loc:
            return super().rollout(start, actions, noise, past)  # a subclass has another step
        steps = (self.moves(actions) + noise)[..., 1:, :]
        return torch.cat([start.unsqueeze(-2), steps], -2).cumsum(-2)


class WalledTranslation(Translation):
    """s_t = s_{t-1} + M a_t · sigma_d(s_{t-1} + M a_t) + epsilon_t: eq. (4), Fraccaro et al. 2018.

    The gate sigma_d sees where the action would lead and learns to cancel displacements through a wall.

    :param hidden: widths of the gate's hidden layers.
    :param open_bias: the gate's initial logit: positive, so that training starts in a world without walls.
    """

    walled = True

    def __init__(
        self,
        action_dim: int,
        state_dim: int = 2,
        scale: float = 1e-3,
        learn_scale: bool = False,
        hidden: Sequence[int] = (16, 16),
        open_bias: float = 3.0,
        slip: float = 0.0,
        slip_scale: float = 1.0,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale, slip, slip_scale)
        sizes = [state_dim, *hidden, 1]
        linear = [nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        layers: list[nn.Module] = [layer for hidden_layer in linear[:-1] for layer in (hidden_layer, nn.ReLU())]
        self.gate_network = nn.Sequential(*layers, linear[-1])
        self.open_bias = open_bias
        self.open_gate()

    def open_gate(self) -> None:
        """Draw the gate anew, open everywhere."""
        for layer in self._gate_linear:
            layer.reset_parameters()
        nn.init.constant_(self._gate_linear[-1].bias, self.open_bias)

    @property
    def _gate_linear(self) -> list[nn.Linear]:
        return [layer for layer in self.gate_network if isinstance(layer, nn.Linear)]

    def gate_logit(self, s: Tensor) -> Tensor:
        """The logit of sigma_d at positions ``(..., state_dim)``, shape ``(..., 1)``."""
        logit: Tensor = self.gate_network(s)
        return logit

    def gate(self, s: Tensor) -> Tensor:
        """sigma_d(s) in (0, 1): 1 where the agent may go, 0 behind a wall; ``(..., state_dim)`` to ``(..., 1)``."""
        return self.gate_logit(s).sigmoid()

    def loc(self, s: Tensor, actions: Tensor) -> Tensor:
        moves = self.moves(actions)
        return torch.addcmul(s, moves, self.gate(s + moves))

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        return unroll(self.loc, start, actions, noise, sequential=self._sequential)

    def stepping(self, controls: Tensor) -> Callable[[Tensor, int], Tensor]:
        names = ("loc", "moves", "gate", "gate_logit")
        same = all(getattr(type(self), name) is getattr(WalledTranslation, name) for name in names)
        kinds = [nn.ReLU if i % 2 else nn.Linear for i in range(2 * len(self._gate_linear) - 1)]
        if not (same and [type(layer) for layer in self.gate_network] == kinds):
            return super().stepping(controls)  # a subclass or another network that changes a step
        # bare matrix products: less than half the time of calling the modules
        layers = [(layer.weight.t(), layer.bias) for layer in self._gate_linear]
        moves = self.moves(controls).movedim(-2, 0).contiguous().unbind(0)

        def step(s: Tensor, t: int) -> Tensor:
            h = s + moves[t]
            for weight, bias in layers[:-1]:
                h = torch.addmm(bias, h, weight).relu_()
            return torch.addcmul(s, moves[t], torch.addmm(layers[-1][1], h, layers[-1][0]).sigmoid_())

        return step

    def _sequential(self, start: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        batch, time, dim = start.shape[:-1], actions.shape[-2], self.state_dim
        step = self.stepping(actions.expand(*batch, -1, -1).reshape(-1, time, self.action_dim))
        noises = noise.expand(*batch, -1, -1).reshape(-1, time, dim).transpose(0, 1).contiguous().unbind(0)
        path = [start.reshape(-1, dim)]
        for t in range(1, time):
            path.append(step(path[-1], t).add_(noises[t]))
        return torch.stack(path, 1).reshape(*batch, time, dim)
