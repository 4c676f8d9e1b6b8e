"""Noisy real displacements: no frame repeats, and frames that are alike say where the agent was."""

import pytest
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, Smoothing
from gtm_pyro.localisation.hypotheses import HypothesisSearch
from gtm_pyro.localisation.similar_places import SimilarPlaces, similar_steps
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import RotatingTranslation, SlidingTranslation

BATCH, STEPS, NOISE = 3, 140, 0.1


def world(steps: int = STEPS, **settings: float) -> tuple[GTMSM, Episodes, Tensor]:
    """The true room of 9 x 9 cells, in cells about its centre; walks in it, and where they were."""
    data = ImageNavigation(motion="continuous", action_noise=NOISE, **settings)  # type: ignore[arg-type]
    seen = data.sample(BATCH, num_observed=steps, num_predicted=0, seed=3)
    transition = SlidingTranslation(2, scale=NOISE)
    transition.measure_actions(seen.actions)
    with torch.no_grad():
        transition.displacement.copy_(torch.eye(2) * transition.action_unit)
        transition.offsets.fill_(4.0)
    assert seen.poses is not None
    return GTMSM(transition).eval(), seen, seen.poses - 4


def error(path: Tensor, truth: Tensor) -> float:
    return float((path - truth).detach().square().sum(-1).mean().sqrt())


def found(model: GTMSM, seen: Episodes) -> Tensor:
    start, variance = (x.squeeze(1) for x in Smoothing(model).start(seen))
    return SimilarPlaces()(model.transition, seen.frames, seen.actions, start, variance).states


def test_smoothing_corrects_the_path() -> None:
    model, seen, truth = world(256)
    model.transition.log_scale.fill_(-7.0)
    commanded = DeadReckoning(model).eval().path(seen).rsample().squeeze(1)
    path = Smoothing(model, move_noise=0.15).eval().path(seen).rsample().squeeze(1)
    assert error(path, truth) < 0.75 * error(commanded, truth)


def test_paths_of_the_guide_are_about_the_path_that_fits() -> None:
    model, seen, _ = world()
    path = Smoothing(model).eval().path(seen)
    torch.manual_seed(0)
    mean = path.rsample((100,)).mean(0).squeeze(1)
    assert error(mean, found(model, seen)) < 0.1
    assert path.log_prob(path.rsample()).isfinite().all()


def test_the_unit_of_frames_does_not_matter_nor_who_else_is_in_the_batch() -> None:
    model, seen, _ = world()
    whole = found(model, seen)
    dark = Episodes(0.25 * seen.frames, seen.actions, seen.num_observed)
    torch.testing.assert_close(found(model, dark), whole, atol=1e-4, rtol=1e-4)
    alone = Episodes(seen.frames[:1], seen.actions[:1], seen.num_observed)
    torch.testing.assert_close(found(model, alone), whole[:1], atol=1e-4, rtol=1e-4)


def test_expected_distances_grow_with_differences() -> None:
    line = torch.linspace(0, 3, 60).cumsum(0)
    frames = (0.01 * line).view(1, -1, 1, 1, 1).expand(1, -1, 3, 8, 8)
    path = torch.stack([line, torch.zeros(60)], -1).unsqueeze(0)
    pairs = similar_steps(frames, path, torch.tensor([1e-4]), torch.tensor([100.0]))
    assert pairs.other.shape == pairs.variance.shape == (1, 60, 4)
    step = torch.arange(60).view(1, -1, 1)
    assert ((pairs.other - step).abs() > 8).all()
    assert (pairs.variance.diff(dim=-1) >= 0).all()


def test_a_transition_that_claims_exact_moves_is_taken_at_its_word() -> None:
    model, seen, _ = world()
    model.transition.log_scale.fill_(-7.0)
    similar = SimilarPlaces()
    assert not similar.applies(model.transition, seen.actions)
    grid = ImageNavigation().sample(2, num_observed=40, num_predicted=0, seed=0).actions
    assert not similar.applies(SlidingTranslation(5, scale=0.1), grid)
    assert not similar.applies(RotatingTranslation(2, scale=0.1), seen.actions)
    assert not similar.applies(SlidingTranslation(2, scale=0.1), seen.actions[:, :9])


def test_a_guide_with_other_evidence_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, _ = world()
    asked = []
    search = HypothesisSearch.__call__
    monkeypatch.setattr(HypothesisSearch, "__call__", lambda *args: (asked.append(1), search(*args))[1])
    Smoothing(model).eval().path(seen)
    assert not asked
    Smoothing(model, kidnap=0.01).eval().path(seen)
    LandmarkCorrected(model).eval().path(seen)
    assert len(asked) == 2


def test_rounds() -> None:
    with pytest.raises(ConfigError, match="rounds"):
        SimilarPlaces(rounds=0)
    with pytest.raises(ConfigError, match="move_noise"):
        SimilarPlaces(move_noise=-1.0)
