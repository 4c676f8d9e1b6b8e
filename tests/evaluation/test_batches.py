"""What is inferred of an episode is the same alone, in any batch, and in any order."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.guides.spatial import SpatialGuide, TrackingGuide
from gtm_pyro.initialisation import Automatic
from gtm_pyro.localisation import finding
from gtm_pyro.localisation.hypotheses import HypothesisSearch
from gtm_pyro.localisation.hypothesis_search import Search
from gtm_pyro.localisation.landmarks import Landmarks
from gtm_pyro.localisation.moves import turning_radius, typical_move
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition, Translation, WalledTranslation

GUIDES: list[type[SpatialGuide]] = [DeadReckoning, LandmarkCorrected, Smoothing, ParticleGuide]
BATCH, STEPS = 3, 60


def turning() -> tuple[Tensor, Tensor]:
    """Walks that turn, each at its own pace, and frames by place and heading."""
    order = torch.tensor([0, *([0] * 8 + [2] * 4) * (STEPS // 12)][:STEPS])
    pace = torch.linspace(0.5, 2.0, BATCH)[:, None, None]
    actions = torch.eye(3)[order].expand(BATCH, -1, -1) * torch.cat([pace, pace, torch.ones_like(pace)], -1)
    f = moved(RotatingTranslation)
    poses = f.rollout(torch.zeros(BATCH, 3), actions, f.scale * torch.randn(BATCH, STEPS, 3)).detach()
    wave = torch.randn(2, 192, generator=torch.Generator().manual_seed(1))
    frames = 0.5 + 0.5 * (poses[..., :2] @ wave + poses[..., 2:]).cos()
    return frames.view(BATCH, STEPS, 3, 8, 8), actions


def moved(kind: type[RotatingTranslation]) -> RotatingTranslation:
    f = kind(3, scale=0.02)
    with torch.no_grad():
        f.displacement.copy_(torch.tensor([[0.15, 0.0, 0.05], [0.0, 0.0, 0.0], [0.0, 0.0, math.pi / 8]]))
    return f


@cache  # starting values take longer than the paths of all guides
def pair(kind: type[Transition]) -> tuple[GTMSM, Episodes]:
    torch.manual_seed(0)
    if issubclass(kind, RotatingTranslation):
        return GTMSM(moved(kind), keys=HeadingKeys()), Episodes(*turning(), 50)
    if kind is Translation:
        data, f = ImageNavigation(motion="continuous", action_noise=0.1), kind(2)
    else:
        data, f = ImageNavigation(slip=0.1), kind(5, slip=0.1)
    episodes = data.sample(BATCH, num_observed=50, num_predicted=10, seed=0)
    model = GTMSM(f)
    Automatic()(model, episodes)
    return model, episodes


@torch.no_grad()
def path_of(guide: SpatialGuide, episodes: Episodes) -> list[Tensor]:
    """Everything that a path is made of."""
    path: Any = guide.path(episodes)
    parts = path.paths if isinstance(guide, ParticleGuide) else path
    made = [parts.actions, *(getattr(parts, name) for name in ("target", "gain", "scale") if hasattr(parts, name))]
    if isinstance(guide, ParticleGuide):
        made.append(path.log_weight.exp())
    return made


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("kind", [Translation, WalledTranslation, RotatingTranslation, MomentumTranslation])
def test_an_episode_has_the_same_path_alone_and_in_any_batch(kind: type[Transition], guide: type[SpatialGuide]) -> None:
    model, episodes = pair(kind)
    options: dict[str, Any] = {} if guide is DeadReckoning else {"num_hypotheses": 32}
    made = guide(model, **options).eval()
    whole = path_of(made, episodes)
    for b in range(BATCH):
        assert_same([part[b : b + 1] for part in whole], path_of(made, episodes[b : b + 1]))
    assert_same([part.flip(0) for part in whole], path_of(made, episodes[torch.arange(BATCH).flip(0)]))
    larger = episodes.actions[:2] * torch.tensor([1.0, 10.0])[:, None, None]
    beside = Episodes(episodes.frames[:2], larger, episodes.num_observed)
    assert_same([part[:1] for part in whole], [part[:1] for part in path_of(made, beside)])


def test_of_explanations_that_are_equally_likely_the_same_one_is_found_in_any_batch() -> None:
    """A slip to the left and one to the right explain the frames as well; 64 copies of an episode are of one mind."""
    torch.manual_seed(0)
    f = WalledTranslation(5, slip=0.1)
    with torch.no_grad():
        f.displacement.copy_(torch.tensor([[0.0, 0.0, -1.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.0, 0.0]]))
    order = [4, 4, 0, 4, 1, 4]
    actions = torch.eye(5)[order].expand(64, -1, -1)
    weight = torch.full((64, 6, 1), -torch.inf)
    landmarks = Landmarks(weight, torch.zeros(64, 6), index=torch.zeros(64, 6, 1).long())
    start = torch.zeros(64, 2), torch.full((64,), 1e-6)
    search = HypothesisSearch(16)
    whole = search(f, actions, landmarks, *start)
    best = whole.best.states[:, 0]
    assert torch.equal(best, best[:1].expand_as(best))
    few = Landmarks(weight[:3], torch.zeros(3, 6), index=torch.zeros(3, 6, 1).long())
    part = search(f, actions[:3], few, start[0][:3], start[1][:3])
    assert torch.allclose(part.best.states, whole.best.states[:3], atol=1e-6)


def test_one_hot_actions_may_be_replaced_beside_others_that_are_not() -> None:
    torch.manual_seed(0)
    f = Translation(5, slip=0.1)
    actions = torch.eye(5)[torch.randint(5, (3, 20))]
    actions[1] *= 0.5
    landmarks = Landmarks(torch.full((3, 20, 1), -torch.inf), torch.zeros(3, 20), index=torch.zeros(3, 20, 1).long())
    start = torch.zeros(3, 2), torch.full((3,), 1e-6)
    search = HypothesisSearch(8)
    whole = search(f, actions, landmarks, *start)
    for b in range(3):
        alone = search(f, actions[b : b + 1], landmarks.of(torch.tensor([b])), start[0][:1], start[1][:1])
        assert torch.equal(alone.log_weight, whole.log_weight[b : b + 1])
        for one, other in zip(alone.steps, whole.steps, strict=True):
            assert torch.equal(one, other[b : b + 1])
        assert torch.equal(alone.online.states, whole.online.states[b : b + 1])


@torch.no_grad()
def test_a_map_made_standing_still_takes_nothing_from_the_map_of_another_episode() -> None:
    """One map an episode; a frame is known at two places of the first map, the second one knows a single frame."""
    torch.manual_seed(0)
    frames, f = torch.rand(4, 3, 8, 8), Translation(5)
    f.displacement.copy_(torch.tensor([[0.0, 0.0, -1.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.0, 0.0]]))
    model = GTMSM(f)
    keys = torch.stack([torch.arange(5.0), torch.zeros(5)], -1) * torch.tensor([1.0, 0.0])[:, None, None]
    seen = frames[torch.tensor([[0, 1, 2, 1, 3], [0, 0, 0, 0, 0]])]
    episodes = Episodes(frames[torch.tensor([[1, 2], [0, 0]])], torch.eye(5)[torch.tensor([[4, 3], [4, 4]])], 2)

    def found(rows: slice) -> Tensor:
        memory = model.remember(keys[rows], seen[rows])
        particles = ParticleGuide(model, 16, memory=memory, anywhere=True).eval().filter(episodes[rows])
        return (particles.log_weight[0, 0].exp() * (particles.loc[0, 0, :, 0] > 2)).sum()

    assert float(found(slice(0, 1))) == pytest.approx(0.5, abs=0.01)
    assert float(found(slice(0, 2))) == pytest.approx(0.5, abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("guide", [LandmarkCorrected, Smoothing])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_view_that_never_changes_is_on_a_map_or_not_whatever_rounding_says(
    guide: type[TrackingGuide], dtype: torch.dtype
) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        frames = torch.rand(5, 1, 3, 8, 8, dtype=dtype).expand(-1, 6, -1, -1, -1).contiguous()
        model = GTMSM(moved(RotatingTranslation), keys=HeadingKeys()).to(dtype)
        memory = model.remember(torch.zeros(1, 6, 3, dtype=dtype), frames[:1])
        episodes = Episodes(frames, torch.eye(3, dtype=dtype)[1].expand(5, 6, -1), 6)
        made = guide(model, memory=memory).eval()
        landmarks = finding.landmarks(model, frames, memory)
        assert bool(landmarks.log_weight[0].isfinite().all()) and not bool(landmarks.log_weight[1:].isfinite().any())
        for b in range(5):
            one = path_of(made, episodes[b : b + 1])
            assert_same([part[b : b + 1] for part in path_of(made, episodes)], one)


def test_entries_whole_turns_apart_are_one_look() -> None:
    f, actions = moved(RotatingTranslation), torch.eye(3)[[0, 0, 0]].unsqueeze(0)
    radius = turning_radius(f, actions)
    position = torch.zeros(1, 3, 3, 3)
    position[:, :, 0, 0] = 5.0
    looks = []
    for turn in (0.0, 2 * math.pi, -6 * math.pi):
        position[:, :, 2, 2] = turn
        landmarks = Landmarks(torch.zeros(1, 3, 3), torch.zeros(1, 3), position, moves=torch.full((1, 3, 3), 0.25))
        move = typical_move(f, actions, radius)
        looks.append(Search(HypothesisSearch(8), f, actions, landmarks, False, move, radius=radius).fixed.weight[0, 0])
    assert looks[0].tolist() == pytest.approx([0.0, -math.log(2), -math.log(2)], abs=1e-6)
    for look in looks[1:]:
        assert look.tolist() == pytest.approx(looks[0].tolist(), abs=1e-4)
