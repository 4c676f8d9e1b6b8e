"""Frames that show nothing new: a normalised density over contents, and agents that stand still for long."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import DeadReckoning, LandmarkCorrected, ParticleGuide, Smoothing
from gtm_pyro.guides.spatial import SpatialGuide, TrackingGuide
from gtm_pyro.localisation.landmarks import look, resembling_entries, resembling_steps
from gtm_pyro.localisation.own_maps import Own, look_at_own, new_place
from gtm_pyro.localisation.revisits import revisited_steps
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameEncoder
from gtm_pyro.transitions import RotatingTranslation, WalledTranslation

TRACKING: list[type[TrackingGuide]] = [LandmarkCorrected, Smoothing, ParticleGuide]
UP, DOWN, LEFT, RIGHT, STAY = range(5)
MOVES = torch.tensor([[0.0, 0.0, -1.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.0, 0.0]])


def test_contents_of_a_new_place_sum_to_one() -> None:
    for copies in ([], [1], [1, 1, 1], [3, 1, 2], [9, 1]):
        for alike in (0.0, 1e-4, 0.1, 1.0):
            spots, contents = sum(copies), len(copies)
            shares = [new_place(n, spots, contents, alike) for n in [*copies, 0]]
            assert min(shares) >= 0 and sum(shares) == pytest.approx(1)
    # a content seen at several places is likelier to be met at another one
    assert new_place(2, 60, 59, 1e-4) > 100 * new_place(1, 60, 59, 1e-4)


@pytest.mark.parametrize("stayed", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("crowd", [0.05, 0.3, 2.0])
def test_what_is_seen_has_a_density_that_sums_to_one(crowd: float, stayed: float) -> None:
    """Over all contents of a map, and one never seen; near its spots, among several, and far from all."""
    random = np.random.default_rng(0)
    for _ in range(20):
        contents = int(random.integers(1, 5))
        what = np.concatenate([np.arange(contents), random.integers(contents, size=4)])
        spots, where = len(what), random.normal(size=(2, len(what))) * crowd
        last, before = np.full((1, 1, contents + 1), -1), np.full((1, 1, spots), -1)
        for i, c in enumerate(what):
            before[0, 0, i], last[0, 0, c] = last[0, 0, c], i
        point = random.normal(size=(1, 1, 2)) * crowd
        copies = np.bincount(what, minlength=contents + 1)[None, None]
        total = 0.0
        for label in range(contents + 1):
            own = Own(
                label=np.array([[int(what[-1]), label]]),
                found=np.full((1, 2), contents),
                look=np.full((1, 2, 2), (1e-2, 1e-3)),
                noise=np.full((1, 2), 0.04),
                spot=where[None, None],
                variance=random.random((1, 1, spots)) * 0 + 0.01,
                spots=np.array([[spots]]),
                last=last,
                before=before,
                copies=copies,
                sketch=np.zeros((1, 1, 2, 2)),
                every_look=False,
            )
            seen = look_at_own(point, 0, 0, 0.03, stayed, True, own, 0, 1, 0.0, -np.inf, np.empty(spots))
            total += math.exp(seen[0])
        assert total == pytest.approx(1, abs=1e-9)


def model(scale: float = 1e-3) -> GTMSM:
    torch.manual_seed(0)
    f = WalledTranslation(5, slip=0.1, scale=scale)
    with torch.no_grad():
        f.displacement.copy_(MOVES)
        # open everywhere, so that the true path is known
        nn.init.zeros_(f.gate_network[-1].weight)
        nn.init.constant_(f.gate_network[-1].bias, 20.0)
    return GTMSM(f)


def episode(order: list[int], actions: list[int], frames: Tensor) -> Episodes:
    return Episodes(frames[order].unsqueeze(0), torch.eye(5)[actions].unsqueeze(0), len(order) - 1)


def mean_path(guide: SpatialGuide, episodes: Episodes, draws: int = 64) -> Tensor:
    """The median of draws, (T, D): that of ParticleGuide may be of another explanation now and then."""
    torch.manual_seed(1)
    with torch.no_grad():
        return guide.path(episodes).sample((draws,)).squeeze(2)[:, 0].median(0).values


@pytest.mark.parametrize("stays", [1, 50, 500])
@pytest.mark.parametrize("guide", [DeadReckoning, *TRACKING])
def test_an_agent_that_stands_still_stays_where_it_is(guide: type[SpatialGuide], stays: int) -> None:
    """One frame many times, a move to another frame, three stays; the noise of the steps is 0.03 at most."""
    frames = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    order, actions = [0] * (stays + 1) + [1] * 4, [STAY] * (stays + 1) + [RIGHT] + [STAY] * 3
    path = mean_path(guide(model()).eval(), episode(order, actions, frames))
    true = torch.zeros(len(order), 2)
    true[stays + 1 :, 0] = 1.0
    # five deviations of a random walk: fails by chance once in a million
    assert float((path - true).norm(dim=-1).amax()) < 5 * 1e-3 * math.sqrt(2 * (stays + 5))


@pytest.mark.parametrize("guide", TRACKING)
def test_a_stay_that_was_learnt_as_a_small_move_is_none(guide: type[TrackingGuide]) -> None:
    """M of "stay" is 0.001 after a training; 500 of them would lead half a cell away."""
    frames = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = model()
    with torch.no_grad():
        made.transition.displacement[0, STAY] = 1e-3
    order, actions = [0] * 501 + [1] * 4, [STAY] * 501 + [RIGHT] + [STAY] * 3
    path = mean_path(guide(made).eval(), episode(order, actions, frames))
    assert float(path[500].norm()) < 5e-3 * math.sqrt(1000) and float((path[501] - path[500])[0]) == pytest.approx(
        1, abs=0.02
    )


@pytest.mark.parametrize("guide", [LandmarkCorrected, Smoothing])
def test_standing_still_at_a_new_place_tells_nothing_of_where_it_is(guide: type[TrackingGuide]) -> None:
    """20 moves to new places, then n stays: the position has the variance of 20 steps, whatever n."""
    frames = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = model(scale=0.05)
    made.transition.slip.fill_(0.0)
    for stays in (0, 100):
        seen = episode([*range(20), *[19] * stays], [RIGHT] * 20 + [STAY] * stays, frames)
        torch.manual_seed(0)
        with torch.no_grad():
            draws = guide(made).eval().path(seen).sample((4000,)).squeeze(2)[:, 0, 19]
        # four standard errors of a deviation of 8,000 numbers: a false alarm in 15,000
        assert float(draws.var(0).mean().sqrt()) == pytest.approx(0.05 * math.sqrt(19), rel=4 / math.sqrt(2 * 8000))


def walk(steps: int = 60, seed: int = 0) -> tuple[list[int], list[int], Tensor, Tensor]:
    """On a 4 x 4 grid without walls, places as cells mod 4, with slips: cells, commands, positions, frames."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(256, 3, 8, 8, generator=generator)
    at, cells, commands, positions = torch.zeros(2), [], [], []
    for t in range(steps):
        command = int(torch.randint(5, (), generator=generator))
        slipped = t > 0 and float(torch.rand((), generator=generator)) < 0.1
        done = int(torch.randint(5, (), generator=generator)) if slipped else command
        if t:
            moved = at + MOVES[:, done]
            if float(moved.abs().amax()) > 2:  # back inside
                command = done = STAY
                moved = at
            at = moved
        commands.append(command)
        cells.append(int(16 * (at[0] + 8) + at[1] + 8) % 256)
        positions.append(at.clone())
    return cells, commands, torch.stack(positions), frames


