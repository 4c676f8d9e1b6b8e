"""Latents each of which is drawn given all earlier ones: the whole sequence is one random variable."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions.kl import register_kl

Conditional = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Mean and standard deviation of z_t, ``(..., latent_dim)``, from Psi_{t-1} and what else is known of the step."""


class Recurrence(Protocol):
    """What a path asks of a controller: see :class:`gtm_pyro.memory.controller.Controller`."""

    def initial(self, batch_shape: Sequence[int], like: Tensor, /) -> Any: ...
    def read(self, state: Any, c: Tensor, /) -> tuple[Tensor, Any]: ...
    def write(self, state: Any, z: Tensor, /) -> Any: ...
    def parameters(self) -> Iterable[Tensor]: ...


class Start(NamedTuple):
    """What is known when a path begins.

    :ivar state: of the recurrence, its tensors beginning with ``batch_shape``.
    """

    state: Any
    batch_shape: torch.Size


class Rolled(NamedTuple):
    """
    :ivar z: a sequence, ``(*batch, T, latent_dim)``.
    :ivar contexts: Psi before each step, ``(*batch, T, context_dim)``.
    :ivar state: of the recurrence, after the last step.
    """

    z: Tensor
    contexts: Tensor
    state: Any


class _Met(NamedTuple):
    """The contexts that a draw met, and by which recurrence: what is kept cannot lose its identity or address."""

    contexts: Tensor
    origin: tuple[object, ...]
    kept: list[object]


