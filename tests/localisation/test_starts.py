"""An unknown first state, from frames and from moves that walls stopped."""

import logging

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.guides import DeadReckoning, FoundStart, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.guides.spatial import SpatialGuide
from gtm_pyro.localisation.starts import StartSearch, contradiction, is_unknown, resemblance, unrolled
from gtm_pyro.models import GTMSM
from gtm_pyro.networks import FrameDecoder, FrameEncoder
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import SlidingTranslation, Translation

BATCH = 16


def room(actions: Tensor) -> SlidingTranslation:
    """The true world, a square of 9 x 9 cells, in cells about its centre."""
    transition = SlidingTranslation(actions.shape[-1])
    transition.measure_actions(actions)
    moves = torch.tensor([[0.0, 0, -1, 1, 0], [-1, 1, 0, 0, 0]])
    with torch.no_grad():
        transition.displacement.copy_(moves if actions.shape[-1] == 5 else torch.eye(2) * transition.action_unit)
        transition.offsets.fill_(4.0)
    return transition


def walks(motion: str = "grid", steps: int = 160, **settings: float) -> tuple[SlidingTranslation, Episodes, Tensor]:
    """The world, episodes that begin anywhere in it, and where they were."""
    data = ImageNavigation(motion=motion, start="random", **settings)  # type: ignore[arg-type]
    seen = data.sample(BATCH, num_observed=steps, num_predicted=0, seed=3)
    assert seen.poses is not None
    return room(seen.actions), seen, seen.poses - 4


def search(transition: SlidingTranslation, frames: Tensor, actions: Tensor) -> Tensor:
    batch = len(actions)
    return StartSearch()(transition, frames, actions, torch.zeros(batch, 2), torch.full((batch,), 2.8)).loc


@pytest.mark.parametrize(
    ("motion", "settings", "share"),
    [("grid", {}, 0.99), ("continuous", {}, 0.95), ("grid", {"frame_noise": 0.03}, 0.97)],
)
def test_walls_and_places_seen_twice_tell_where_an_episode_began(
    motion: str, settings: dict[str, float], share: float
) -> None:
    transition, seen, true = walks(motion, **settings)
    start = search(transition, seen.frames, seen.actions)
    off = (unrolled(transition, start.unsqueeze(1), seen.actions).squeeze(1) - true).norm(dim=-1)
    assert (off < 0.5).float().mean() >= share
    # where it took every episode to begin in the middle, it would be lost for a long time
    middle = unrolled(transition, torch.zeros(BATCH, 1, 2), seen.actions).squeeze(1)
    assert ((middle - true).norm(dim=-1) < 0.5).float().mean() < 0.8


def test_an_episode_is_found_alone_as_in_a_batch_and_in_any_unit_of_frames() -> None:
    transition, seen, _ = walks(steps=80)
    whole = search(transition, seen.frames, seen.actions)
    alone = torch.cat([search(transition, f[None], a[None]) for f, a in zip(seen.frames, seen.actions, strict=True)])
    assert torch.equal(alone, whole)
    assert torch.allclose(search(transition, 255 * seen.frames, seen.actions), whole)


def test_an_agent_that_stands_still_or_has_one_frame_begins_somewhere() -> None:
    transition, seen, _ = walks(steps=20)
    still = seen.actions * 0 + torch.eye(5)[4]
    for frames, actions in ((seen.frames[:, :1].expand(-1, 20, -1, -1, -1), still), (seen.frames[:, :1], still[:, :1])):
        assert bool(search(transition, frames, actions).isfinite().all())


def test_where_nothing_tells_an_episode_begins_where_p_says_or_in_the_room() -> None:
    transition, seen, _ = walks(steps=10)
    still, frames = seen.actions * 0 + torch.eye(5)[4], seen.frames[:, :1].expand(-1, 10, -1, -1, -1)
    assert not search(transition, frames, still).any()
    with torch.no_grad():
        transition.offsets.copy_(torch.tensor([20.0, 20.0, -12.0, -12.0]))  # beyond all places that are tried
    start = search(transition, frames, still)
    assert (start >= 12).all() and (start <= 20).all()


