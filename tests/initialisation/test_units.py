"""The unit of actions does not matter: the same walks, each number of an action multiplied by a factor."""

from pathlib import Path

import pytest
import torch
from fitting_cases import DATA, STAGES, HookedData, programs, train
from ring_cases import ring_world, turning
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, Smoothing
from gtm_pyro.inference import DisplacementRegression
from gtm_pyro.initialisation import LoopClosure, MemorySearch
from gtm_pyro.initialisation.regression import regress
from gtm_pyro.models import GTMSM
from gtm_pyro.storage import checkpoints
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.fitting import Run, fit
from gtm_pyro.training.stages import LearningRates
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition, Translation, WalledTranslation
from gtm_pyro.transitions.base import usual_size

FACTORS = [1e-3, 1e-2, 0.1, 1.0, 7.5, 100.0, 1e3, [3.0, 1e-3, 0.2, 50.0, 7.0]]
TAU = 96


def walk(seed: int, batch: int, steps: int, **world: object) -> Episodes:
    return ImageNavigation(cuts_per_image=16, **world).sample(batch, num_observed=steps, num_predicted=0, seed=seed)


def times(actions: Tensor, factor: float | list[float]) -> Tensor:
    return actions * torch.tensor(factor)


@torch.no_grad()
def retrieval(transition: Transition, episodes: Episodes, factor: float | list[float]) -> float:
    """Among steps after TAU in a cell that was visited before, the share whose nearest state is of that cell."""
    actions = times(episodes.actions, factor)
    noise = 1e-3 * torch.randn(*actions.shape[:2], 2)
    s = transition.rollout(torch.zeros(len(actions), 2), actions, noise)
    nearest = torch.cdist(s[:, TAU:], s[:, :TAU]).argmin(-1, keepdim=True)
    assert episodes.poses is not None
    same = (episodes.poses[:, TAU:, None] == episodes.poses[:, None, :TAU]).all(-1)
    return float(same.gather(-1, nearest).squeeze(-1)[same.any(-1)].float().mean())


def started(factor: float | list[float], seen: Episodes) -> WalledTranslation:
    torch.manual_seed(0)
    transition = WalledTranslation(5)
    LoopClosure(gate_steps=300).start(transition, seen.frames, times(seen.actions, factor))
    return transition


def test_the_unit_of_actions_does_not_change_what_is_retrieved() -> None:
    seen, new = walk(1, 24, 96), walk(2, 4, 2 * TAU)
    plain = started(1.0, seen)
    assert torch.equal(plain.action_unit, torch.ones(5)), "as without units, to the bit"
    for factor in FACTORS:
        transition = started(factor, seen)
        torch.testing.assert_close(transition.action_unit, torch.tensor(factor).expand(5), rtol=0, atol=0)
        assert retrieval(transition, new, factor) > 0.99
        for name, value in plain.state_dict().items():
            assert name == "action_unit" or torch.equal(transition.state_dict()[name], value), (name, factor)


