"""GTM-SM whose transition reads its walls from the memory: what the guide finds, what is learnt, what is imagined."""

from typing import Any

import pytest
import torch
from maze_cases import SIDE, Picture, maze_walks, transition
from torch import Tensor

from gtm_pyro.diagnostics.densities import draw_paths
from gtm_pyro.diagnostics.simulation import simulate
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.guides import DeadReckoning, FoundStart, FoundWalls, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.inference import WallsOfPaths
from gtm_pyro.memory import HeadingKeys
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.priors import MixturePrior
from gtm_pyro.transitions import RotatingTranslation


def model() -> GTMSM:
    torch.manual_seed(0)
    shape = (1, 8, 8)
    parts = FrameEncoder(4, shape, channels=(6, 6)), FrameDecoder(4, shape, channels=(6, 6))
    return GTMSM(transition(side=5), keys=HeadingKeys(), prior=MixturePrior(), encoder=parts[0], decoder=parts[1])


def walks(num: int, time: int, seed: int = 0) -> tuple[Episodes, Tensor]:
    """Each pose looks like no other, and its last rows are bright where a wall is ahead."""

    def picture(generator: torch.Generator) -> Picture:
        looks = 0.2 * torch.rand(SIDE + 2, SIDE + 2, 4, 1, 8, 8, generator=generator)

        def show(x: int, y: int, heading: int, wall: bool) -> Tensor:
            frame = looks[x, y, heading].clone()
            frame[:, 6:] = float(wall)
            return frame

        return show

    frames, actions, blocked = maze_walks(num, time, picture, seed)
    return Episodes(frames, actions, time * 2 // 3), blocked


def true_paths(gtm: GTMSM, episodes: Episodes, blocked: Tensor) -> Tensor:
    told = torch.cat([episodes.actions, blocked.unsqueeze(-1)], -1)
    zeros = torch.zeros(*blocked.shape, 3)
    return gtm.transition.told().rollout(zeros[:, 0], told, zeros).detach()


def test_the_guide_finds_what_was_blocked_and_dead_reckoning_does_not() -> None:
    gtm = model()
    episodes, blocked = walks(6, 60)
    truth = true_paths(gtm, episodes, blocked)
    found = FoundWalls(gtm).path(episodes).sample().squeeze(-3).detach()
    torch.testing.assert_close(found, truth, atol=0.1, rtol=0)
    blind = DeadReckoning(gtm).path(episodes).sample().squeeze(-3).detach()
    assert float((blind - truth)[..., :2].norm(dim=-1).mean()) > 1.0  # two moves


@pytest.mark.parametrize("guide", [FoundStart, LandmarkCorrected, ParticleGuide, Smoothing])
def test_the_other_guides_are_told_what_was_blocked(guide: Any) -> None:
    gtm = model()
    episodes, blocked = walks(4, 60)
    truth = true_paths(gtm, episodes, blocked)
    found = guide(gtm).eval().path(episodes).sample().squeeze(-3).detach()
    error = (found - truth)[..., :2].norm(dim=-1)
    assert float(error.mean()) < 0.25  # half a move; without the walls, over two


def test_walls_that_frames_show_are_learnt_from_paths_alone_and_stop_what_is_imagined() -> None:
    gtm = model()
    guide, teach = FoundWalls(gtm), WallsOfPaths()
    optimiser = torch.optim.Adam(gtm.transition.walls.parameters(), 3e-3)
    episodes, _ = walks(24, 60)
    once, twice = (float(WallsOfPaths(weight)(gtm, guide, episodes).detach()) for weight in (1.0, 2.0))
    assert twice == pytest.approx(2 * once)
    for _ in range(100):
        optimiser.zero_grad()
        teach(gtm, guide, episodes).backward()
        optimiser.step()
    held_out, blocked = walks(12, 60, seed=1)
    truth = true_paths(gtm, held_out, blocked)[:, held_out.num_observed :, :2]
    path = guide.path(held_out.observed).sample().squeeze(-3)
    memory = gtm.remember(path, held_out.observed.frames)
    states = gtm.imagine(path[:, -1], memory, held_out.predicted_actions).states
    right = ((states[..., :2] - truth).norm(dim=-1) < 0.25).float().mean()
    gtm.transition.walls.logits.weight.data.zero_()
    gtm.transition.walls.logits.bias.data.zero_()
    unknown = gtm.remember(path, held_out.observed.frames)
    free = gtm.imagine(path[:, -1], unknown, held_out.predicted_actions).states
    blind = ((free[..., :2] - truth).norm(dim=-1) < 0.25).float().mean()
    print(right, blind)
    assert float(right) > 0.6  # some places were not shown in the 40 memorised steps
    assert float(right) > float(blind) + 0.2


def test_a_path_that_was_found_is_found_again_once_the_walls_have_changed() -> None:
    gtm = model()
    guide = FoundWalls(gtm).eval()
    episodes, _ = walks(2, 40)
    first = guide.told_actions(episodes)
    assert guide.told_actions(episodes) is first
    with torch.no_grad():
        gtm.transition.walls.logits.bias.fill_(-8.0)
    again = guide.told_actions(episodes)
    assert again is not first and not torch.equal(again, first)
    assert torch.equal(guide.train().told_actions(episodes), first)  # who learns from what is found has no say in it


def test_the_bound_teaches_walls_too() -> None:
    gtm = model()
    episodes, _ = walks(4, 30)
    path = FoundWalls(gtm).path(episodes).sample()
    gtm.path(episodes.actions, episodes.frames).log_prob(path).sum().backward()
    assert float(gtm.transition.walls.logits.bias.grad.abs().sum()) > 0


def test_paths_that_are_drawn_and_episodes_that_are_made_up_stop_at_walls() -> None:
    gtm = model()
    with torch.no_grad():
        gtm.transition.walls.logits.bias.fill_(8.0)  # nothing but walls
    episodes, _ = walks(2, 12)
    after = draw_paths(gtm, DeadReckoning(gtm), episodes, 3)[..., episodes.num_observed - 1 :, :2]
    assert float(after.diff(dim=-2).abs().max()) < 0.02
    made = simulate(gtm, episodes.actions, episodes.frame_shape)
    steps = made.s[..., :2].diff(dim=1).norm(dim=-1)
    assert float((steps > 0.25).float().mean()) < 0.1  # sigmoid(-8) but for the first step


def test_the_auxiliary_says_what_it_needs() -> None:
    gtm = model()
    gtm.transition = RotatingTranslation(3)
    episodes, _ = walks(2, 12)
    with pytest.raises(ConfigError, match="expected a transition RememberedWalls, got RotatingTranslation"):
        WallsOfPaths()(gtm, DeadReckoning(gtm), episodes)
