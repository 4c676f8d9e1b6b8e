"""Which losses fit which pairs: each rule with a pair that breaks it, and what would go wrong."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from fitting_cases import STAGES, HookedData, programs
from pyro.contrib.gp.kernels import RBF
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from torch import nn
from toy_pairs import STAGE, Chain, FirstEncoding, Mixed, PlainNormal, PlainToy, Toy, ToyGuide, draw, toys

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.catalogue import classes
from gtm_pyro.inference.losses import check_combination
from gtm_pyro.reading import Reading
from gtm_pyro.training.fitting import fit


def kernel() -> RBF:
    with pyro.settings.context(module_local_params=True):
        return RBF(input_dim=1)


# Every loss that `gtm-pyro list` shows, at its default and at other settings.
LOSSES: dict[str, Any] = {
    "Trace_ELBO": Trace_ELBO,
    "Trace_ELBO, vectorised": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True),
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "RenyiELBO": RenyiELBO,
    "RenyiELBO, vectorised": lambda: RenyiELBO(alpha=0.5, num_particles=3, vectorize_particles=True),
    "RenyiELBO, one particle": lambda: RenyiELBO(num_particles=1),
    "ReweightedWakeSleep": ReweightedWakeSleep,
    "ReweightedWakeSleep, one by one": lambda: ReweightedWakeSleep(vectorize_particles=False),
    "ReweightedWakeSleep, dreaming": lambda: ReweightedWakeSleep(insomnia=0.5),
    "TraceEnum_ELBO": TraceEnum_ELBO,
    "TraceTMC_ELBO": TraceTMC_ELBO,
    "TraceTailAdaptive_ELBO": lambda: TraceTailAdaptive_ELBO(num_particles=2, vectorize_particles=True),
    "Trace_MMD": lambda: Trace_MMD(kernel()),
}
REFUSED = {
    "GTMSM": {
        "RenyiELBO, one particle": "num_particles of at least 2, got 1",
        "ReweightedWakeSleep": r"both have transition.displacement and \d+ more parameters of QuickGTMSM",
        "ReweightedWakeSleep, one by one": "both have transition.displacement",
        "ReweightedWakeSleep, dreaming": "both have transition.displacement",
        "TraceEnum_ELBO": "no site of QuickGTMSM or DeadReckoning has infer",
        "TraceTMC_ELBO": "no site of QuickGTMSM or DeadReckoning has infer",
        "TraceTailAdaptive_ELBO": "gradients and no value",
        "Trace_MMD": "what z has to do with s in QuickGTMSM is not scored",
    },
    "toy": {
        "RenyiELBO, one particle": "num_particles of at least 2, got 1",
        "ReweightedWakeSleep, dreaming": "no argument observations",
        "TraceEnum_ELBO": "no site of Toy or ToyGuide has infer",
        "TraceTMC_ELBO": "no site of Toy or ToyGuide has infer",
        "TraceTailAdaptive_ELBO": "gradients and no value",
    },
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("pair", [programs, toys], ids=REFUSED.keys())
def test_every_loss_trains_or_is_refused(name: str, pair: Any, request: pytest.FixtureRequest) -> None:
    loss, (model, guide) = LOSSES[name](), pair()
    stage = STAGES[1] if pair is programs else STAGE
    reason = REFUSED["GTMSM" if pair is programs else "toy"].get(name)
    if reason:
        with pytest.raises(ConfigError, match=f"loss: {type(loss).__name__} does not fit the guide .*: .*{reason}"):
            check_combination(model, guide, loss, draw(stage), stage.reading)
        return
    check_combination(model, guide, loss, draw(stage), stage.reading)
    run = fit(model, guide, HookedData(), stages=[stage], steps=3, loss=loss, log_every=1, progress=False)
    assert [line["step"] for line in run.metrics] == [1, 2, 3]
    assert all(0 < line["grad_norm"] < float("inf") for line in run.metrics)


def test_every_loss_of_the_catalogue_is_tested() -> None:
    assert {name.partition(",")[0] for name in LOSSES} == set(classes("losses"))


def test_the_check_changes_nothing() -> None:
    model, guide = programs()
    before, held = torch.get_rng_state(), len(pyro.get_param_store())
    values = [p.clone() for p in model.parameters()]
    check_combination(model, guide, TraceMeanField_ELBO(), draw(STAGES[1]), STAGES[1].reading)
    assert torch.equal(before, torch.get_rng_state()) and len(pyro.get_param_store()) == held
    assert all(torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), values, strict=True))


def test_mean_field_refuses_a_guide_that_goes_the_other_way() -> None:
    forward, backward = Chain(observe=True), Chain(backwards=True)
    check_combination(forward, Chain(), TraceMeanField_ELBO(), draw(), Reading())
    with pytest.raises(ConfigError, match="its KL divergence of b takes a as given, but the guide draws a from b"):
        check_combination(forward, backward, TraceMeanField_ELBO(), draw(), Reading())
    model, _ = programs()
    with pytest.raises(ConfigError, match="TraceMeanField_ELBO does not fit the guide FirstEncoding: .*of z takes s"):
        check_combination(model, FirstEncoding(model), TraceMeanField_ELBO(), draw(STAGES[1]), Reading("predicted", 3))
    with pytest.raises(ConfigError, match="needs reparameterised draws, z is none"):
        check_combination(Toy(), ToyGuide(PlainNormal), TraceMeanField_ELBO(), draw(), Reading())


def test_mean_field_is_off_where_it_is_refused() -> None:
    """Both losses estimate one number: they agree for a guide of the model's own order, and not for the other.

    4,000 draws each; the allowed distance is over 6 standard errors, a false alarm in under 1e-8 of seeds.
    """
    pyro.set_rng_seed(0)
    episodes, model = draw(), Chain(observe=True)

    def gap(guide: nn.Module) -> float:
        with torch.no_grad():
            losses = [
                kind(num_particles=4000, vectorize_particles=True).loss(model, guide, episodes)
                for kind in (Trace_ELBO, TraceMeanField_ELBO)
            ]
        return abs(losses[0] - losses[1]) / len(episodes)

    with pytest.warns(UserWarning, match="mean field"), pyro.validation_enabled(True):
        TraceMeanField_ELBO().loss(model, Chain(backwards=True), episodes)
    with pyro.validation_enabled(False):
        assert gap(Chain()) < 0.25 < 0.5 < gap(Chain(backwards=True))


def test_renyi_gives_no_gradient_to_other_draws() -> None:
    model, guide = Toy(), ToyGuide(PlainNormal)
    loss = RenyiELBO(num_particles=5)
    with pytest.raises(ConfigError, match="alpha 0 .* as z is, gives its parameters no gradient"):
        check_combination(model, guide, loss, draw(), Reading())
    loss.loss_and_grads(model, guide, draw())
    assert guide.weight.grad == 0 and model.mu.grad != 0
    check_combination(model, guide, RenyiELBO(alpha=0.5), draw(), Reading())


def test_parameters_that_pyro_does_not_see_are_not_silently_left_alone() -> None:
    model, guide = PlainToy(Toy()), PlainToy(ToyGuide())
    with pytest.raises(ConfigError, match="only parameters that Pyro sees"):
        check_combination(model, guide, RenyiELBO(), draw(), Reading())
    RenyiELBO().loss_and_grads(model, guide, draw())
    assert all(p.grad is None for program in (model, guide) for p in program.parameters())
    Trace_ELBO()(model, guide)(draw()).backward()
    assert all(p.grad != 0 for program in (model, guide) for p in program.parameters())


def test_the_weights_of_renyi_are_of_one_episode_each() -> None:
    pyro.set_rng_seed(0)
    model, guide, episodes = Toy(), ToyGuide(), draw()
    bound = -RenyiELBO(num_particles=3).loss(model, guide, episodes)
    pyro.set_rng_seed(0)
    weights = []
    for _ in range(3):
        guided = pyro.poutine.trace(guide).get_trace(episodes)
        replayed = pyro.poutine.trace(pyro.poutine.replay(model, guided)).get_trace(episodes)
        replayed.compute_log_prob()
        guided.compute_log_prob()
        x, z = (replayed.nodes[name]["log_prob"] for name in ("x", "z"))
        weights.append((x + z - guided.nodes["z"]["log_prob"]).detach())
    per_episode = (torch.stack(weights).logsumexp(0) - torch.tensor(3.0).log()).sum()
    torch.testing.assert_close(torch.tensor(bound), per_episode)


def test_wake_sleep_refuses_draws_from_draws() -> None:
    """Pyro's gradient of -log q(b | a) for given draws should not depend on how a was made, but does."""
    forward, guide, episodes = Chain(observe=True), Chain(), draw()
    with pytest.raises(ConfigError, match="the guide draws b from a, and Pyro lets the gradient"):
        check_combination(forward, guide, ReweightedWakeSleep(), episodes, Reading())
    gradients = []
    for held in (False, True):
        pyro.set_rng_seed(0)
        made = pyro.poutine.trace(guide).get_trace(episodes)
        if held:
            made = pyro.poutine.trace(
                pyro.poutine.condition(guide, {"a": made.nodes["a"]["value"].detach()})
            ).get_trace(episodes)
        made.detach_()
        site = made.nodes["b"]
        gradients.append(
            torch.autograd.grad(site["fn"].log_prob(site["value"]).sum(), guide.first, allow_unused=True)[0]
        )
    assert gradients[1] is None and gradients[0] is not None and gradients[0] != 0


