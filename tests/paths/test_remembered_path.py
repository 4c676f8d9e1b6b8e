"""RememberedPath: drawn step by step, scored at once."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from gtm_pyro.paths.remembered import RememberedPath
from gtm_pyro.paths.transition import TransitionPath
from gtm_pyro.transitions import RememberedWalls
from gtm_pyro.transitions.remembered import SeenWalls


def make(batch: tuple[int, ...] = (4, 1), time: int = 8, entries: int = 5, scale: float = 0.3) -> RememberedPath:
    torch.manual_seed(0)
    transition = RememberedWalls(3, (1, 2, 2), scale=scale, side=7).double()
    with torch.no_grad():
        transition.displacement.copy_(torch.tensor([[0, 0, 0.6], [0, 0, 0.8], [1.0, -0.5, 0.1]]))
    actions = torch.eye(3, dtype=torch.float64)[torch.randint(3, (*batch, time))]
    initial = dist.Normal(torch.zeros(3, dtype=torch.float64), 0.5).to_event(1)
    maps = 2 * torch.randn(*batch, entries, 7, 7, dtype=torch.float64)
    return RememberedPath(initial, transition, actions, maps)


def plain_log_prob(path: RememberedPath, value: Tensor) -> Tensor:
    """Step by step, as the density is written."""
    total = path.initial.log_prob(value[..., 0, :])
    transition = path.transition
    for t in range(1, value.shape[-2]):
        before = value[..., t - 1, :]
        free = transition.loc(before, transition.controls(path.actions[..., t, :]))
        known = min(t, path.maps.shape[-3])
        seen = SeenWalls(value[..., :known, :], path.maps[..., :known, :, :])
        beta = transition.wall_logit(seen, free.unsqueeze(-2)).squeeze(-1).sigmoid()
        parts = torch.stack([free, transition.stopped(before, free)], -2)
        mixture = dist.MixtureSameFamily(
            dist.Categorical(torch.stack([1 - beta, beta], -1)), dist.Normal(parts, transition.scale).to_event(1)
        )
        total = total + mixture.log_prob(value[..., t, :])
    return total


def test_log_prob_is_the_sum_over_steps() -> None:
    path = make()
    value = torch.randn(3, 4, 1, 8, 3, dtype=torch.float64)
    torch.testing.assert_close(path.log_prob(value), plain_log_prob(path, value))
    assert path.log_prob(value).shape == (3, 4, 1)
    maps = path.maps.requires_grad_()
    one, other = (
        torch.autograd.grad(score(value).sum(), maps)[0] for score in (path.log_prob, lambda v: plain_log_prob(path, v))
    )
    torch.testing.assert_close(one, other)
    assert one.abs().sum() > 0


def test_draws_have_the_density() -> None:
    """Walls stop a share beta of them: five standard errors, a false alarm in 6e-7."""
    path = make((1, 1), time=2, entries=1, scale=1e-3)
    path.actions[..., 1, :] = torch.tensor([0.0, 0.0, 1.0])
    draws = path.sample((4000,))
    free = path.transition.loc(draws[..., 0, :], path.transition.controls(path.actions)[..., 1, :]).detach()
    stopped = (draws[..., 1, :2] - free[..., :2]).norm(dim=-1) > 0.5
    seen = SeenWalls(draws[..., :1, :], path.maps)
    beta = path.transition.wall_logit(seen, free.unsqueeze(-2)).squeeze(-1).sigmoid()
    assert abs(float((stopped.double() - beta).mean())) < 5 * 0.5 / math.sqrt(4000)
    assert float(beta.min()) > 0.02 and float(beta.max()) < 0.98
    torch.testing.assert_close(draws[..., 1, 2], free[..., 2], atol=6e-3, rtol=0)


def test_without_walls_it_is_the_path_of_a_transition() -> None:
    path = make()
    free = RememberedPath(path.initial, path.transition, path.actions, torch.full_like(path.maps, -100.0))
    plain = TransitionPath(path.initial, path.transition, path.actions)
    value = plain.rsample((2,))
    # sigmoid(-8) of walls is left
    torch.testing.assert_close(free.log_prob(value), plain.log_prob(value), atol=0.02, rtol=0)


def test_a_step_goes_on_from_what_is_given() -> None:
    path = make(scale=1e-6)
    before = path.sample()[..., :3, :]
    after = path.following(before).detach()
    free = path.transition.loc(before[..., -1, :], path.transition.controls(path.actions)[..., 3, :]).detach()
    stopped = path.transition.stopped(before[..., -1, :], free)
    nearest = torch.minimum((after - free).norm(dim=-1), (after - stopped).norm(dim=-1))
    assert float(nearest.max()) < 1e-4


def test_it_expands_as_plates_do() -> None:
    path = make((4, 1))
    more = path.expand((5, 4, 1))
    assert more.rsample((2,)).shape == (2, 5, 4, 1, 8, 3)
    value = torch.randn(5, 4, 1, 8, 3, dtype=torch.float64)
    torch.testing.assert_close(more.log_prob(value), path.log_prob(value))


def test_shapes_are_checked() -> None:
    path = make()
    with pytest.raises(ValueError, match="maps: expected"):
        RememberedPath(path.initial, path.transition, path.actions, path.maps.repeat(1, 1, 2, 1, 1))
    with pytest.raises(ValueError, match="actions: expected"):
        RememberedPath(path.initial, path.transition, path.actions[..., :2], path.maps)
    with pytest.raises(ValueError, match="initial: expected"):
        RememberedPath(dist.Normal(torch.zeros(2), 1.0).to_event(1), path.transition, path.actions, path.maps)
