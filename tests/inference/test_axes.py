"""What tells a transition how its axes lie and where its walls are, eqs. (5) and (6) of Chen's report, by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from fitting_cases import DATA
from torch import nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import read_experiment
from gtm_pyro.inference import AxesAndWalls
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.fitting import fit
from gtm_pyro.transitions import SlidingTranslation, Translation, WalledTranslation

EPISODES = DATA.sample(3, num_observed=4, num_predicted=4, seed=0)
# the columns M_0 to M_3, and that of staying, which no term sees
COLUMNS = [(0.3, 0.4), (-0.6, 0.8), (1.0, 0.5), (2.0, -1.0), (7.0, 7.0)]


def model_with(transition: Translation) -> GTMSM:
    with torch.no_grad():
        transition.displacement.copy_(torch.tensor(COLUMNS).T)
    return GTMSM(transition)


def test_the_penalty_is_that_of_the_report() -> None:
    model = model_with(Translation(5))
    # M_0 M_2 = 0.5, M_1 M_3 = -2; lengths 0.5, 1, sqrt(1.25), sqrt(5)
    crossed = 0.5**2 + 2.0**2
    uneven = sum((length - 0.75) ** 2 for length in (0.5, 1.0, math.sqrt(1.25), math.sqrt(5)))
    got = AxesAndWalls(orthogonality=2.0, norm=3.0, length=0.75)(model, None, EPISODES)
    assert float(got.detach()) == pytest.approx(3 * (2 * crossed + 3 * uneven), rel=1e-5)
    got.backward()
    gradient = model.transition.displacement.grad
    # of M_00: 2 lambda_1 (M_0 M_2) M_20 + 2 lambda_2 (|M_0| - length) M_00 / |M_0|
    assert float(gradient[0, 0]) == pytest.approx(3 * (4 * 0.5 * 1.0 + 6 * (0.5 - 0.75) * 0.3 / 0.5), rel=1e-4)
    assert not gradient[:, 4].any()


def test_walls_are_told_as_labels_of_places_that_move_with_m() -> None:
    model = model_with(WalledTranslation(5, hidden=()))
    gate = model.transition.gate_network[0]
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[0.2, -0.1]]))
        gate.bias.fill_(0.3)
    expected = 0.0
    for j in range(-2, 3):
        for k in range(-2, 3):
            x, y = (j * COLUMNS[0][d] + k * COLUMNS[2][d] for d in range(2))
            free = 1 / (1 + math.exp(-(0.2 * x - 0.1 * y + 0.3)))
            expected -= math.log(free if max(abs(j), abs(k)) <= 1 else 1 - free)
    got = AxesAndWalls(walls=5.0, inside=1, outside=2)(model, None, EPISODES)
    assert float(got.detach()) == pytest.approx(3 * 5 * expected, rel=1e-5)
    got.backward()
    assert gate.weight.grad.abs().min() > 0
    assert not model.transition.displacement.grad.any(), "the places are a training set, not a way to move M"


def test_descent_puts_moves_at_right_angles_and_closes_the_gate_outside() -> None:
    torch.manual_seed(0)
    model = GTMSM(WalledTranslation(5, hidden=(10, 5)))
    objective = AxesAndWalls(orthogonality=100.0, norm=100.0, length=0.1875, walls=1.0)
    optimiser = torch.optim.Adam(model.transition.parameters(), 1e-2)
    for _ in range(1500):
        optimiser.zero_grad()
        objective(model, None, EPISODES).backward()
        optimiser.step()
    m = model.transition.displacement.detach()[:, :4]
    torch.testing.assert_close(m.norm(dim=0), torch.full((4,), 0.1875), rtol=0, atol=2e-3)
    assert (m[:, 0] @ m[:, 2]).abs() < 1e-3 and (m[:, 1] @ m[:, 3]).abs() < 1e-3
    line = torch.arange(-8, 9)
    steps = torch.cartesian_prod(line, line)
    free = model.transition.gate(steps.float() @ m[:, [0, 2]].T).squeeze(-1) > 0.5
    told = (steps.abs() <= 4).all(-1)
    assert (free == told).double().mean() > 0.95


def test_what_it_cannot_be_said_of_is_one_line() -> None:
    for settings, name in (({"norm": -1.0}, "norm"), ({"length": 0.0}, "length"), ({"outside": 4}, "outside")):
        with pytest.raises(ConfigError, match=name):
            AxesAndWalls(**settings)
    with pytest.raises(ConfigError, match="expected a transition M of 4 actions or more"):
        AxesAndWalls()(nn.Linear(1, 1), None, EPISODES)
    with pytest.raises(ConfigError, match="auxiliary.walls: expected a transition with a gate, got SlidingTranslation"):
        AxesAndWalls(walls=1.0)(GTMSM(SlidingTranslation(5)), None, EPISODES)
    with pytest.raises(ConfigError, match="expected a transition M of 4 actions or more"):
        AxesAndWalls()(GTMSM(WalledTranslation(2)), None, EPISODES)


def test_the_reports_curriculum_runs_stage_by_stage() -> None:
    """Few and short steps: the gate is shut where no label has told it yet, and only the last stage moves it."""
    config = resolve(read_experiment("image-navigation-curriculum"), {"data.cuts_per_image": "4"})
    experiment = config.build()
    stages = [replace(s, steps=2, batch_size=2, num_observed=12, num_predicted=4) for s in experiment.stages]
    assert [dict(s.data) for s in stages] == [{"walls": False}, {"walls": False}, {}]
    model: Any = experiment.model
    gates: list[torch.Tensor] = []
    moves: list[torch.Tensor] = []

    def look(*_: Any) -> None:
        gates.append(model.transition.gate_network[0].weight.detach().clone())
        moves.append(model.transition.displacement.detach().clone())

    class Data(ImageNavigation):
        def sample(self, *args: Any, **kwargs: Any) -> Episodes:
            look()
            return super().sample(*args, **kwargs)

    settings = {name: experiment.fields[name] for name in ("auxiliary", "initialisation", "clip_norm", "max_restarts")}
    run = fit(model, experiment.guide, Data(cuts_per_image=4), stages=stages, log_every=1, progress=False, **settings)
    added = [line["auxiliary"] for line in run.metrics]
    assert settings["initialisation"] is None and added[:2] == [0, 0]
    # 208 labels of 289 are wrong by 10 nats while the gate is open everywhere
    assert all(0 < value < 7000 * 2 * 208 * 10 / 8 for value in added[2:4])
    assert added[4] == pytest.approx(7000 * 2 * 208 * 10 / 8, rel=0.1)
    # three looks before the first step, one at each stage
    steps = gates[3:]
    assert all(torch.equal(steps[0], gate) for gate in steps[:5]) and not torch.equal(steps[0], steps[5])
    assert not torch.equal(moves[3], moves[4]), "M is trained from the first step on"
