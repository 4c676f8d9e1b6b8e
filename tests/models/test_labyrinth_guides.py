"""Landmark correction, smoothing and particles for agents that turn: a position and a heading."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.guides.spatial import TrackingGuide
from gtm_pyro.localisation import finding
from gtm_pyro.localisation.explanations import Steps
from gtm_pyro.localisation.hypotheses import HypothesisSearch
from gtm_pyro.localisation.landmarks import Landmarks, Sights
from gtm_pyro.localisation.moves import turning_radius, typical_move
from gtm_pyro.localisation.revisits import revisited_steps
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.paths.fused import FusedPath, filtering_path, smoothing_path
from gtm_pyro.testing import PairConformance
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Translation

BATCH, STEPS, ACTIONS = 8, 240, 3
TRACKING = [LandmarkCorrected, Smoothing, ParticleGuide]
KINDS = [RotatingTranslation, MomentumTranslation]


def views(poses: Tensor) -> Tensor:
    """Frames that change smoothly with position and heading, and are the same after a whole turn."""
    generator = torch.Generator().manual_seed(1)
    wave, phase = torch.randn(2, 192, generator=generator), 2 * math.pi * torch.rand(192, generator=generator)
    turns = torch.randint(-3, 4, (192,), generator=generator)
    seen = (poses[..., :2] @ wave + turns * poses[..., 2:] + phase).cos()
    return (0.5 + 0.5 * seen).view(*poses.shape[:-1], 3, 8, 8)


def transition(kind: type[RotatingTranslation] = RotatingTranslation, scale: float = 0.02) -> RotatingTranslation:
    """Action 0 goes ahead, 1 does nothing, 2 turns left."""
    torch.manual_seed(0)
    made = kind(ACTIONS, scale=scale)
    with torch.no_grad():
        made.displacement.copy_(torch.tensor([[0.15, 0.0, 0.05], [0.0, 0.0, 0.0], [0.0, 0.0, math.pi / 8]]))
    return made


def circuit(f: RotatingTranslation, steps: int = STEPS) -> Episodes:
    """Round a square several times, with the noise of f: it comes by, more and more turned."""
    order = torch.tensor([0, *([0] * 8 + [2] * 4) * (steps // 12 + 1)][:steps])
    actions = torch.eye(ACTIONS)[order].expand(BATCH, -1, -1).clone()
    with torch.no_grad():
        poses = f.rollout(torch.zeros(BATCH, 3), actions, f.scale * torch.randn(BATCH, steps, 3))
    return Episodes(views(poses), actions, steps - 10, poses, pose_names=("x", "y", "heading"))


def model_of(f: RotatingTranslation | Translation, **fields: Any) -> GTMSM:
    torch.manual_seed(0)
    parts = {
        "encoder": FrameEncoder(8, (3, 8, 8), (16, 16)),
        "decoder": FrameDecoder(8, (3, 8, 8), (16, 16)),
        "keys": HeadingKeys(),
    }
    return GTMSM(f, **parts | fields)


def off(path: Any, poses: Tensor) -> tuple[float, float, float]:
    """Root mean square errors of position and heading of the mean path, and coverage of 90% discs of position."""
    draws = path.sample((64,)).squeeze(2)
    error = draws.mean(0) - poses
    spread = (draws - draws.mean(0))[..., :2].square().sum(-1)
    inside = error[..., :2].square().sum(-1) < spread.quantile(0.9, dim=0)
    covered = inside[:, 5:].float().mean()
    return float(error[..., :2].square().sum(-1).mean().sqrt()), float(error[..., 2].square().mean().sqrt()), covered


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_landmarks_correct_positions_and_headings(kind: type[RotatingTranslation]) -> None:
    """Seen on 16 episodes: positions off by 0.55 to 0.75 times dead reckoning's, headings by 0.4 to 0.7."""
    f = transition(kind)
    episodes = circuit(f)
    model = model_of(f)
    assert episodes.poses is not None and float(episodes.poses[..., 2].amax()) > 4 * math.pi
    position, heading, _ = off(DeadReckoning(model).path(episodes), episodes.poses)
    for guide, covers in ((LandmarkCorrected, 0.6), (Smoothing, 0.2), (ParticleGuide, 0.2)):
        mine = off(guide(model).eval().path(episodes), episodes.poses)
        assert mine[0] < 0.85 * position and mine[1] < 0.95 * heading and mine[2] > covers, guide


