"""Agents that move along the axes of the state space, with and without walls: eqs. (3) and (4)."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtm_pyro.errors import EpisodesError
from gtm_pyro.initialisation.loop_closure import Outcomes
from gtm_pyro.initialisation.slips import StartingValues, starting_values
from gtm_pyro.initialisation.transition_search import Values, propose_displacements, scored_episodes, search
from gtm_pyro.transitions.base import Transition
from gtm_pyro.transitions.recurrence import unroll

logger = logging.getLogger(__name__)

# of StartingValues.consistency, without and with slips: random starts gave at most 0.48 and 0.27, others 1.0 and 0.52
_CONSISTENT = {False: 0.7, True: 0.4}
# the share of places that lost agents may have got wrong
_WRONG = 0.02
# a search found something if it explains frames so much better than a memory that is read at random
_EXPLAINED = 0.5


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
        initialise_slip: bool = True,
    ) -> None:
        super().__init__(action_dim, state_dim, scale, learn_scale, slip, slip_scale)
        self.initialise_slip = initialise_slip and not slip
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

    def initialise(self, frames: Tensor, actions: Tensor, num_observed: int | None = None) -> None:
        """Start M where loops close, and e and R where they fail to, from frames and actions alone, in any unit.

        Where none closes, a warning is logged and M starts at random. An e given as over 0, and its R, are kept.

        :param frames: ``(batch, time, C, H, W)``.
        :param actions: ``(batch, time, action_dim)``.
        :param num_observed: e is for the first so many steps of an episode; by default for all.
        """
        self._initialise(frames, actions, num_observed)

    @torch.no_grad()
    def _initialise(self, frames: Tensor, actions: Tensor, num_observed: int | None) -> StartingValues | None:
        self.measure_actions(actions)
        try:
            found = starting_values(frames, self.standard(actions), self.state_dim, num_observed)
        except EpisodesError as error:
            self._search(frames, actions, num_observed, str(error))
            return None
        self.displacement.copy_(found.displacement)
        if self.initialise_slip:
            self.slip.fill_(found.slips.rate)
            if found.slips.rate:
                logger.info("%.3f of the steps do not do as they are told", found.slips.rate)
                length = self.moves(actions).square().mean(-1).sqrt()
                self.slip_scale.copy_(length[length > 0.1 * length.max()].square().mean().sqrt())
        return found

    def _search(self, frames: Tensor, actions: Tensor, num_observed: int | None, why: str) -> None:
        """Where no loop closes, no frame looks like another one: candidates are ranked by how alike they are."""
        few, tau = scored_episodes(frames.shape[1], num_observed)
        frames, actions = frames[:few], actions[:few]
        propose = partial(propose_displacements, rows=range(self.state_dim))
        still = {"displacement": torch.zeros_like(self.displacement)}

        def candidates(best: Values, generator: torch.Generator) -> Values:
            return {"displacement": propose(best["displacement"], generator)}

        found = search(self, candidates, still, frames, actions, tau, nn.Identity())
        if found.score < _EXPLAINED * found.chance:
            logger.info("search: %.3g where a random memory has %.3g (%s)", found.score, found.chance, why)
            # places are the same under any invertible map, so axes of equal length are as good
            basis = torch.linalg.svd(found.values["displacement"], full_matrices=False).Vh
            self.displacement.copy_(basis)
            return
        logger.warning("no starting values for the displacements, they start at random (%s)", why)
        self.displacement.copy_(0.1 * torch.randn_like(self.displacement))


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