@pytest.mark.parametrize("guide", TRACKING)
def test_stays_anywhere_leave_the_rest_of_the_path_alone(guide: type[TrackingGuide]) -> None:
    cells, commands, positions, frames = walk()
    made = guide(model(), num_hypotheses=64).eval()
    without = mean_path(made, episode(cells, commands, frames))
    # the search finds the slips of this walk
    assert float((without - positions).norm(dim=-1)[-1]) < 0.1
    for at in (0, 17, 30, 58):
        order = cells[: at + 1] + [cells[at]] * 120 + cells[at + 1 :]
        actions = commands[: at + 1] + [STAY] * 120 + commands[at + 1 :]
        path = mean_path(made, episode(order, actions, frames))
        rest = torch.cat([path[: at + 1], path[at + 121 :]])
        assert float((rest - without).norm(dim=-1).amax()) < 5 * 1e-3 * math.sqrt(2 * 180)
        assert float((path[at : at + 121] - without[at]).norm(dim=-1).amax()) < 5 * 1e-3 * math.sqrt(2 * 180)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_stays_do_not_change_what_the_other_frames_resemble(noise: float) -> None:
    torch.manual_seed(0)
    world, place = torch.rand(12, 3, 8, 8), torch.randint(12, (1, 40))
    frames = (world[place] + noise * torch.randn(1, 40, 3, 8, 8)).clamp(0, 1)
    looks = (world[place[:, 19:20]] + noise * torch.randn(1, 60, 3, 8, 8)).clamp(0, 1)
    longer = torch.cat([frames[:, :20], looks, frames[:, 20:]], 1)
    encoder = FrameEncoder()
    short, long = (resembling_steps(look(encoder.statistics, x)).log_weight[0, :, 0] for x in (frames, longer))
    rest = torch.cat([long[:20], long[80:]])
    alike = short > 4
    assert bool((alike == (rest > 4)).all()) and bool(alike.any()) and not bool(alike[1:].all())
    if not noise:
        assert torch.allclose(short[1:], rest[1:], atol=1e-3)