class AutoregressivePath(TorchDistribution):
    """prod_t N(z_t | f(Psi_{t-1}, e_t)): eqs. (7) and (8), Gemici et al. 2017, with Psi_{t-1} made of z_{1:t-1}.

    Generative process::

        state = start
        for t in 1..T:
            Psi_{t-1}, state = recurrence.read(state, c_t)
            z_t ~ Normal(*conditional(Psi_{t-1}, e_t))
            state = recurrence.write(state, z_t)

    ``rsample`` goes step by step. ``log_prob`` is teacher forced: the recurrence is rolled along the sequence, and all
    steps are scored in one call of ``conditional``. Prior and posterior share the recurrence, and a draw of the one
    remembers the contexts that it met: under the same recurrence, unchanged and with the same c, the other scores it
    without rolling again. Values and gradients are those of the plain formula. Like autograd, this does not see changes
    made through ``.data``.

    ``torch.distributions.kl_divergence`` of two such paths, and with it ``pyro.infer.TraceMeanField_ELBO``, is the sum
    over steps of the KL divergence in closed form, along the sequence that the first one drew last: eq. (6).

    Batch shape ``(*batch)``, event shape ``(T, latent_dim)``.

    :param recurrence: the controller, with its memory.
    :param conditional: f, called with contexts ``(..., context_dim)`` and e ``(..., size)``.
    :param latent_dim: length of z.
    :param c: the context variables, ``(*batch, T, action_dim)``; the first is not used where nothing came before.
    :param e: what else is known of each step, ``(*batch, T, size)``; None: nothing.
    :param start: of the same batch; None: nothing came before.
    :raises ValueError: shapes that do not fit.
    """

    arg_constraints = {"c": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        recurrence: Recurrence,
        conditional: Conditional,
        latent_dim: int,
        c: Tensor,
        e: Tensor | None = None,
        start: Start | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if c.dim() < 2 or not c.shape[-2]:
            raise ValueError(f"c: expected (..., time, action_dim) of at least one step, got {tuple(c.shape)}")
        if e is not None and e.shape[:-1] != c.shape[:-1]:
            raise ValueError(f"e: expected (*{tuple(c.shape[:-1])}, size), got {tuple(e.shape)}")
        if start is not None and start.batch_shape != c.shape[:-2]:
            raise ValueError(f"start: expected batch shape {tuple(c.shape[:-2])}, got {tuple(start.batch_shape)}")
        self.recurrence, self.conditional, self.c, self.e, self.start = recurrence, conditional, c, e, start
        self._drawn: Tensor | None = None
        super().__init__(c.shape[:-2], torch.Size((c.shape[-2], latent_dim)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "AutoregressivePath":
        batch_shape = torch.Size(batch_shape)
        new = self._get_checked_instance(AutoregressivePath, _instance)
        new.recurrence, new.conditional = self.recurrence, self.conditional
        new.c, new.e, new.start, new._drawn = self.c, self.e, self.start, None
        super(AutoregressivePath, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def roll(self, batch_shape: Sequence[int], pick: Callable[[int, Tensor], Tensor]) -> Rolled:
        """The recurrence along a sequence that is made, or given, step by step.

        :param batch_shape: the distribution's own, or one that has it on its right.
        :param pick: z_t, ``(*batch_shape, latent_dim)``, from t, counted from 0, and Psi_{t-1}.
        """
        batch = tuple(batch_shape)
        c = self.c.expand(*batch, *self.c.shape[-2:])
        if self.start is None:
            state = self.recurrence.initial(batch, c)
        else:
            state = _expanded(self.start.state, batch, len(self.start.batch_shape))
        sequence, contexts = [], []
        for t, c_t in enumerate(c.unbind(-2)):
            nothing_before = self.start is None and t == 0
            context, state = self.recurrence.read(state, torch.zeros_like(c_t) if nothing_before else c_t)
            contexts.append(context)
            sequence.append(pick(t, context))
            state = self.recurrence.write(state, sequence[-1])
        return Rolled(torch.stack(sequence, -2), torch.stack(contexts, -2), state)

    def expected(self) -> Rolled:
        """The sequence in which every step is the mean of its conditional, of the distribution's batch shape."""
        e = self._e(self.batch_shape)
        return self.roll(self.batch_shape, lambda t, context: self.conditional(context, e[t])[0])

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        shape = self._extended_shape(sample_shape)
        e, noise = self._e(shape[:-2]), torch.randn(shape, dtype=self.c.dtype, device=self.c.device).unbind(-2)

        def draw(t: int, context: Tensor) -> Tensor:
            loc, scale = self.conditional(context, e[t])
            return loc + scale * noise[t]

        z, contexts, _ = self.roll(shape[:-2], draw)
        kept: list[object] = [self.c, self.start, *self._parameters()]
        z._gtm_met = _Met(contexts, self._origin(z), kept)  # type: ignore[attr-defined]
        self._drawn = z
        return z

    def contexts(self, z: Tensor) -> Tensor:
        """Psi before each step of a sequence ``(*batch, T, latent_dim)``: ``(*batch, T, context_dim)``."""
        met: _Met | None = getattr(z, "_gtm_met", None)
        # what was drawn without gradients has none to give
        if met is not None and met.origin == self._origin(z) and (z.requires_grad or not torch.is_grad_enabled()):
            return met.contexts
        return self.roll(z.shape[:-2], lambda t, context: z[..., t, :]).contexts

    def conditionals(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of all steps along a sequence, each ``(*batch, T, latent_dim)``."""
        contexts = self.contexts(z)
        return self.conditional(contexts, None if self.e is None else self.e.expand(*z.shape[:-1], self.e.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value if value.shape[:-2] == self.batch_shape else self._broadcast(value)
        loc, scale = self.conditionals(value)
        unit = (value - loc) / scale
        return (-0.5 * unit.square() - scale.log() - 0.5 * math.log(2 * math.pi)).sum((-2, -1))

    def _broadcast(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        return value if batch == value.shape[:-2] else value.expand(*batch, *self.event_shape)

    def _e(self, batch: Sequence[int]) -> Sequence[Tensor | None]:
        """What is known of each step."""
        if self.e is None:
            return [None] * self.event_shape[0]
        return self.e.expand(*batch, *self.e.shape[-2:]).unbind(-2)

    def _parameters(self) -> list[Tensor]:
        return list(self.recurrence.parameters())

    def _origin(self, z: Tensor) -> tuple[object, ...]:
        """Equal for two paths and a sequence only if the same steps made it and nothing has changed since."""
        c, parameters = self.c, [(id(p), p._version, p.requires_grad) for p in self._parameters()]
        where = (c.data_ptr(), c.shape, c.stride(), c._version, c.requires_grad)
        return id(self.recurrence), id(self.start), z._version, *where, *parameters


def kl_steps(q: AutoregressivePath, p: AutoregressivePath, z: Tensor) -> Tensor:
    """KL[q(z_t | z_{1:t-1}) || p(z_t | z_{1:t-1})] of each step along a sequence, ``(*batch, T)``, in nats: eq. (6).

    :param z: ``(*batch, T, latent_dim)``.
    """
    (loc, scale), (prior_loc, prior_scale) = q.conditionals(z), p.conditionals(z)
    ratio = (scale / prior_scale).square()
    return 0.5 * (ratio + ((loc - prior_loc) / prior_scale).square() - 1 - ratio.log()).sum(-1)


@register_kl(AutoregressivePath, AutoregressivePath)  # type: ignore[untyped-decorator, unused-ignore]
def _kl_along_the_draw(q: AutoregressivePath, p: AutoregressivePath) -> Tensor:
    """Its expectation over draws of q is the divergence; q that has drawn nothing knows no sequence."""
    if (
        q._drawn is None
    ):  # torch's and Pyro's sign for a divergence without a closed form: Pyro then takes the draws' own
        raise NotImplementedError("kl_divergence: expected a path that was drawn from, to go along its draw")
    return kl_steps(q, p, q._drawn).sum(-1)


def _expanded(state: Any, batch: Sequence[int], known: int) -> Any:
    """A state of ``known`` batch dimensions for a batch that has these on its right."""
    if isinstance(state, Tensor):
        return state.expand(*batch, *state.shape[known:])
    return type(state)(*(_expanded(part, batch, known) for part in state)) if isinstance(state, tuple) else state