def test_wake_sleep_refuses_a_guide_that_it_cannot_train() -> None:
    guide = ToyGuide(lambda loc, scale: dist.Delta(loc))
    with pytest.raises(ConfigError, match="its density at given draws, and that has no parameters in it"):
        check_combination(Toy(), guide, ReweightedWakeSleep(), draw(), Reading())
    ReweightedWakeSleep().loss_and_grads(Toy(), guide, draw())
    assert guide.weight.grad is None


@pytest.mark.parametrize(
    ("kind", "infer"),
    [
        (TraceEnum_ELBO, {"enumerate": "parallel"}),
        (TraceTMC_ELBO, {"enumerate": "parallel"}),
        (TraceTMC_ELBO, {"enumerate": "parallel", "num_samples": 3}),
    ],
)
def test_enumeration_is_taken_where_a_site_asks_for_it(kind: Any, infer: Any) -> None:
    normal = "num_samples" in infer
    model, guide = Mixed(observe=True, normal=normal), Mixed(**infer)
    check_combination(model, guide, kind(), draw(), Reading())
    run = fit(model, guide, HookedData(), stages=[STAGE], loss=kind(), log_every=1, progress=False)
    assert all(0 < line["grad_norm"] < float("inf") for line in run.metrics)
    check_combination(model, Mixed(), kind(strict_enumeration_warning=False), draw(), Reading())