def test_views_come_back_however_long_the_agent_stands_still() -> None:
    torch.manual_seed(0)
    there = torch.randn(1, 40, 4).cumsum(1)
    loc = torch.cat([there, there[:, 10:14] + 0.01 * torch.randn(1, 4, 4)], 1)
    for at in (3, 25, 41):
        order = [*range(at), *[at] * 150, *range(at, 44)]
        found = revisited_steps(_sights(loc[:, order]))
        seen = found.log_weight[0, :, 0].isfinite()
        rest = torch.cat([seen[:at], seen[at + 150 :]])
        assert rest.nonzero().flatten().tolist() == [40, 41, 42, 43]


def _sights(loc: Tensor) -> Any:
    from gtm_pyro.localisation.landmarks import Sights

    return Sights(loc, torch.ones_like(loc), torch.arange(loc.shape[1]).expand(len(loc), -1))


def test_entries_made_while_standing_still_hide_no_others() -> None:
    """A frame that is known at two places: an agent stood at one of them for long when the map was made."""
    torch.manual_seed(0)
    world, encoder = torch.rand(6, 3, 8, 8), FrameEncoder()
    order = [0, 1, *[2] * 50, 3, 4, 2, 5]
    keys = torch.cat([torch.arange(float(len(order))).unsqueeze(-1), torch.zeros(len(order), 1)], -1).unsqueeze(0)
    keys[:, 2:52, 0] = 2.0
    with torch.no_grad():
        memory = SpatialMemory().write(keys, encoder.statistics(world[order].unsqueeze(0)))
    found = resembling_entries(look(encoder.statistics, world[[2, 2, 0]].unsqueeze(0)), memory, num_neighbors=2)
    assert found.position is not None and found.again is not None
    assert sorted(found.position[0, 0, :, 0].tolist()) == [2.0, 54.0]
    assert found.again[0].tolist() == [False, True, False]


def test_an_agent_is_no_surer_of_its_place_on_a_map_for_standing_still() -> None:
    """A look-alike: the frame is known at two places, and each is as likely after one look as after 200."""
    frames = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = model()
    order = [0, 1, 2, 1, 3]
    keys = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]).unsqueeze(0)
    memory = made.remember(keys, frames[order].unsqueeze(0))
    guide = ParticleGuide(made, 64, memory=memory, anywhere=True).eval()
    for stays in (1, 200):
        seen = episode([1] * (stays + 1) + [2], [STAY] * (stays + 1) + [RIGHT], frames)
        particles = guide.filter(seen)
        before = particles.log_weight[0, stays].exp()
        left = before[(particles.loc[0, stays] - keys[0, 1]).norm(dim=-1) < 0.3].sum()
        right = before[(particles.loc[0, stays] - keys[0, 3]).norm(dim=-1) < 0.3].sum()
        assert float(left) == pytest.approx(0.5, abs=0.05) and float(right) == pytest.approx(0.5, abs=0.05)
        found = particles.log_weight[0, -1].exp()[(particles.loc[0, -1] - keys[0, 2]).norm(dim=-1) < 0.3].sum()
        assert float(found) > 0.9


@pytest.mark.parametrize("guide", TRACKING)
def test_an_agent_with_a_heading_may_stand_still(guide: type[TrackingGuide]) -> None:
    torch.manual_seed(0)
    f = RotatingTranslation(3, scale=0.02)
    with torch.no_grad():
        f.displacement.copy_(torch.tensor([[0.15, 0.0, 0.05], [0.0, 0.0, 0.0], [0.0, 0.0, math.pi / 8]]))
    made = GTMSM(f)
    actions = torch.eye(3)[([0] * 8 + [2] * 4) * 8].unsqueeze(0)
    poses = f.rollout(torch.zeros(1, 3), actions, f.scale * torch.randn(1, 96, 3)).detach()
    wave = torch.randn(2, 192, generator=torch.Generator().manual_seed(1))
    frames = (0.5 + 0.5 * (poses[..., :2] @ wave + poses[..., 2:]).cos()).view(1, 96, 3, 8, 8)
    order = [*range(70), *[69] * 100, *range(70, 96)]
    still = actions[:, order].clone()
    still[:, 70:170] = torch.eye(3)[1]
    short, long = Episodes(frames, actions, 90), Episodes(frames[:, order], still, 190)
    paths = [mean_path(guide(made).eval(), one, 256) for one in (short, long)]
    rest = torch.cat([paths[1][:70], paths[1][170:]])
    # the noise of 100 more steps is 0.2
    assert float((rest - paths[0])[:, :2].norm(dim=-1).amax()) < 0.5
