"""Stages and learning rates: how steps are shared out, how rates decay, and which parameter has which."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting_cases import (
    DATA,
    SHORT,
    STAGES,
    HookedData,
    assert_same,
    at_step,
    parameters,
    programs,
    stopping_at,
    train,
)
from pyro.infer import Trace_ELBO

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, RunFolderError
from gtm_pyro.inference.randomness import module_parameters, set_seed
from gtm_pyro.priors import BackgroundPrior
from gtm_pyro.reading import Reading
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.plan import check_plan
from gtm_pyro.training.stages import LearningRates, Schedule, Stage

FROZEN = (STAGES[0], replace(STAGES[1], frozen=("encoder", "transition")))


def test_schedule_scales_stages_to_the_total() -> None:
    stages = [Stage(1500), Stage(1000)]
    assert Schedule(stages).ends == (1500, 2500)
    for total in (1, 2, 7, 999, 10_000):
        schedule = Schedule(stages, total)
        numbers = [schedule.index(position) for position in range(total)]
        assert schedule.ends[-1] == len(numbers) == total
        assert numbers.count(0) == pytest.approx(0.6 * total, abs=0.5)


def test_schedule_names_the_stage_that_ended_unless_it_was_cut_short() -> None:
    stages = [Stage(10), Stage(20)]
    schedule = Schedule(stages)
    assert schedule.ended(10) is stages[0] and schedule.ended(30) is stages[1]
    assert schedule.ended(0) is schedule.ended(9) is schedule.ended(11) is None
    assert Schedule(stages, 12).ended(4) is None
    assert Schedule(stages, 15).ended(5) is stages[0]


def test_decay_is_a_cosine_from_one_to_zero() -> None:
    schedule = Schedule([Stage(10), Stage(30)])
    assert schedule.decay(0) == 1
    assert schedule.decay(20) == pytest.approx(0.5)
    assert schedule.decay(40) == pytest.approx(0)


def test_the_longest_prefix_sets_the_rate() -> None:
    names = ["model.transition.displacement", "model.transition.gate.weight", "model.encoder.weight", "guide.scale"]
    tensors = {name: torch.zeros(1) for name in names}
    rates = LearningRates(1.0, {"transition": 2.0, "transition.gate": 3.0, "guide": 4.0})
    found = {name: g["lr"] for g in rates.groups(tensors) for name in names if g["params"][0] is tensors[name]}
    assert found == dict(zip(names, (2.0, 3.0, 1.0, 4.0), strict=True))
    with pytest.raises(ConfigError, match="transition.displacement.*got 'displacement'"):
        LearningRates(1.0, {"displacement": 1.0}).groups(tensors)


def test_rates_reach_the_optimiser() -> None:
    run = train(stages=SHORT, steps=1, learning_rates=LearningRates(1e-9, {"transition.displacement": 0.5}))
    model, _ = programs()
    fresh = train(stages=SHORT, steps=1, learning_rates=LearningRates(1e-9))
    moved = (run.model.transition.displacement - fresh.model.transition.displacement).detach().abs().max()
    assert float(moved) == pytest.approx(0.5, rel=1e-3)  # Adam's first step is the rate
    assert torch.allclose(run.model.encoder.first.linear.weight, model.encoder.first.linear.weight, atol=1e-6)


def test_stage_and_rates_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        Stage(1, batch_size=0)
    with pytest.raises(ConfigError, match="max_regret"):
        Stage(1, max_regret=-1.0)
    with pytest.raises(ConfigError, match="transition"):
        LearningRates(by_prefix={"transition": 0.0})


def test_what_a_stage_freezes_stays_as_it_is() -> None:
    model, guide = programs()
    before: dict[str, torch.Tensor] = {}
    data = at_step(9, lambda _: before.update({name: p.detach().clone() for name, p in model.named_parameters()}))
    fit(model, guide, data, stages=FROZEN, progress=False)
    kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert kept == {name for name in before if name.startswith(("encoder.", "transition."))}
    assert kept and all(p.requires_grad for p in model.parameters())


def test_other_gradients_are_those_of_a_step_that_freezes_nothing() -> None:
    model, guide = programs()
    episodes = DATA.sample(2, num_observed=12, num_predicted=4, seed=0)
    with module_parameters(model, guide):
        learner = Learner(model, guide, Trace_ELBO(), LearningRates(), None)
        found = []
        for prefixes in ((), ("model.encoder", "transition")):
            learner.freeze(prefixes)
            set_seed(0, torch.device("cpu"))
            loss, _ = learner.gradients(episodes, STAGES[1].reading)
            found.append((loss, {name: p.grad for name, p in learner.parameters.items()}))
    (whole_loss, whole), (frozen_loss, frozen) = found
    torch.testing.assert_close(frozen_loss, whole_loss)
    for name, gradient in frozen.items():
        if name.startswith(("model.encoder", "model.transition")):
            assert gradient is None
        elif whole[name] is not None:
            torch.testing.assert_close(gradient, whole[name])
    assert sum(gradient is not None for gradient in frozen.values()) >= 6


def test_a_run_that_stops_where_parts_are_frozen_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(stopping_at(14), stages=FROZEN, out=tmp_path / "run")
    resumed = train(stages=FROZEN, out=tmp_path / "run", resume=True)
    assert_same(parameters(resumed), parameters(train(stages=FROZEN)))


def test_a_run_from_before_stages_could_freeze_goes_on(tmp_path: Path) -> None:
    now = {"steps": 1, "frozen": (), "data": {}, "auxiliary": {}}
    for before in ({"steps": 1}, {"steps": 1, "frozen": []}):
        check_plan({"stages": [before]}, {"stages": [now], "precision": "float32"}, tmp_path)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("encoder", "decodre"), "^stage 1: frozen: expected the beginning of one of .*; got 'decodre'$"),
        (("model", "guide"), "^stage 1: frozen: expected the beginning of one of .*; got 'guide'$"),
        (("model",), "^stage 1: frozen: expected some parameters to be left to train, got all of them$"),
    ],
)
def test_what_cannot_be_frozen_is_named(frozen: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(stages=[replace(STAGES[0], frozen=frozen)])


def test_names_to_freeze_are_a_list() -> None:
    with pytest.raises(ConfigError, match="^frozen: expected a list of names, got 'encoder'$"):
        replace(STAGES[0], frozen="encoder")


def test_a_loss_of_frozen_parameters_alone_is_refused() -> None:
    stage = replace(STAGES[0], reading=Reading(scored="alone"), frozen=("encoder", "decoder", "transition"))
    model, guide = programs()
    model.prior = BackgroundPrior(4)
    with pytest.raises(ConfigError, match="^frozen: expected some parameter that the loss depends on to be left"):
        fit(model, guide, HookedData(), stages=[stage], progress=False)


def test_a_stage_changes_what_it_is_trained_on_and_nothing_else(tmp_path: Path) -> None:
    drawn: list[bool] = []

    class Counted(ImageNavigation):
        def sample(self, *args: Any, **kwargs: Any) -> Episodes:
            drawn.append(self.walls)
            return super().sample(*args, **kwargs)

    added: list[float] = []

    @dataclass(frozen=True)
    class Constant:
        weight: float = 0.0

        def __call__(self, model: Any, *arguments: Any) -> torch.Tensor:
            added.append(self.weight)
            return self.weight * next(model.parameters()).square().sum()

    data = Counted(cuts_per_image=4, positions=7)
    stages = [
        replace(SHORT[0], steps=3, data={"walls": False}, auxiliary={"weight": 2.0}),
        replace(SHORT[0], steps=2),
    ]
    settings: dict[str, Any] = {"stages": stages, "auxiliary": Constant(1.0), "progress": False}
    fit(*programs(), data, out=tmp_path / "run", log_every=100, **settings)
    # one look at each stage before it begins, starting values, the steps, and the verdict
    assert drawn == [False, True, False, False, False, False, True, True, True] and data.walls
    assert data.changed(walls=False).positions == 7
    assert added[:2] == [2.0, 1.0] and added[2:7] == [2.0, 2.0, 2.0, 1.0, 1.0]
    fit(*programs(), data, out=tmp_path / "run", resume=True, **settings)
    with pytest.raises(RunFolderError, match="stages: expected"):
        fit(
            *programs(),
            data,
            out=tmp_path / "run",
            resume=True,
            **{**settings, "stages": [replace(s, data={}) for s in stages]},
        )


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"data": {"walls": False}},
            "stage 1: data: expected a part with a method changed, or a dataclass, got Hooked",
        ),
        ({"auxiliary": {"weight": 1.0}}, "stage 1: auxiliary: expected a part .* got none"),
    ],
)
def test_what_a_stage_cannot_change_is_refused_before_a_step(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(*programs(), HookedData(), stages=[replace(SHORT[0], **changes)], progress=False)
    with pytest.raises(ConfigError, match="stage 1: data: .*wals"):
        fit(*programs(), DATA, stages=[replace(SHORT[0], data={"wals": False})], progress=False)
