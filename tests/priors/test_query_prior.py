"""QueryPrior and PerspectivePrior: symmetries, copies, masks, gradients, errors, and an agent in a plane."""

import math
from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor

from gtm_pyro.errors import ConfigError, MemoryReadError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.memory.spatial import Retrieved
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.priors import PerspectivePrior, QueryPrior
from gtm_pyro.reading import Reading
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import Translation

LATENT, ENTRIES, QUERIES, WIDTH = 4, 9, 6, 5
PLAIN = ["attention", "mean"]
KINDS = [*PLAIN, "perspective"]
WITH_STATES = [(kind, 3) for kind in KINDS] + [(kind, 2) for kind in PLAIN]


def prior_of(kind: str = "attention", state_dim: int = 3, **fields: float) -> QueryPrior:
    """All networks away from their starting values."""
    torch.manual_seed(0)
    prior: QueryPrior
    if kind == "perspective":
        prior = PerspectivePrior(LATENT, 16, grid_size=3, channels=2, num_warped=WIDTH, **fields).double()  # type: ignore[arg-type]
    else:
        prior = QueryPrior(LATENT, state_dim, 16, kind, **fields).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for last in [prior.parameters_network[-1], *([prior.correction[-1]] if kind == "perspective" else [])]:
            last.weight.normal_(0, 0.3)  # type: ignore[operator, union-attr]
            last.bias.normal_(0, 0.3)  # type: ignore[operator, union-attr]
    return prior


def world(*batch: int, state_dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """States of entries, their latents, states of queries."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((ENTRIES, state_dim), (ENTRIES, LATENT), (QUERIES, state_dim))
    where, z, s = (torch.randn(*batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes)
    return where, z, s


def read(where: Tensor, z: Tensor, s: Tensor, k: int = WIDTH, allowed: Tensor | None = None) -> Retrieved:
    keys = HeadingKeys(0.5).to(where) if where.shape[-1] == 3 else torch.nn.Identity()
    return SpatialMemory(k).write(keys(where), {"loc": z, "state": where}).read(keys(s), allowed=allowed)


def parameters(prior: QueryPrior, found: Retrieved, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (*batch, Q, latent_dim)."""
    z = prior(found, s)
    assert z.num_components == 1 and z.event_shape == (LATENT,)
    return z.heaviest.loc, z.heaviest.scale


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "state_dim"), WITH_STATES)
def test_the_order_of_the_entries_does_not_matter(kind: str, state_dim: int) -> None:
    prior, (where, z, s) = prior_of(kind, state_dim), world(2, state_dim=state_dim)
    found, order = read(where, z, s), torch.randperm(WIDTH)
    assert found.index is not None
    mixed = replace(
        found,
        index=found.index[..., order],
        squared_distance=found.squared_distance[..., order],
        values={name: value[..., order, :] for name, value in found.values.items()},
    )
    loc, scale = parameters(prior, found, s)
    assert loc.shape == scale.shape == (2, QUERIES, LATENT) and (scale > 0).all()
    assert_same((loc, scale), parameters(prior, mixed, s))
    density = torch.distributions.Normal(loc, scale).log_prob(loc).sum(-1)
    torch.testing.assert_close(prior(found, s).log_prob(loc), density)


@pytest.mark.parametrize("kind", KINDS)
def test_only_relative_poses_matter(kind: str) -> None:
    """The same room, turned, moved, and with headings counted from another turn."""
    prior, (where, z, s) = prior_of(kind), world(2)
    angle = 0.8
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)

    def moved(poses: Tensor, turns: int = 0) -> Tensor:
        position = poses[..., :2] @ turn.mT + torch.tensor([3.0, -7.0], dtype=torch.float64)
        return torch.cat([position, poses[..., 2:] + angle + 2 * math.pi * turns], -1)

    expected = parameters(prior, read(where, z, s), s)
    for turns in (0, 3):
        assert_same(expected, parameters(prior, read(moved(where, turns), z, moved(s)), moved(s)))
    other = parameters(prior, read(moved(where), z, s), s)
    assert (other[0] - expected[0]).abs().max() > 0.01