@torch.no_grad()
def test_a_landmark_is_the_same_after_any_number_of_turns() -> None:
    """The agent turns on the spot by a little less than it thinks: whole turns are seen, and not undone."""
    f = transition(scale=0.01)
    actions = torch.eye(ACTIONS)[torch.full((BATCH, 70), 2)]
    f.displacement.zero_()[2, 2] = 0.2
    poses = torch.zeros(BATCH, 70, 3)
    poses[..., 2] = 0.194 * torch.arange(70)
    episodes = Episodes(views(poses), actions, 60, poses, pose_names=("x", "y", "heading"))
    model = model_of(f)
    blind, corrected, smoothed = (
        guide(model).eval().path(episodes).sample((32,)).squeeze(2)[..., 2].mean(0) - poses[..., 2]
        for guide in (DeadReckoning, LandmarkCorrected, Smoothing)
    )
    assert float(blind[:, -1].mean()) == pytest.approx(0.414, abs=0.05)
    assert float(corrected[:, -1].abs().mean()) < 0.25 and float(smoothed[:, -1].abs().mean()) < 0.25


@torch.no_grad()
def test_places_of_a_map_are_known_whatever_the_turns_of_either() -> None:
    """A second walk in a known map, from elsewhere in it, and put elsewhere half way."""
    f = transition(scale=0.005)
    first = circuit(f, 60)
    assert first.poses is not None
    model = model_of(f)
    turned = first.poses + torch.tensor([0.0, 0.0, 6 * math.pi])  # the map has counted other turns
    memory = model.remember(turned, first.frames)
    order = [*range(20, 40), *range(20)]
    episodes = Episodes(first.frames[:, order], first.actions[:, order], 40)
    guide = ParticleGuide(model, 32, kidnap=0.01, memory=memory, anywhere=True).eval()
    particles, best = guide.filter(episodes), guide.hypotheses(episodes).online.states
    for step in (19, 39):
        away = best[:, step] - first.poses[:, order[step]]
        away[:, 2] = (away[:, 2] + math.pi).remainder(2 * math.pi) - math.pi
        assert float(away.norm(dim=-1).amax()) < 0.2
        near = (particles.mean[:, step] - first.poses[:, order[step]])[:, :2].norm(dim=-1)
        assert float(near.median()) < 0.2
    path = guide.path(episodes)
    assert bool(path.log_prob(path.sample()).isfinite().all())


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_density_is_that_of_its_gaussian_steps(kind: type[RotatingTranslation], filtered: bool) -> None:
    f = transition(kind).double()
    torch.manual_seed(1)
    actions = torch.randn(2, 7, ACTIONS).double()
    path = FusedPath(
        f, actions, torch.randn(2, 3).double(), torch.randn(2, 7, 3).double(), torch.rand(2, 7).double(),
        0.1 + torch.rand(2, 7).double(),
    )  # fmt: skip
    if filtered:
        found = search_of(f, actions.float().double())
        path = filtering_path(f, found.online, torch.zeros(2, 3).double(), torch.full((2,), 0.01).double(),
                              (found.online_gain, found.online_variance))  # fmt: skip
        assert bool((found.online_gain > 0).any())
    s, control = path.sample(), f.controls(path.actions)
    total = torch.zeros(2).double()
    for t in range(7):
        ahead = path.start if t == 0 else f.loc(s[:, t - 1], control[:, t])
        gain = path.gain[:, t, None]
        mean = (1 - gain) * ahead + gain * path.target[:, t]
        total += torch.distributions.Normal(mean, path.scale[:, t, None]).log_prob(s[:, t]).sum(-1)
    assert torch.allclose(path.log_prob(s), total)


