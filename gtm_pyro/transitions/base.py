"""What every transition density p(s_t | s_{t-1}, a_t) of the state-space model has in common."""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.transitions.recurrence import unroll

_LOG_2PI = math.log(2 * math.pi)


class Transition(nn.Module):
    """p(s_t | s_{t-1}, a_t) = (1 - e) N(f(s_{t-1}, a_t), r² I) + e N(f(s_{t-1}, a_t), R² I).

    A subclass gives ``loc``, that is f. With e = 0, the default, a step is Gaussian as in Fraccaro et al. 2018; e > 0
    is for an agent that sometimes does not do as it is told.

    The unit in which an action is given does not matter: what is learnt is about ``standard`` actions, each number
    divided by its own ``action_unit``. That is a buffer, saved with the parameters; ``measure_actions`` takes it from
    data, before starting values are found (``gtm_pyro.initialisation``), and until then it is 1.

    :param action_dim: length of an action vector.
    :param state_dim: length of a state vector.
    :param scale: r, the standard deviation of a step in units of the state space.
    :param learn_scale: make r a parameter.
    :param slip: e, the probability of a slip, from 0 up to but not including 1. A buffer, not learnt.
    :param slip_scale: R, the standard deviation of a step that slips, in units of the state space. A buffer.
    :raises ConfigError: a number out of its range.
    :ivar slip_is_given: whether e was given as over 0; otherwise starting values may set it.
    :cvar heading: whether the last number of a state is a heading in radians, which is periodic.
    :cvar walled: whether a step depends on where it begins, so that a first state may be better than another one.
    :cvar reads_memory: whether a step depends on what was seen: :class:`~gtm_pyro.transitions.RememberedWalls`.
    """

    heading = False
    walled = False
    reads_memory = False
    slip: Tensor
    slip_scale: Tensor
    action_unit: Tensor

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
        self.slip_is_given = slip > 0
        self.register_buffer("slip", torch.tensor(float(slip)))
        self.register_buffer("slip_scale", torch.tensor(float(slip_scale)))
        self.register_buffer("action_unit", torch.ones(action_dim))
        self._slip_read: tuple[Tensor, int, bool] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slip_read": None}  # a copy's buffer counts its versions anew

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # checkpoints from before there were units: their actions are as they come
        state_dict.setdefault(f"{prefix}action_unit", torch.ones_like(self.action_unit))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @torch.no_grad()
    def measure_actions(self, actions: Tensor) -> None:
        """Set ``action_unit`` to what is usual in ``actions``, see :func:`usual_size`."""
        self.action_unit.copy_(usual_size(actions))

    def standard(self, actions: Tensor) -> Tensor:
        """Actions ``(..., action_dim)`` in their units."""
        return actions / self.action_unit

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

    def controls(self, actions: Tensor, past: Tensor | None = None) -> Tensor:
        """What ``loc`` needs of the actions of an episode, ``(*batch, T, control_dim)``: the actions themselves, unless
        a step depends on earlier ones too.

        :param actions: ``(*batch, T, action_dim)``; the first is not used.
        :param past: ``(*batch, any, action_dim)``, actions of an agent that was at rest before, up to that which led to
            the first state. None: the agent is at rest in the first state.
        """
        return actions

    def loc(self, s: Tensor, control: Tensor) -> Tensor:
        """f(s_{t-1}, a_t): states ``(..., state_dim)``, controls ``(..., control_dim)`` to states.

        Over any leading dimensions.
        """
        raise NotImplementedError

    def shown(self, s: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """What a step reads of frames ``(*fewer, N, C, H, W)`` seen at states ``(*batch, N, state_dim)``: nothing.

        By name, ``(*batch, N, ...)``.
        """
        return {}

    def reading(self, memory: Any) -> "Transition":
        """This transition as it is with a memory, which holds "state" and what ``shown`` gives: the same."""
        return self

    def forward(self, s: Tensor, control: Tensor) -> dist.TorchDistribution:
        """p(s_t | s_{t-1}, a_t), event shape ``(state_dim,)``; a mixture of two Gaussians where e > 0: the definition.

        ``noise_log_prob`` and ``TransitionPath``, which score whole paths at once, are tested against it. Arguments as
        of ``loc``: one step cannot tell what earlier actions left behind, ``controls`` of all can.
        """
        loc = self.loc(s, control)
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
        """log p of s_t - f(s_{t-1}, a_t), ``(..., state_dim)`` to ``(...)``: that of ``forward``.

        :param slips: False for e = 0.
        """
        told = log_normal(residual / self.scale, self.scale).sum(-1)
        if not (slips and self.slips):
            return told
        slipped = log_normal(residual / self.slip_scale, self.slip_scale).sum(-1)
        return torch.logaddexp(torch.log1p(-self.slip) + told, self.slip.log() + slipped)

    def stepping(self, controls: Tensor) -> Callable[[Tensor, int], Tensor]:
        """``(s, t) -> f(s, a_t)`` under the parameters as they are now: for loops over time, without gradients.

        :param controls: ``(rows, time, control_dim)``; states are then ``(rows, state_dim)``.
        """
        return lambda s, t: self.loc(s, controls[:, t])

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        """The states that follow ``start``.

        :param start: s_1, ``(*batch, state_dim)``.
        :param actions: ``(*batch, time, action_dim)``; the first, which led to ``start``, is not used.
        :param noise: epsilon in units of the state space, ``(*batch, time, state_dim)``; the first is not used.
        :param past: as of ``controls``.
        :returns: ``(*batch, time, state_dim)``, differentiable in start, actions, noise and the parameters.
        """
        return unroll(self.loc, start, self.controls(actions, past), noise)


def log_normal(units: Tensor, scale: Tensor) -> Tensor:
    """log N(x; 0, scale²) of x = scale * units, number by number."""
    return -0.5 * units.square() - scale.log() - 0.5 * _LOG_2PI


def usual_size(actions: Tensor) -> Tensor:
    """The unit of each number of an action, ``(action_dim,)``: divided by them, an action has length 1.

    That is at the root mean square over actions that are not zero, with equal shares for numbers that are not zero
    equally often. Exactly 1 for one-hot actions; 1 for a number that is always zero.

    :param actions: ``(batch, time, action_dim)``; the first of an episode, which led to its start, does not count.
    """
    given = actions[:, 1:].flatten(0, 1).double()
    used = given != 0
    square = given.square().sum(0) / used.sum(0).clamp_min(1)
    together = used.sum() / used.any(-1).sum().clamp_min(1)
    return torch.where(square > 0, (square * together).sqrt(), 1.0).to(actions.dtype)
