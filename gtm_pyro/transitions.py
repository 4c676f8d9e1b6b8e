"""Transition densities p(s_t | s_{t-1}, a_t) of the state-space model."""

import logging
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import EpisodesError, check_positive
from gtm_pyro.loop_closure import close_loops, most_textured, moves_with_outcome
from gtm_pyro.recurrence import unroll

logger = logging.getLogger(__name__)


class Transition(nn.Module):
    """p(s_t | s_{t-1}, a_t) = N(f(s_{t-1}, a_t), r² I). A subclass gives ``loc``, that is f.

    :param action_dim: length of an action vector.
    :param state_dim: length of a state vector.
    :param scale: r, the standard deviation of a step in units of the state space.
    :param learn_scale: make r a parameter.
    """

    def __init__(self, action_dim: int, state_dim: int = 2, scale: float = 1e-3, learn_scale: bool = False) -> None:
        super().__init__()
        check_positive(scale=scale, action_dim=action_dim, state_dim=state_dim)
        self.action_dim, self.state_dim = action_dim, state_dim
        log_scale = torch.tensor(float(scale)).log()
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> Tensor:
        """r, a scalar."""
        return self.log_scale.exp()

    def loc(self, s: Tensor, actions: Tensor) -> Tensor:
        """f(s_{t-1}, a_t): states ``(..., state_dim)``, actions ``(..., action_dim)`` to states.

        Over any leading dimensions.
        """
        raise NotImplementedError

    def forward(self, s: Tensor, actions: Tensor) -> dist.TorchDistribution:
        """p(s_t | s_{t-1}, a_t), event shape ``(state_dim,)``."""
        return dist.Normal(self.loc(s, actions), self.scale).to_event(1)

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """The states that follow ``start``.

        :param start: s_1, ``(*batch, state_dim)``.
        :param actions: ``(*batch, time, action_dim)``; the first, which led to ``start``, is not used.
        :param noise: epsilon in units of the state space, ``(*batch, time, state_dim)``; the first is not used.
        :returns: ``(*batch, time, state_dim)``, differentiable in all three and in the parameters.
        """
        return unroll(self.loc, start, actions, noise)


class Translation(Transition):
    """s_t = s_{t-1} + M a_t + epsilon_t: a world without walls (Fraccaro et al. 2018, section 4.1).

    Parameter ``displacement``: M, ``(state_dim, action_dim)``.
    """

    def __init__(self, action_dim: int, state_dim: int = 2, scale: float = 1e-3, learn_scale: bool = False) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale)
        self.displacement = nn.Parameter(0.1 * torch.randn(state_dim, action_dim))

    def moves(self, actions: Tensor) -> Tensor:
        """M a_t, ``(..., state_dim)``."""
        return F.linear(actions, self.displacement)

    def loc(self, s: Tensor, actions: Tensor) -> Tensor:
        return s + self.moves(actions)

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        if type(self).loc is not Translation.loc:
            return super().rollout(start, actions, noise)  # a subclass has another step
        steps = (self.moves(actions) + noise)[..., 1:, :]
        return torch.cat([start.unsqueeze(-2), steps], -2).cumsum(-2)

    @torch.no_grad()
    def initialise(self, frames: Tensor, actions: Tensor) -> None:
        """Start M where loops close, from frames and actions alone.

        Where none closes, a warning is logged and M starts at random.

        :param frames: ``(batch, time, C, H, W)``.
        :param actions: ``(batch, time, action_dim)``.
        """
        best = most_textured(frames)
        try:
            displacement = close_loops(frames[best], actions[best], self.state_dim).displacement
        except EpisodesError as error:
            logger.warning("no starting values for the displacements, they start at random (%s)", error)
            displacement = 0.1 * torch.randn_like(self.displacement)
        self.displacement.copy_(displacement)


class WalledTranslation(Translation):
    """s_t = s_{t-1} + M a_t · sigma_d(s_{t-1} + M a_t) + epsilon_t: eq. (4), Fraccaro et al. 2018.

    The gate sigma_d sees where the action would lead and learns to cancel displacements through a wall.

    :param hidden: widths of the gate's hidden layers.
    :param open_bias: the gate's initial logit: positive, so that training starts in a world without walls.
    :param initialise_gate: let ``initialise`` fit the gate; otherwise it starts open.
    """

    def __init__(
        self,
        action_dim: int,
        state_dim: int = 2,
        scale: float = 1e-3,
        learn_scale: bool = False,
        hidden: Sequence[int] = (16, 16),
        open_bias: float = 3.0,
        initialise_gate: bool = True,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale)
        sizes = [state_dim, *hidden, 1]
        linear = [nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        layers: list[nn.Module] = [layer for hidden_layer in linear[:-1] for layer in (hidden_layer, nn.ReLU())]
        self.gate_network = nn.Sequential(*layers, linear[-1])
        self.open_bias, self.initialise_gate = open_bias, initialise_gate
        self._open_gate()

    def _open_gate(self) -> None:
        for layer in self._gate_linear:
            layer.reset_parameters()
        nn.init.constant_(self._gate_linear[-1].bias, self.open_bias)

    @property
    def _gate_linear(self) -> list[nn.Linear]:
        return [layer for layer in self.gate_network if isinstance(layer, nn.Linear)]

    def initialise(self, frames: Tensor, actions: Tensor, steps: int = 1000, learning_rate: float = 2e-2) -> None:
        """Start M where loops close and the gate where moves that changed no frame were tried.

        The gate is fitted to those outcomes by ``steps`` of Adam; shapes as in :meth:`Translation.initialise`.
        """
        super().initialise(frames, actions)
        self._open_gate()
        best = most_textured(frames)
        target, outcome, weight = moves_with_outcome(frames[best], actions[best], self.displacement.detach())
        if not (self.initialise_gate and len(target)):
            return
        optimiser = torch.optim.Adam(self.gate_network.parameters(), learning_rate)
        with torch.enable_grad():
            for _ in range(steps):
                optimiser.zero_grad()
                logit = self.gate_logit(target).squeeze(-1)
                F.binary_cross_entropy_with_logits(logit, outcome, weight, reduction="sum").backward()
                optimiser.step()
        optimiser.zero_grad()

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

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        same = all(
            getattr(type(self), name) is getattr(WalledTranslation, name)
            for name in ("loc", "moves", "gate", "gate_logit")
        )
        # a subclass that changes a step must not be rolled by the loop that knows these four
        return unroll(self.loc, start, actions, noise, sequential=self._sequential if same else None)

    def _sequential(self, start: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        # bare matrix products on time-first tensors: less than half the time of calling the modules
        batch = start.shape[:-1]
        layers = [(layer.weight.t(), layer.bias) for layer in self._gate_linear]
        s = start.reshape(-1, self.state_dim)
        moves = (
            self.moves(actions).expand(*batch, -1, -1).reshape(-1, actions.shape[-2], self.state_dim).transpose(0, 1)
        )
        noises = noise.expand(*batch, -1, -1).reshape(-1, actions.shape[-2], self.state_dim).transpose(0, 1)
        path = [s]
        for move, epsilon in zip(moves[1:].contiguous(), noises[1:].contiguous(), strict=True):
            h = s + move
            for weight, bias in layers[:-1]:
                h = torch.addmm(bias, h, weight).relu_()
            gate = torch.addmm(layers[-1][1], h, layers[-1][0]).sigmoid_()
            s = torch.addcmul(s, move, gate).add_(epsilon)
            path.append(s)
        return torch.stack(path, 1).reshape(*batch, -1, self.state_dim)