def search_of(f: RotatingTranslation | Translation, actions: Tensor, turns: float = 0.0) -> Any:
    """A landmark for the last step: the first one, which is met ``turns`` turns later."""
    steps = actions.shape[1]
    strength = torch.full((len(actions), steps, 1), -torch.inf).double()
    strength[:, -1] = 9.0
    landmarks = Landmarks(
        strength, torch.zeros_like(strength[..., 0]), index=torch.zeros(len(actions), steps, 1).long(),
        scale=torch.tensor(2.0).double(),
    )  # fmt: skip
    start = torch.zeros(len(actions), 3).double()
    return HypothesisSearch()(f, actions, landmarks, start, torch.full((len(actions),), 1e-4).double())


def test_filtered_states_have_the_mean_and_variance_of_a_filter_where_nothing_turns() -> None:
    """One look at the first place, two steps later: x = 0 with variance (2 r²)(n) / (2 r² + n) more than at first."""
    f = transition(scale=0.5).double()
    with torch.no_grad():
        f.displacement[2] = 0.0
    actions = torch.eye(ACTIONS)[torch.tensor([[0, 0, 0]])].double()
    found = search_of(f, actions)
    growth = 1 + float(turning_radius(f, actions)) ** 2
    relative, noise = 2 * 0.25, 4.0 / growth  # in units of a step's variance
    gain = relative / (relative + noise)
    assert float(found.online_gain[0, -1]) == pytest.approx(gain)
    assert float(found.online_variance[0, -1]) == pytest.approx(1e-4 + relative * (1 - gain))
    path = filtering_path(f, found.online, torch.zeros(1, 3).double(), torch.full((1,), 1e-4).double(),
                          (found.online_gain, found.online_variance))  # fmt: skip
    torch.manual_seed(0)
    last = path.sample((20_000,))[:, 0, -1, 0]
    # five standard errors: fails by chance once in a million
    assert float(last.mean()) == pytest.approx(0.3 * (1 - gain), abs=5 * 0.66 / math.sqrt(20_000))
    assert float(last.var()) == pytest.approx(1e-4 + relative * (1 - gain), rel=0.05)


def test_smoothing_is_that_of_a_translation_where_nothing_turns() -> None:
    straight, f = Translation(ACTIONS, 3, scale=0.1).double(), transition(scale=0.1).double()
    with torch.no_grad():
        f.displacement[2] = 0.0
        straight.displacement.copy_(f.displacement)
    torch.manual_seed(0)
    actions = torch.eye(ACTIONS)[torch.randint(ACTIONS, (2, 9))].double()
    evidence = torch.full((2, 9), torch.inf).double()
    evidence[:, 3::3] = 0.04
    states = straight.rollout(torch.zeros(2, 3).double(), actions, torch.zeros(2, 9, 3).double()).detach()
    target = states + 0.3 * torch.randn(2, 9, 3).double()
    steps = Steps(actions, target, evidence, torch.full((2, 9), 0.01).double(), states)
    start = torch.zeros(2, 3).double(), torch.full((2,), 1e-4).double()
    mine, exact = smoothing_path(f, steps, *start), smoothing_path(straight, steps, *start)
    states = states.clone()
    states[..., 2] = 0.0  # a heading of f's is 0, as it cannot turn
    s = exact.sample()
    s[..., 2] = 0.0
    assert torch.allclose(mine.gain, exact.gain) and torch.allclose(mine.target, exact.target)
    assert torch.allclose(mine.log_prob(s), exact.log_prob(s))