def test_relative_poses_by_hand() -> None:
    """An entry that looks north, a query one step north of it that looks west."""
    north = math.pi / 2
    entry, query = torch.tensor([[5.0, 5.0, north]]), torch.tensor([[5.0, 6.0, 2 * north]])
    pose, turn, apart = prior_of()._relative(entry, query)
    # straight ahead of the entry, the query has come from its own left
    ahead, side = [1.0, 0.0], [0.0, -1.0]
    turns = [math.cos(i * north) for i in range(1, 7)] + [math.sin(i * north) for i in range(1, 7)]
    torch.testing.assert_close(pose, torch.tensor([[*ahead, *side, *turns]]), atol=1e-5, rtol=0)
    assert float(turn) == pytest.approx(north)
    assert float(apart) == pytest.approx(math.tanh(math.sqrt(1 + 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_memorised_view_is_copied(kind: str) -> None:
    """One entry at the pose of the query, or all of them; a little way off there is more than a copy."""
    prior, (where, z, _) = prior_of(kind), world(2)
    s = where[:, :QUERIES]
    loc, _ = parameters(prior, read(where, z, s, k=1), s)
    torch.testing.assert_close(loc, z[:, :QUERIES], rtol=0, atol=1e-4)
    away = s + 0.3
    loc, _ = parameters(prior, read(where, z, away, k=1), away)
    assert (loc - z[:, :QUERIES]).abs().max() > 0.01
    same = where[:, :1].expand(-1, ENTRIES, -1)
    loc, _ = parameters(prior, read(same, z[:, :1].expand(-1, ENTRIES, -1), same), same)
    torch.testing.assert_close(loc, z[:, :1].expand(-1, ENTRIES, -1), rtol=0, atol=1e-4)


def test_attention_prefers_the_view_itself_to_views_from_elsewhere() -> None:
    prior, (where, z, _) = prior_of(sharpness=1e4), world(2)
    s = where[:, :QUERIES]
    loc, _ = parameters(prior, read(where, z, s), s)
    torch.testing.assert_close(loc, z[:, :QUERIES], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "state_dim"), WITH_STATES)
def test_what_may_not_be_read_says_nothing(kind: str, state_dim: int) -> None:
    """Query 0 may read nothing, query 1 one entry, query 2 two, and so on; others stand where the query does."""
    prior, (where, z, s) = prior_of(kind, state_dim), world(2, state_dim=state_dim)
    earlier = torch.ones(QUERIES, ENTRIES, dtype=torch.bool).tril(-1)
    where[:, :QUERIES] = s
    leaves = [tensor.clone().requires_grad_() for tensor in (where, z, s)]
    found = read(leaves[0], leaves[1], leaves[2], allowed=earlier)
    loc, scale = parameters(prior, found, leaves[2])
    assert (loc[:, 0] == 0).all() and (scale[:, 0] == 1).all()
    for t in range(1, WIDTH + 1):
        alone = read(where[:, :t], z[:, :t], s[:, t : t + 1], k=min(t, WIDTH))
        one = parameters(prior, alone, s[:, t : t + 1])
        assert_same((loc[:, t : t + 1], scale[:, t : t + 1]), one)
    wrt = [*leaves, *prior.parameters()]
    total = (loc.square() + scale.log()).sum()
    for gradient in torch.autograd.grad(total, wrt, retain_graph=True, materialize_grads=True):
        assert gradient.isfinite().all()
    entries = torch.autograd.grad(parameters(prior, found, leaves[2])[0][:, 3].sum(), leaves[:2])
    for gradient in entries:
        assert (gradient[:, 3:] == 0).all() and (gradient[:, :3] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_states_latents_and_the_map_of_the_keys(kind: str) -> None:
    prior, (where, z, s), keys = prior_of(kind), world(), HeadingKeys(0.5).double()

    def of(where: Tensor, z: Tensor, s: Tensor, matrix: Tensor) -> Tensor:
        def place(poses: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(keys, {"matrix": matrix}, (poses,))
            return found

        memory = SpatialMemory(WIDTH).write(place(where), {"loc": z, "state": where})
        prior_z = prior(memory.read(place(s)), s)
        return torch.cat([prior_z.heaviest.loc, prior_z.heaviest.scale], -1)

    arguments = (where.requires_grad_(), z.requires_grad_(), s.requires_grad_(), keys.matrix)
    assert torch.autograd.gradcheck(of, arguments)
    (gradient,) = torch.autograd.grad(of(*arguments).square().sum(), keys.matrix, materialize_grads=True)
    assert (gradient.abs().max() > 1e-3) == (kind != "mean")


def test_particles_are_read_one_by_one() -> None:
    prior, (where, z, s) = prior_of(), world(4, 2)
    together = parameters(prior, read(where, z, s), s)
    assert together[0].shape == (4, 2, QUERIES, LATENT)
    for particle in range(4):
        single = parameters(prior, read(where[particle], z[particle], s[particle]), s[particle])
        assert_same((together[0][particle], together[1][particle]), single)


def test_wrong_arguments() -> None:
    prior, (where, z, s) = prior_of(), world(2)
    every = SpatialMemory().write(where, {"loc": z, "state": where}).read(s, "all")
    with pytest.raises(MemoryReadError, match='num_neighbors: expected a whole number for a QueryPrior, got "all"'):
        prior(every, s)
    with pytest.raises(ConfigError, match="prior.latent_dim: expected 4, .* got 3"):
        QueryPrior(3).double()(read(where, z, s), s)
    with pytest.raises(ConfigError, match="prior.state_dim: expected 3, .* got 2"):
        QueryPrior(LATENT, 2).double()(read(where, z, s), s)
    for bad in ({"latent_dim": 0}, {"hidden": 0}, {"state_dim": 0}, {"sharpness": 0.0}, {"sharpness": math.nan}):
        with pytest.raises(ConfigError, match=f"{next(iter(bad))}: expected a number over 0"):
            QueryPrior(**bad)
    with pytest.raises(ConfigError, match="aggregation: expected attention or mean, got 'sum'"):
        QueryPrior(aggregation="sum")  # type: ignore[arg-type]
    assert repr(QueryPrior(4)).startswith("QueryPrior(\n  latent_dim=4, state_dim=3, aggregation='attention'")


@pytest.mark.parametrize("reading", [Reading(), Reading("others", 3), Reading("earlier", 3)], ids=lambda r: r.scored)
@pytest.mark.parametrize("kind", PLAIN)
def test_image_navigation_has_states_in_a_plane(kind: str, reading: Reading) -> None:
    """Model, guide, bound with one and with vectorised particles, and measures."""
    torch.manual_seed(0)
    model = GTMSM(
        Translation(5, scale=0.05),
        SpatialMemory(4),
        QueryPrior(LATENT, 2, 16, kind),  # type: ignore[arg-type]
        FrameEncoder(LATENT, channels=(6, 6)),
        FrameDecoder(LATENT, channels=(6, 6)),
        reading,
    )
    guide = DeadReckoning(model)
    episodes = ImageNavigation(cuts_per_image=4, walls=False).sample(3, num_observed=12, num_predicted=6, seed=0)
    loss = Trace_ELBO().differentiable_loss(model, guide, episodes)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for name in ("transition.displacement", "prior.representation.0.weight", "encoder.first.linear.weight"):
        assert model.get_parameter(name).grad.abs().sum() > 0, name
    many = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=2)
    assert math.isfinite(many.loss(model, guide, episodes))
    pyro.clear_param_store()
    with pyro.plate("particles", 3, dim=-3):
        drawn = poutine.trace(guide).get_trace(episodes)
        scored = poutine.trace(poutine.replay(model, drawn)).get_trace(episodes)
    scored.compute_log_prob()
    for particle in range(3):
        one = poutine.trace(guide).get_trace(episodes)
        for site in "sz":
            one.nodes[site]["value"] = drawn.nodes[site]["value"][particle].detach()
        single = poutine.trace(poutine.replay(model, one)).get_trace(episodes)
        single.compute_log_prob()
        got, want = single.nodes["z"]["log_prob"], scored.nodes["z"]["log_prob"][particle]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)
    pyro.clear_param_store()
    metrics = evaluate(model, guide, episodes, iwae_particles=2).metrics
    for name in ("elbo", "iwae", "mse", "retrieval_accuracy", "localisation_rmse"):
        assert math.isfinite(metrics[name]), name
    assert not metrics.keys() & {"heading_correlation", "copy_mse"}