def test_real_actions_are_taken_in_their_units_too() -> None:
    seen = walk(0, 8, 48, motion="continuous")
    found = []
    for factor in (1.0, 1e-3, 1e3, [0.01, 30.0]):
        torch.manual_seed(0)
        transition, actions = Translation(2), times(seen.actions, factor)
        LoopClosure().start(transition, seen.frames, actions)
        found.append(transition.moves(actions).detach())
        length = transition.standard(actions)[:, 1:].square().sum(-1)
        assert float(length[length > 0].mean()) == pytest.approx(1, abs=1e-4)
    for moves in found[1:]:
        torch.testing.assert_close(moves, found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("guide", [DeadReckoning, LandmarkCorrected, Smoothing])
def test_guides_find_the_same_path(guide: type) -> None:
    seen = walk(0, 4, 48, motion="continuous", action_noise=0.1)
    paths = []
    for factor in (1.0, [1e-2, 250.0]):
        torch.manual_seed(0)
        model = GTMSM(WalledTranslation(2, slip=0.1))
        actions = times(seen.actions, factor)
        model.transition.measure_actions(actions)
        scaled = Episodes(seen.frames, actions, seen.num_observed)
        torch.manual_seed(1)
        with torch.no_grad():
            paths.append(guide(model.eval()).eval().path(scaled).sample())
    torch.testing.assert_close(paths[1], paths[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [RotatingTranslation, MomentumTranslation])
def test_agents_that_turn_are_searched_in_any_unit(kind: type[RotatingTranslation]) -> None:
    actions = torch.eye(3)[torch.randint(3, (4, 24), generator=torch.Generator().manual_seed(0))]
    frames = ring_world(torch.cat([torch.zeros(4, 1), turning(kind, actions)], 1))
    found, fitted = [], []
    for factor in (1.0, [0.3, 1e-3, 500.0]):
        torch.manual_seed(0)
        transition = kind(3)
        MemorySearch().start(transition, frames, times(actions, factor))
        found.append(transition.controls(times(actions, factor)).detach())
        torch.manual_seed(0)
        other = kind(3)
        regress(other, times(actions, factor), found[0][:, 1:])
        fitted.append(other.controls(times(actions, factor)).detach())
    assert torch.equal(found[1], found[0]) and torch.equal(fitted[1], fitted[0])


class Other(HookedData):
    """Image navigation with actions in other units."""

    def __init__(self, factor: float | list[float]) -> None:
        super().__init__()
        self.factor = factor

    def sample(self, *args: object, **kwargs: object) -> Episodes:
        e = DATA.sample(*args, **kwargs)  # type: ignore[arg-type]
        return Episodes(e.frames, times(e.actions, self.factor), e.num_observed, e.poses)


def trained(factor: float | list[float]) -> Run:
    model, guide = programs()
    model.__class__ = GTMSM  # with its own starting values
    rates = LearningRates(1e-3, {"transition.displacement": 1e-2})
    return fit(model, guide, Other(factor), stages=STAGES, steps=6, learning_rates=rates, progress=False)


def test_training_ends_in_the_same_model() -> None:
    """Adam moves a parameter by its rate, whatever its size: the parameter must have no unit."""
    plain, other = trained(1.0).model.state_dict(), trained([0.01, 3.0, 500.0, 0.2, 1.0]).model.state_dict()
    moved = plain["transition.displacement"] - programs()[0].transition.displacement.detach()
    assert moved.abs().max() > 1e-2
    for name, value in plain.items():
        assert name == "transition.action_unit" or torch.equal(other[name], value), name


def test_units_are_what_is_usual_for_each_number() -> None:
    one_hot = torch.eye(5)[torch.randint(5, (7, 50))]
    assert torch.equal(usual_size(one_hot), torch.ones(5))
    assert torch.equal(usual_size(times(one_hot, FACTORS[-1])), torch.tensor(FACTORS[-1]))
    # a number that is never used, and a first action, which led to the start
    actions = torch.tensor([[[9.0, 9.0, 9.0], [2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 5.0, 0.0]]])
    assert usual_size(actions).tolist() == [2.0, 5.0, 1.0]
    drawn = torch.randn(20, 400, 2) * torch.tensor([1.0, 0.01])
    torch.testing.assert_close(usual_size(drawn), 2**0.5 * torch.tensor([1.0, 0.01]), rtol=0.05, atol=0)
    assert torch.equal(Translation(3).action_unit, torch.ones(3)), "until they are measured"


def test_checkpoints_from_before_units_are_restored_with_unit_1(tmp_path: Path) -> None:
    run = train(out=tmp_path / "run")
    latest = checkpoints.load_latest(tmp_path / "run" / "checkpoint")
    assert latest is not None and "model.transition.action_unit" in latest.tensors
    old = {name: value for name, value in latest.tensors.items() if not name.endswith("action_unit")}
    checkpoints.save(tmp_path / "run" / "checkpoint", checkpoints.Checkpoint(latest.step, old, latest.state))
    model, guide = programs(seed=1)
    model.transition.action_unit.fill_(7.0)
    assert checkpoints.restore(tmp_path / "run", model, guide) == run.steps
    assert torch.equal(model.transition.action_unit, torch.ones(5))
    assert torch.equal(model.transition.displacement, run.model.transition.displacement)


def headed(unit: float) -> Episodes:
    """Walks with true poses, positions in another unit."""
    torch.manual_seed(0)
    true = RotatingTranslation(3)
    actions = torch.eye(3)[torch.randint(3, (4, 20))]
    with torch.no_grad():
        poses = true.rollout(torch.zeros(4, 3), actions, torch.zeros(4, 20, 3))
    names = ("x", "y", "heading")
    return Episodes(torch.rand(4, 20, 3, 8, 8), actions, 10, poses * torch.tensor([unit, unit, 1.0]), pose_names=names)


def test_the_unit_of_poses_that_are_targets_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    fitted = []
    for unit in (1.0, 1000.0):
        torch.manual_seed(1)
        model, objective = GTMSM(RotatingTranslation(3)), DisplacementRegression(1.0, pose_unit=unit)
        objective.initialise(model, headed(unit))
        assert float(objective.error(model, headed(unit)).detach().max()) < 1e-4
        fitted.append(model.transition.displacement.detach())
    torch.testing.assert_close(fitted[1], fitted[0], rtol=1e-3, atol=1e-3)
    assert caplog.text == ""
    DisplacementRegression(1.0).initialise(GTMSM(RotatingTranslation(3)), headed(1000.0))
    assert "pose_unit: expected moves of 0.01 to 3 units of the state" in caplog.text


def test_wide_turns_are_searched_where_they_are_asked_for() -> None:
    """A robot that turns by 90 degrees a step."""
    actions = torch.eye(3)[torch.randint(3, (4, 24), generator=torch.Generator().manual_seed(0))]
    turns = torch.tensor([0.0, 0.5, -0.5])[actions.argmax(-1)] * torch.pi
    frames = ring_world(torch.cat([torch.zeros(4, 1), turns[:, 1:].cumsum(1)], 1))
    torch.manual_seed(0)
    transition = RotatingTranslation(3)
    MemorySearch(widest=2.0).start(transition, frames, actions)
    found = transition.displacement[2].detach().abs()
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 0.5]) * torch.pi, rtol=0, atol=0.1)
