"""Stages and learning rates: how steps are shared out, how rates decay, and which parameter has which."""

import pytest
import torch
from fitting_cases import SHORT, programs, train

from gtm_pyro.errors import ConfigError
from gtm_pyro.stages import LearningRates, Schedule, Stage


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
