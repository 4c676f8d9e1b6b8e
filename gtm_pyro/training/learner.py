"""One step of stochastic variational inference: gradients of Pyro's loss, and Adam."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import is_identically_zero
from pyro.infer import Trace_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.auxiliary import Auxiliary
from gtm_pyro.inference.randomness import callers_random_state
from gtm_pyro.networks.precision import Precision, networks_in
from gtm_pyro.reading import Reading
from gtm_pyro.storage.checkpoints import load_tensors, program
from gtm_pyro.training.stages import LearningRates, check_prefixes, matches_prefix

_ADAM = ("step", "exp_avg", "exp_avg_sq")


def scored_frames(episodes: Episodes, reading: Reading) -> int:
    """How many frames the loss sums over."""
    steps = range(episodes.num_steps)[reading.scored_steps(episodes)]
    return episodes.batch_size * len(steps)


def trace_elbo(loss: Any, model: nn.Module, guide: nn.Module, *arguments: Any) -> Tensor:
    """``Trace_ELBO.differentiable_loss``, its value and its gradient, without a look at a number on the host.

    Pyro reads every term as it adds them up, and each time the host waits for an accelerator.

    :param loss: without ``vectorize_particles``.
    :param guide: reparameterised, as a rule. Where a draw is not, Pyro's loss, of one term more, is given the draws.
    """
    total = torch.zeros((), device=arguments[0].device)
    for _ in range(loss.num_particles):
        drawn = poutine.trace(guide).get_trace(*arguments)
        replayed = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*arguments)
        guide_trace, model_trace = prune_subsample_sites(drawn), prune_subsample_sites(replayed)
        if _scores(guide_trace):
            particle = Trace_ELBO().differentiable_loss(model, poutine.replay(guide, trace=drawn), *arguments)
        else:
            model_trace.compute_log_prob()
            particle = _log_prob_sum(guide_trace) - _log_prob_sum(model_trace)
        total = total + particle / loss.num_particles
    return total


def is_reparameterised(guide: nn.Module, episodes: Episodes, reading: Reading) -> bool:
    """Whether every draw of a guide has a gradient, in one run; the random state is left as it was."""
    with callers_random_state(episodes.device), torch.no_grad():
        return not _scores(prune_subsample_sites(poutine.trace(guide).get_trace(episodes, reading)))


def _scores(guide_trace: poutine.Trace) -> bool:
    """Whether a gradient takes a score function, as it does where a draw is not reparameterised."""
    guide_trace.compute_score_parts()
    sites = (site for site in guide_trace.nodes.values() if site["type"] == "sample")
    return any(not is_identically_zero(site["score_parts"].score_function) for site in sites)


def _log_prob_sum(trace: poutine.Trace) -> Any:
    return sum(site["log_prob_sum"] for site in trace.nodes.values() if site["type"] == "sample")


class Learner:
    """A model, a guide, a loss and an optimiser.

    :param loss: any of Pyro's, or any ``gtm_pyro.inference.losses.Loss``.
    :param rates: of Adam, before decay.
    :param clip_norm: the gradient of the loss in nats a frame is scaled down to this norm; None leaves it.
    :param precision: of the networks, forwards and backwards; parameters and Adam keep float32.
    :param auxiliary: what is added to the loss, in nats: see ``gtm_pyro.inference.auxiliary``.
    :raises ConfigError: there is nothing to train, or a prefix of ``rates`` names nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        loss: Any,
        rates: LearningRates,
        clip_norm: float | None,
        precision: Precision = "float32",
        auxiliary: Auxiliary | None = None,
    ) -> None:
        self.auxiliary = auxiliary
        self.model, self.guide, self.precision = model, guide, precision
        self.loss: Any = loss
        self._by_pyro: bool | None = None
        self.default_rate = rates.default
        self.max_norm = float("inf") if clip_norm is None else clip_norm
        self.program = program(model, guide)
        self.parameters = {name: p for name, p in self.program.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ConfigError("model: expected parameters to train, got none")
        # fused: a third of the time of foreach for these small parameters
        self.optimizer = torch.optim.Adam(rates.groups(self.parameters), fused=True)

    def check_frozen(self, setting: str, prefixes: Sequence[str]) -> None:
        """Raise ConfigError for a prefix that no parameter has, or where nothing is left to train."""
        check_prefixes(setting, prefixes, self.parameters)
        if all(any(matches_prefix(prefix, name) for prefix in prefixes) for name in self.parameters):
            raise ConfigError(f"{setting}: expected some parameters to be left to train, got all of them")

    def freeze(self, prefixes: Sequence[str]) -> None:
        """Take these parameters as constants, and all others not; what a frozen network does needs no gradient."""
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(not any(matches_prefix(prefix, name) for prefix in prefixes))

    def at_step(self, step: int, total: int) -> None:
        """Tell a loss that wants to know how many steps were taken, and how many there will be."""
        if hasattr(self.loss, "at_step"):
            self.loss.at_step(step, total)

    def gradients(self, episodes: Episodes, reading: Reading) -> tuple[Tensor, Tensor]:
        """Set the gradients; returns the loss in nats a frame and the gradient's norm before clipping."""
        self.optimizer.zero_grad()
        frames = scored_frames(episodes, reading)
        # Pyro's checks were made before the first step; here a NaN must reach the loss, where it is noticed
        with pyro.validation_enabled(False), networks_in(self.precision):
            extra = None
            if self.auxiliary is not None:
                extra = self.auxiliary(self.model, self.guide, episodes, reading) / frames
            if hasattr(self.loss, "differentiable_loss"):
                value = self._backward(self._differentiable_loss(episodes, reading) / frames, extra)
            else:
                value = self._loss_and_grads(episodes, reading, frames)
                if extra is not None:
                    value = value + (self._backward(extra) if extra.requires_grad else extra)
        return value.detach(), nn.utils.clip_grad_norm_(self.parameters.values(), self.max_norm)

    @staticmethod
    def _backward(value: Tensor, extra: Tensor | None = None) -> Tensor:
        total = value if extra is None else value + extra
        if not total.requires_grad:
            raise ConfigError("frozen: expected some parameter that the loss depends on to be left to train, got none")
        total.backward()
        return total.detach()

    def _differentiable_loss(self, episodes: Episodes, reading: Reading) -> Tensor:
        if self._by_pyro is None:
            self._by_pyro = (
                type(self.loss) is not Trace_ELBO
                or self.loss.vectorize_particles
                or isinstance(self.guide, Messenger)  # Pyro's effectful guides make both traces themselves
                or not is_reparameterised(self.guide, episodes, reading)
            )
        if not self._by_pyro:
            return trace_elbo(self.loss, self.model, self.guide, episodes, reading)
        loss: Tensor = self.loss.differentiable_loss(self.model, self.guide, episodes, reading)
        return loss

    def _loss_and_grads(self, episodes: Episodes, reading: Reading, frames: int) -> Tensor:
        total = self.loss.loss_and_grads(self.model, self.guide, episodes, reading)
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad /= frames
        if isinstance(total, tuple):  # of wake and sleep: the first is the bound
            total = total[0]
        return torch.as_tensor(total / frames, device=episodes.device)

    def update(self, decay: float) -> None:
        """Take one step of Adam at ``decay`` times the learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * decay
        self.optimizer.step()

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Set all values to these and forget what the optimiser has gathered."""
        load_tensors(self.program, tensors)
        self.optimizer.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and optimiser state, for a checkpoint."""
        tensors = dict(self.program.state_dict())
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``tensors``."""
        self.start_from(tensors)
        for name, parameter in self.parameters.items():
            entries = {key: tensors.get(f"optimizer.{key}.{name}") for key in _ADAM}
            if entries["step"] is not None:  # a parameter that never had a gradient has none
                self.optimizer.state[parameter] = {
                    key: t.to(parameter.device) for key, t in entries.items() if t is not None
                }
