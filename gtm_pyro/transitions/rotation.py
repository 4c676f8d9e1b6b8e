"""Agents that turn: displacements are in the agent's frame, and its heading is part of the state."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import ConfigError, check_positive
from gtm_pyro.initialisation.transition_search import (
    CANDIDATES,
    WIDEST,
    Values,
    propose_displacements,
    scored_episodes,
    search,
    turn_signs,
)
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.transitions.base import Transition
from gtm_pyro.transitions.recurrence import unroll

logger = logging.getLogger(__name__)

Momentum = Literal["agent", "world"]

# of the error of a memory that is read at random: in place, searches that found the turns ended below 0.25 of it, and
# one that did not find how agents walk at 0.59
_DOUBTFUL = 0.45


class RotatingTranslation(Transition):
    """s_t = s_{t-1} + R(s_{t-1}^(3)) M a_t + epsilon_t: eq. (5), Fraccaro et al. 2018.

    A state is a position and a heading in radians, ``state_dim`` 3; R turns the first two coordinates of M a_t, the
    displacement in the agent's frame, by the heading. Paths are cumulative sums: of turns, then of turned moves.
    Parameter ``displacement``: M of actions in their ``action_unit``, ``(3, action_dim)``.

    :param action_dim: length of an action vector.
    :param scale: r, the standard deviation of a step, in units of the state space and in radians.
    :param learn_scale: make r a parameter.
    :param widest: of a usual action, the largest turn, in radians, and the largest move, in units of the state, that
        ``initialise`` tries.
    """

    heading = True

    def __init__(self, action_dim: int, scale: float = 1e-3, learn_scale: bool = False, widest: float = WIDEST) -> None:
        super().__init__(action_dim, 3, scale, learn_scale)
        check_positive(widest=widest)
        self.widest = widest
        self.displacement = nn.Parameter(0.1 * torch.randn(3, action_dim))

    def controls(self, actions: Tensor, past: Tensor | None = None) -> Tensor:
        """d_t = M a_t, displacements in the agent's frame, ``(*batch, T, 3)``; actions ``(*batch, T, action_dim)``."""
        return F.linear(self.standard(actions), self.displacement)

    def loc(self, s: Tensor, control: Tensor) -> Tensor:
        return s + turned(control, s[..., 2])

    @torch.no_grad()
    def initialise(self, frames: Tensor, actions: Tensor, num_observed: int | None = None) -> None:
        """Search displacements with which the memory explains what is seen, from frames and actions alone.

        :param frames: ``(batch, T, C, H, W)``.
        :param actions: ``(batch, T, action_dim)``, in any unit.
        :param num_observed: steps that are memorised; half of them by default and where none would be predicted.
        """
        self.measure_actions(actions)
        few, tau = scored_episodes(frames.shape[1], num_observed)
        frames, actions = frames[:few], actions[:few]
        keys = HeadingKeys().to(frames.device)
        # headings first: with wrong ones no position can be right
        found = search(self, partial(self._propose, rows=(2,)), self._still(), frames, actions, tau, keys)
        everything = partial(self._propose, rows=(0, 1, 2))
        found = search(self, everything, found.values, frames, actions, tau, keys, rounds=12, gain=0.02)
        for name, value in found.values.items():
            getattr(self, name).copy_(value)
        turns = self.displacement[2].clone()

        def all_turns(turns: Tensor) -> Tensor:
            self.displacement[2] = turns
            return self.controls(actions)[..., 2]

        self.displacement[2] = turns * turn_signs(turns, frames, actions, all_turns)
        logger.info("search: %.3g where a random memory has %.3g", found.score, found.chance)
        if found.score > _DOUBTFUL * found.chance:
            logger.warning(
                "the search explains little (squared error %.3g, a memory that is read at random has %.3g): starting "
                "values of the displacements may be wrong; where true ones are known, displacement_weight helps",
                found.score,
                found.chance,
            )

    @torch.enable_grad()
    def regress(self, actions: Tensor, displacements: Tensor, iterations: int = 400) -> None:
        """Fit all parameters to true displacements by least squares.

        :param actions: ``(batch, T, action_dim)``.
        :param displacements: of steps 2 to T in the agent's frame, ``(batch, T - 1, 3)``.
        """
        self.measure_actions(actions)
        parameters = list(self.parameters())
        optimiser = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")
        # in units of a usual displacement, for it stops where changes are small
        usual = displacements.square().mean().clamp_min(1e-12)

        def loss() -> Tensor:
            optimiser.zero_grad()
            error = (self.controls(actions)[:, 1:] - displacements).square().mean() / usual
            error.backward()
            return error

        optimiser.step(loss)
        optimiser.zero_grad()

    def _still(self) -> Values:
        return {"displacement": torch.zeros_like(self.displacement)}

    def _start_of_motion(self, values: Values) -> Tensor:
        """The displacement of the first step over that of all further ones under the same action, ``(3,)``."""
        return torch.ones(3)

    def _propose(self, best: Values, generator: torch.Generator, rows: Sequence[int]) -> Values:
        start = self._start_of_motion(best)
        return {"displacement": propose_displacements(best["displacement"], generator, rows, start, self.widest)}

    def rollout(self, start: Tensor, actions: Tensor, noise: Tensor, past: Tensor | None = None) -> Tensor:
        if type(self).loc is not RotatingTranslation.loc:
            return super().rollout(start, actions, noise, past)  # a subclass has another step
        moves, noise = self.controls(actions, past)[..., 1:, :], noise[..., 1:, :]
        heading = torch.cat([start[..., 2:], moves[..., 2] + noise[..., 2]], -1).cumsum(-1)
        steps = turned(moves, heading[..., :-1])[..., :2] + noise[..., :2]
        position = torch.cat([start[..., None, :2], steps], -2).cumsum(-2)
        return torch.cat([position, heading.unsqueeze(-1)], -1)