def test_the_number_of_starts_bounds_no_other_number() -> None:
    assert StartSearch(num_starts=9, early=500, kept=600).kept == 600
    with pytest.raises(ConfigError, match="num_starts: expected a whole number of at least 1, got 0"):
        StartSearch(num_starts=0)


def test_whether_a_start_is_unknown_does_not_depend_on_the_batch() -> None:
    transition, seen, _ = walks("continuous", steps=30)
    actions = seen.actions * torch.tensor([1.0, 0.02]).repeat(8)[:, None, None]
    episodes, guide = Episodes(seen.frames, actions, 29), FoundStart(model(transition, 0.3))
    loc, variance = guide.start(episodes)
    for i in range(4):
        alone = guide.start(episodes[i : i + 1])
        assert torch.equal(loc[i : i + 1], alone[0]) and torch.equal(variance[i : i + 1], alone[1])
    known = variance.squeeze(1) == variance.max()
    assert known.any() and not known.all()


def test_contradictions_by_hand() -> None:
    frames = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(1, 4, 1, 1, 1)
    seen = resemblance(frames)
    assert seen.changed.round().tolist() == [[0, 1, 1, 0]]
    there_and_back = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(1, 1, 4, 1)
    goes_on, stays = torch.arange(4.0).view(1, 1, 4, 1), torch.zeros(1, 1, 4, 1)
    right, lost, stuck = (
        float(contradiction(path, seen, torch.tensor([0.2]))) for path in (there_and_back, goes_on, stays)
    )
    assert right < 0.01 and stuck == pytest.approx(2 / 4, abs=0.01)  # two changes without a move
    assert lost == pytest.approx(6 / 4, abs=0.01)  # steps 0, 2 and 3 are pairs, seen from both sides


def test_a_start_is_unknown_only_where_walls_tell() -> None:
    actions = torch.eye(5)[torch.randint(5, (2, 9))]
    wide, narrow = (dist.Normal(torch.zeros(2), scale).to_event(1) for scale in (2.0, 1e-3))
    assert is_unknown(room(actions), wide, actions)
    assert not is_unknown(room(actions), narrow, actions)
    free = Translation(5)
    torch.nn.init.ones_(free.displacement)
    assert not is_unknown(free, wide, actions)


def model(transition: SlidingTranslation, initial_scale: float) -> GTMSM:
    return GTMSM(
        transition, encoder=FrameEncoder(4, (3, 8, 8)), decoder=FrameDecoder(4, (3, 8, 8)), initial_scale=initial_scale
    )


def test_the_guide_begins_where_the_search_says_and_dead_reckoning_says_that_it_cannot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transition, seen, true = walks(steps=100)
    wide = model(transition, 2.8)
    path = FoundStart(wide).path(seen).sample().squeeze(1)
    assert ((path - true).norm(dim=-1) < 0.5).float().mean() > 0.95
    guide = DeadReckoning(wide)
    with caplog.at_level(logging.WARNING):
        lost = guide.path(seen).sample().squeeze(1)
        guide.path(seen)
    assert ((lost - true).norm(dim=-1) < 0.5).float().mean() < 0.9
    assert [r.message for r in caplog.records] == [
        "guide: DeadReckoning cannot tell where an episode begins, and p(s_1) is wide; FoundStart can"
    ]


@pytest.mark.parametrize("kind", [LandmarkCorrected, Smoothing, ParticleGuide])
def test_guides_with_landmarks_find_the_start_too(kind: type[SpatialGuide]) -> None:
    transition, seen, true = walks(steps=100)
    path = kind(model(transition, 2.8)).eval().path(seen).sample().squeeze(1)
    assert ((path - true).norm(dim=-1) < 0.5).float().mean() > 0.9


def test_with_a_known_start_it_is_dead_reckoning() -> None:
    transition, seen, _ = walks(steps=20)
    known = model(transition, 1e-3)
    value = known.path(seen.actions).sample()
    one, other = (kind(known).path(seen).log_prob(value) for kind in (FoundStart, DeadReckoning))
    torch.testing.assert_close(one, other)
