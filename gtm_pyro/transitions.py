"""Transition densities p(s_t | s_{t-1}, a_t) of the state-space model."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError, EpisodesError, check_positive
from gtm_pyro.loop_closure import Outcomes
from gtm_pyro.recurrence import unroll
from gtm_pyro.slips import StartingValues, starting_values

logger = logging.getLogger(__name__)

# of StartingValues.consistency, without and with slips: random starts gave at most 0.48 and 0.27, others 1.0 and 0.52
_CONSISTENT = {False: 0.7, True: 0.4}
# the share of places that lost agents may have got wrong
_WRONG = 0.02
_LOG_2PI = math.log(2 * math.pi)


class Transition(nn.Module):
    """p(s_t | s_{t-1}, a_t) = (1 - e) N(f(s_{t-1}, a_t), r² I) + e N(f(s_{t-1}, a_t), R² I).

    A subclass gives ``loc``, that is f. With e = 0, the default, a step is Gaussian as in Fraccaro et al. 2018; e > 0
    is for an agent that sometimes does not do as it is told.

    :param action_dim: length of an action vector.
    :param state_dim: length of a state vector.
    :param scale: r, the standard deviation of a step in units of the state space.
    :param learn_scale: make r a parameter.
    :param slip: e, the probability of a slip, from 0 up to but not including 1. A buffer, not learnt.
    :param slip_scale: R, the standard deviation of a step that slips, in units of the state space. A buffer.
    :raises ConfigError: a number out of its range.
    """

    slip: Tensor
    slip_scale: Tensor

    def __init__(
        self,
        action_dim: int,
        state_dim: int = 2,
        scale: float = 1e-3,
        learn_scale: bool = False,
        slip: float = 0.0,
        slip_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(scale=scale, action_dim=action_dim, state_dim=state_dim, slip_scale=slip_scale)
        if not 0 <= slip < 1:
            raise ConfigError(f"slip: expected a probability from 0 up to but not including 1, got {slip}")
        self.action_dim, self.state_dim = action_dim, state_dim
        log_scale = torch.tensor(float(scale)).log()
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.register_buffer("slip", torch.tensor(float(slip)))
        self.register_buffer("slip_scale", torch.tensor(float(slip_scale)))
        self._slip_read: tuple[Tensor, int, bool] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slip_read": None}  # a copy's buffer counts its versions anew

    @property
    def slips(self) -> bool:
        """Whether e > 0. The buffer is read again only after it changed: no wait for an accelerator."""
        e = self.slip
        if e.is_inference():  # such tensors count no versions
            return bool(e > 0)
        if self._slip_read is None or self._slip_read[0] is not e or self._slip_read[1] != e._version:
            self._slip_read = (e, e._version, bool(e > 0))
        return self._slip_read[2]

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
        """p(s_t | s_{t-1}, a_t), event shape ``(state_dim,)``; a mixture of two Gaussians where e > 0."""
        loc = self.loc(s, actions)
        if not self.slips:
            return dist.Normal(loc, self.scale).to_event(1)
        scales = torch.stack([self.scale, self.slip_scale]).unsqueeze(-1)
        components = dist.Normal(loc.unsqueeze(-2), scales).to_event(1)
        weights = torch.stack([1 - self.slip, self.slip]).expand(components.batch_shape)
        return dist.MixtureSameFamily(dist.Categorical(weights), components)

    def scale_noise(self, unit: Tensor, slips: bool = True) -> Tensor:
        """Noise of a step from standard normal numbers ``(..., state_dim)``: r times them, or R times where it slips.

        Which steps slip is drawn here, without gradient.

        :param slips: False for e = 0.
        """
        if not (slips and self.slips):
            return self.scale * unit
        slipped = torch.rand(unit.shape[:-1], dtype=unit.dtype, device=unit.device) < self.slip
        return torch.where(slipped, self.slip_scale, self.scale).unsqueeze(-1) * unit

    def noise_log_prob(self, residual: Tensor, slips: bool = True) -> Tensor:
        """log p of s_t - f(s_{t-1}, a_t), ``(..., state_dim)`` to ``(...)``.

        :param slips: False for e = 0.
        """

        def log_normal(scale: Tensor) -> Tensor:
            return -0.5 * (residual / scale).square().sum(-1) - self.state_dim * (scale.log() + 0.5 * _LOG_2PI)

        if not (slips and self.slips):
            return log_normal(self.scale)
        return torch.logaddexp(
            torch.log1p(-self.slip) + log_normal(self.scale), self.slip.log() + log_normal(self.slip_scale)
        )

    def stepping(self, actions: Tensor) -> Callable[[Tensor, int], Tensor]:
        """``(s, t) -> f(s, a_t)`` under the parameters as they are now: for loops over time, without gradients.

        :param actions: ``(rows, time, action_dim)``; states are then ``(rows, state_dim)``.
        """
        return lambda s, t: self.loc(s, actions[:, t])

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

    def __init__(
        self,
        action_dim: int,
        state_dim: int = 2,
        scale: float = 1e-3,
        learn_scale: bool = False,
        slip: float = 0.0,
        slip_scale: float = 1.0,
        initialise_slip: bool = True,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale, slip, slip_scale)
        self.initialise_slip = initialise_slip and not slip
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

    def initialise(self, frames: Tensor, actions: Tensor, num_observed: int | None = None) -> None:
        """Start M where loops close, and e and R where they fail to, from frames and actions alone.

        Where none closes, a warning is logged and M starts at random. An e given as over 0, and its R, are kept.

        :param frames: ``(batch, time, C, H, W)``.
        :param actions: ``(batch, time, action_dim)``.
        :param num_observed: e is for the first so many steps of an episode; by default for all.
        """
        self._initialise(frames, actions, num_observed)

    @torch.no_grad()
    def _initialise(self, frames: Tensor, actions: Tensor, num_observed: int | None) -> StartingValues | None:
        try:
            found = starting_values(frames, actions, self.state_dim, num_observed)
        except EpisodesError as error:
            logger.warning("no starting values for the displacements, they start at random (%s)", error)
            self.displacement.copy_(0.1 * torch.randn_like(self.displacement))
            return None
        self.displacement.copy_(found.displacement)
        if self.initialise_slip:
            self.slip.fill_(found.slips.rate)
            if found.slips.rate:
                logger.info("%.3f of the steps do not do as they are told", found.slips.rate)
                length = self.moves(actions).square().mean(-1).sqrt()
                self.slip_scale.copy_(length[length > 0.1 * length.max()].square().mean().sqrt())
        return found


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
        slip: float = 0.0,
        slip_scale: float = 1.0,
        initialise_slip: bool = True,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale, slip, slip_scale, initialise_slip)
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

    def initialise(
        self,
        frames: Tensor,
        actions: Tensor,
        num_observed: int | None = None,
        steps: int = 1000,
        learning_rate: float = 2e-2,
    ) -> None:
        """Start M where loops close, and the gate where moves that changed no frame were tried.

        The gate is fitted to those outcomes by ``steps`` of Adam; the rest as in :meth:`Translation.initialise`. It
        stays open, and a warning is logged, where a place is now reached and now not: positions are relative to the
        start, and outcomes contradict each other if episodes start in different places.
        """
        found = self._initialise(frames, actions, num_observed)
        self._open_gate()
        if not (self.initialise_gate and found is not None):
            return
        slips = found.slips.rate > 0
        tried = found.outcomes.clear if slips else found.outcomes
        if found.consistency < _CONSISTENT[slips]:
            logger.warning(
                "no starting values for the gate, it starts open (%s %.2f, expected at least %.2f: do the episodes "
                "start in different places?)",
                "the share of moves that others do not contradict is" if slips else "of success, places explain",
                found.consistency,
                _CONSISTENT[slips],
            )
            return
        if not len(tried.target):
            logger.warning("no starting values for the gate, it starts open (the outcome of no move is clear)")
            return
        self._fit_gate(tried, steps, learning_rate, wrong=_WRONG if slips else 0.0)

    @torch.enable_grad()
    def _fit_gate(self, tried: Outcomes, steps: int, learning_rate: float, wrong: float = 0.0) -> None:
        """Logistic regression, in which a share ``wrong`` of the places may have the wrong outcome."""
        optimiser = torch.optim.Adam(self.gate_network.parameters(), learning_rate)
        for _ in range(steps):
            optimiser.zero_grad()
            logit = self.gate_logit(tried.target).squeeze(-1)
            loss = F.binary_cross_entropy_with_logits(logit, tried.reached, reduction="none")
            if wrong:
                loss = -torch.log(wrong + (1 - 2 * wrong) * torch.exp(-loss))
            (tried.weight * loss).sum().backward()
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
        return unroll(self.loc, start, actions, noise, sequential=self._sequential)

    def stepping(self, actions: Tensor) -> Callable[[Tensor, int], Tensor]:
        names = ("loc", "moves", "gate", "gate_logit")
        same = all(getattr(type(self), name) is getattr(WalledTranslation, name) for name in names)
        kinds = [nn.ReLU if i % 2 else nn.Linear for i in range(2 * len(self._gate_linear) - 1)]
        if not (same and [type(layer) for layer in self.gate_network] == kinds):
            return super().stepping(actions)  # a subclass or another network that changes a step
        # bare matrix products: less than half the time of calling the modules
        layers = [(layer.weight.t(), layer.bias) for layer in self._gate_linear]
        moves = self.moves(actions).movedim(-2, 0).contiguous().unbind(0)

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