class MomentumTranslation(RotatingTranslation):
    """An agent with momentum, friction and a top speed: section 4.2.2, Fraccaro et al. 2018.

    s_t = s_{t-1} + R(s_{t-1}^(3)) d_t + epsilon_t, d_t = c_s tanh(sigma(c_f) d_{t-1} + M a_t), element by element. The
    agent is at rest in the first state, d_1 = 0. Displacements follow from the actions alone, so they are no part of
    the state. Parameters ``friction``: c_f, and ``saturation``: c_s, each ``(3,)``.

    :param momentum: "agent": d_{t-1} is carried over as it is, as in the paper, and turns with the agent; "world": its
        direction in the world is kept, R(-d_{t-1}^(3)) d_{t-1} is carried over.

    The rest as of :class:`RotatingTranslation`.
    """

    def __init__(
        self,
        action_dim: int,
        scale: float = 1e-3,
        learn_scale: bool = False,
        momentum: Momentum = "agent",
        widest: float = WIDEST,
    ) -> None:
        super().__init__(action_dim, scale, learn_scale, widest)
        if momentum not in ("agent", "world"):
            raise ConfigError(f"momentum: expected 'agent' or 'world', got {momentum!r}")
        self.momentum = momentum
        self.friction, self.saturation = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))

    def extra_repr(self) -> str:
        return f"momentum={self.momentum!r}"

    def _still(self) -> Values:
        return super()._still() | {"friction": torch.zeros_like(self.friction)}

    def _start_of_motion(self, values: Values) -> Tensor:
        return 1 - values["friction"].sigmoid()

    def _propose(self, best: Values, generator: torch.Generator, rows: Sequence[int]) -> Values:
        """As without momentum; in many candidates a friction differs too, and the top speed stays or nearly so."""
        candidates = super()._propose(best, generator, rows)
        displacement, friction = candidates["displacement"], best["friction"].expand(CANDIDATES, -1).clone()
        displacement[::2] = best["displacement"]
        row = torch.tensor(rows)[torch.randint(len(rows), (CANDIDATES,), generator=generator)].to(friction.device)
        each = torch.arange(CANDIDATES, device=friction.device)
        carried = friction[each, row].sigmoid()
        new = torch.rand(CANDIDATES, generator=generator).to(carried).mul(0.96).add(0.02)
        near = (carried + 0.02 * torch.randn(CANDIDATES, generator=generator).to(carried)).clamp(0.02, 0.98)
        draw = torch.rand(CANDIDATES, generator=generator).to(carried)
        draw[::2] *= 0.5
        new = torch.where(draw < 0.25, new, torch.where(draw < 0.5, near, carried))
        stretch = torch.randn(CANDIDATES, generator=generator)
        stretch = stretch * 10 ** (-3 + 2 * torch.rand(CANDIDATES, generator=generator))
        stretch = torch.where(new == carried, 0.0, stretch.to(carried)).exp()
        displacement[each, row] *= (stretch * (1 - new) / (1 - carried)).unsqueeze(-1)
        friction[each, row] = new.logit()
        return {"displacement": displacement, "friction": friction}

    def controls(self, actions: Tensor, past: Tensor | None = None) -> Tensor:
        """d_t, ``(*batch, T, 3)``: see :meth:`Transition.controls`."""
        if past is not None:
            whole = torch.cat([past, actions[..., 1:, :]], -2)
            return self.controls(whole)[..., past.shape[-2] - 1 :, :]
        pushes = F.linear(self.standard(actions), self.displacement)
        rest = torch.zeros_like(pushes[..., 0, :])
        return unroll(self._next, rest, pushes, torch.zeros_like(pushes))

    def _next(self, d: Tensor, push: Tensor) -> Tensor:
        if self.momentum == "world":
            d = turned(d, -d[..., 2])
        return self.saturation * torch.tanh(self.friction.sigmoid() * d + push)


def turned(displacement: Tensor, heading: Tensor) -> Tensor:
    """R(heading) displacement: ``(..., 3)`` and ``(...)``."""
    cos, sin = heading.cos(), heading.sin()
    right, up, turn = displacement.unbind(-1)
    return torch.stack([cos * right - sin * up, sin * right + cos * up, turn.expand_as(cos * right)], -1)
