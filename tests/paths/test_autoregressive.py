"""Sequences whose steps depend on all earlier ones: against linear recurrences, whose joint density is known."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from gtm_pyro.paths.autoregressive import AutoregressivePath, Start, kl_steps


class Last(NamedTuple):
    z: Tensor


class LastLatent(nn.Module):
    """Psi_{t-1} = gain z_{t-1} + c_t."""

    def __init__(self, gain: float = 0.8) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.reads = 0

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> Last:
        return Last(like.new_zeros(*batch_shape, like.shape[-1]))

    def read(self, state: Last, c: Tensor) -> tuple[Tensor, Last]:
        self.reads += 1
        return self.gain * state.z + c, state

    def write(self, state: Last, z: Tensor) -> Last:
        return Last(z)


def conditional(factor: float, scale: float) -> Any:
    """N(factor Psi + e, scale²)."""

    def f(context: Tensor, e: Tensor | None) -> tuple[Tensor, Tensor]:
        return factor * context + (0 if e is None else e), torch.full_like(context, scale)

    return f


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def path(
    recurrence: LastLatent, steps: int = 4, factor: float = 1.0, scale: float = 0.5, batch: int = 3
) -> AutoregressivePath:
    return AutoregressivePath(recurrence, conditional(factor, scale), 1, draw(batch, steps, 1))


def joint(gain: float, scale: float, inputs: Tensor) -> dist.MultivariateNormal:
    """Of z_{1:T}, z_t = gain z_{t-1} + inputs_t + scale noise, ``(batch, T)``."""
    steps = inputs.shape[-1]
    rolled = torch.tensor([[gain ** (i - j) if i >= j else 0.0 for j in range(steps)] for i in range(steps)]).double()
    return dist.MultivariateNormal(inputs @ rolled.T, scale_tril=scale * rolled)


def inputs_of(c: Tensor, factor: float = 1.0) -> Tensor:
    inputs = factor * c.squeeze(-1)
    return torch.cat([torch.zeros_like(inputs[:, :1]), inputs[:, 1:]], 1)  # the first c is not used


def test_the_density_is_the_joint_one() -> None:
    found = path(LastLatent(0.8), factor=1.5, scale=0.4)
    z = draw(3, 4, 1, seed=1)
    expected = joint(1.5 * 0.8, 0.4, inputs_of(found.c, 1.5)).log_prob(z.squeeze(-1))
    torch.testing.assert_close(found.log_prob(z), expected)
    assert found.batch_shape == (3,) and found.event_shape == (4, 1)


@torch.no_grad()
def test_draws_have_the_moments_of_the_joint_density() -> None:
    """20,000 draws: means and second moments; a sound path fails once in 10,000 seeds."""
    torch.manual_seed(0)
    found = path(LastLatent(0.8), batch=1)
    exact = joint(0.8, 0.5, inputs_of(found.c))
    white = torch.linalg.solve_triangular(
        exact.scale_tril, (found.sample((20_000,))[:, 0] - exact.mean.T), upper=False
    ).squeeze(-1)
    assert float(white.mean(0).abs().max()) < 5 / 20_000**0.5
    assert float((white.T @ white / 20_000 - torch.eye(4)).abs().max()) < 5 * (2 / 20_000) ** 0.5


def test_a_draw_is_scored_without_rolling_again_and_all_the_same() -> None:
    """Value and gradient are those of the plain formula, in which the draw is a number like any other."""
    recurrence = LastLatent()
    prior, posterior = path(recurrence), path(recurrence, factor=1.2, scale=0.3)
    prior.c = posterior.c
    results = []
    for plain in (False, True):
        torch.manual_seed(0)
        recurrence.zero_grad()
        before = recurrence.reads
        z = posterior.rsample()
        scored = z.clone() if plain else z  # a clone remembers nothing
        loss = (posterior.log_prob(scored) - prior.log_prob(scored)).sum()
        loss.backward()
        results.append((loss.detach(), recurrence.gain.grad, recurrence.reads - before))
    (loss, grad, reads), (plain_loss, plain_grad, plain_reads) = results
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(grad, plain_grad)
    assert reads == 4 and plain_reads == 12


def test_what_has_changed_is_rolled_again() -> None:
    recurrence = LastLatent(0.8)
    found = path(recurrence)
    z = found.rsample()
    with torch.no_grad():
        recurrence.gain.fill_(0.1)
    expected = joint(0.1, 0.5, inputs_of(found.c)).log_prob(z.squeeze(-1))
    torch.testing.assert_close(found.log_prob(z), expected)
    other = AutoregressivePath(recurrence, found.conditional, 1, 2 * found.c)
    torch.testing.assert_close(other.log_prob(z), joint(0.1, 0.5, inputs_of(2 * found.c)).log_prob(z.squeeze(-1)))
    with torch.no_grad():
        drawn = found.rsample()
    found.log_prob(drawn).sum().backward()
    assert float(recurrence.gain.grad) != 0  # drawn without gradients, scored with


def test_the_divergence_is_that_of_the_joint_densities() -> None:
    """Step by step in closed form along draws; its mean is the divergence of the two joint normals."""
    torch.manual_seed(0)
    recurrence = LastLatent(0.8)
    c = draw(1, 4, 1)
    q = AutoregressivePath(recurrence, conditional(1.2, 0.3), 1, c)
    p = AutoregressivePath(recurrence, conditional(1.0, 0.5), 1, c)
    with torch.no_grad():
        z = q.rsample((20_000,))
        steps = kl_steps(q, p, z).squeeze(1)
        exact = kl_divergence(joint(0.96, 0.3, inputs_of(c, 1.2)), joint(0.8, 0.5, inputs_of(c)))
        assert steps.shape == (20_000, 4) and bool((steps >= 0).all())
        total = steps.sum(-1)
        assert abs(float(total.mean() - exact)) < 5 * float(total.std()) / 20_000**0.5
        torch.testing.assert_close(kl_divergence(q, p), kl_steps(q, p, z).sum(-1))
    # the first step depends on nothing
    torch.testing.assert_close(
        steps[:, 0], kl_divergence(dist.Normal(0.0, 0.3), dist.Normal(0.0, 0.5)).expand(20_000).double()
    )


def test_a_path_that_drew_nothing_has_no_divergence() -> None:
    q, p = path(LastLatent()), path(LastLatent())
    with pytest.raises(NotImplementedError, match="expected a path that was drawn from"):
        kl_divergence(q, p)


def test_a_sequence_may_be_cut() -> None:
    """log p(z_{1:T}) = log p(z_{1:t}) + log p(z_{t+1:T} | z_{1:t})."""
    recurrence = LastLatent()
    whole, z = path(recurrence, 5), draw(3, 5, 1, seed=1)
    first = AutoregressivePath(recurrence, whole.conditional, 1, whole.c[:, :2])
    state = first.roll(first.batch_shape, lambda t, context: z[:, t]).state
    rest = AutoregressivePath(recurrence, whole.conditional, 1, whole.c[:, 2:], start=Start(state, first.batch_shape))
    torch.testing.assert_close(whole.log_prob(z), first.log_prob(z[:, :2]) + rest.log_prob(z[:, 2:]))
    many = rest.expand((7, 3)).rsample()
    assert many.shape == (7, 3, 3, 1)
    torch.testing.assert_close(rest.log_prob(many)[4], rest.log_prob(many[4].clone()))


def test_the_expected_sequence_has_no_noise() -> None:
    found = path(LastLatent(0.8), batch=2)
    expected = joint(0.8, 0.5, inputs_of(found.c)).mean
    torch.testing.assert_close(found.expected().z.squeeze(-1), expected)


def test_what_is_known_of_a_step_reaches_that_step() -> None:
    recurrence, c, e = LastLatent(), draw(3, 4, 1), draw(3, 4, 1, seed=2)
    found = AutoregressivePath(recurrence, conditional(1.0, 0.5), 1, c, e)
    expected = joint(0.8, 0.5, inputs_of(c) + e.squeeze(-1))
    z = draw(6, 3, 4, 1, seed=1)
    torch.testing.assert_close(found.log_prob(z), expected.log_prob(z.squeeze(-1)))
    torch.testing.assert_close(found.expected().z.squeeze(-1), expected.mean)
    torch.manual_seed(0)
    drawn = found.expand((6, 3)).rsample()
    assert drawn.shape == (6, 3, 4, 1) and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c": torch.zeros(3, 0, 1)}, r"c: expected \(..., time, action_dim\) of at least one step, got \(3, 0, 1\)"),
        ({"e": torch.zeros(3, 5, 1)}, r"e: expected \(\*\(3, 4\), size\), got \(3, 5, 1\)"),
        (
            {"start": Start(Last(torch.zeros(2, 1)), torch.Size((2,)))},
            r"start: expected batch shape \(3,\), got \(2,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(arguments: dict[str, Any], message: str) -> None:
    given = {"c": torch.zeros(3, 4, 1), **arguments}
    with pytest.raises(ValueError, match=message):
        AutoregressivePath(LastLatent(), conditional(1.0, 0.5), 1, **given)