def test_a_view_is_come_back_to_after_it_was_left() -> None:
    torch.manual_seed(0)
    there = torch.randn(1, 40, 4).cumsum(1)
    loc = torch.cat([there, there[:, 10:14] + 0.01 * torch.randn(1, 4, 4)], 1)
    number = torch.arange(44).unsqueeze(0)
    found = revisited_steps(Sights(loc, torch.ones_like(loc), number))
    seen = found.log_weight[0, :, 0].isfinite()
    assert seen.nonzero().flatten().tolist() == [40, 41, 42, 43]
    assert found.index is not None and found.index[0, 40:, 0].tolist() == [10, 11, 12, 13]
    still = revisited_steps(Sights(torch.zeros(2, 6, 4), torch.ones(2, 6, 4), torch.zeros(2, 6).long()))
    assert bool(still.log_weight.isneginf().all()) and still.moves is not None and bool(still.moves.isfinite().all())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("guide", TRACKING)
def test_short_episodes_have_paths(guide: type[TrackingGuide], steps: int) -> None:
    f = transition()
    path = guide(model_of(f)).eval().path(Episodes(torch.rand(2, steps, 3, 8, 8), torch.zeros(2, steps, ACTIONS), 1))
    assert path.sample().shape == (2, 1, steps, 3)


def test_a_memory_with_keys_of_its_own_keeps_the_states() -> None:
    model = model_of(transition())
    s = torch.randn(2, 5, 3)
    memory = model.remember(s, torch.rand(2, 5, 3, 8, 8))
    assert memory.keys.shape == (2, 5, 4) and torch.equal(memory.values.gather(None)["state"].squeeze(-3), s)


def test_moves_and_radius_are_those_of_the_displacements() -> None:
    f = transition(MomentumTranslation)
    actions = torch.eye(ACTIONS)[torch.zeros(1, 9).long()]
    moved = f.controls(actions)[:, 1:].detach()
    usual = float(moved.norm(dim=-1).square().mean().sqrt())
    assert float(typical_move(f, actions, torch.ones(1))) == pytest.approx(usual, rel=0.02)
    away = torch.cat([torch.zeros(1, 1), moved[..., 0].cumsum(1)], 1).std(unbiased=False)
    assert float(turning_radius(f, actions)) == pytest.approx(float(away), rel=1e-4)
    assert float(turning_radius(f, torch.zeros(1, 9, ACTIONS))) == 1.0


@pytest.mark.parametrize("guide", TRACKING)
def test_slips_of_an_agent_that_turns_are_refused(guide: type[TrackingGuide]) -> None:
    f = transition()
    f.slip.fill_(0.1)
    episodes = circuit(f, 20)
    with pytest.raises(ConfigError, match=r"^slip: expected 0 for a transition with a heading, got 0.1$"):
        guide(model_of(f)).path(episodes)


@pytest.mark.parametrize("guide", [*TRACKING, None])
class TestPairs(PairConformance):
    constants = ("hypotheses",)

    @pytest.fixture(autouse=True)
    def choose(self, guide: type[TrackingGuide] | None) -> None:
        self.guide = guide

    def make(self) -> tuple[Any, Any, Episodes]:
        """Three frames in turn, so that there are views to come back to; None: the corrected path while frames come."""
        torch.manual_seed(0)
        model = GTMSM(
            MomentumTranslation(5, scale=0.05),
            keys=HeadingKeys(),
            encoder=FrameEncoder(2, (1, 4, 4), channels=(6, 6)),
            decoder=FrameDecoder(2, (1, 4, 4), channels=(6, 6)),
            initial_scale=0.3,
        )
        nn.init.normal_(model.transition.displacement)
        frames = torch.rand(3, 3, 1, 4, 4)[:, torch.arange(9) % 3]
        episodes = Episodes(frames, torch.eye(5)[torch.randint(5, (3, 9))], 6)
        guide = LandmarkCorrected(model).eval() if self.guide is None else self.guide(model)
        assert not bool(finding.landmarks(model, frames).log_weight.isneginf().all())
        return model, guide, episodes
