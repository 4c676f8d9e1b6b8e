"""Starting values by search: a ring of views whose true turns are known, and brute-force scores."""

import itertools
import math

import pytest
import torch
from ring_cases import LEFT, RATE, RIGHT, STAY, ring_world, turning
from torch import Tensor

from gtm_pyro.errors import EpisodesError
from gtm_pyro.initialisation import LoopClosure, MemorySearch
from gtm_pyro.initialisation.memory_fit import Values, differences, memory_fit, seen
from gtm_pyro.initialisation.transition_search import scored_episodes, search, turn_signs
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition, Translation

MOMENTUM_TIME, TAU = 82, 33


def turn_episodes(kind: type[RotatingTranslation], batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Each episode turns one way without a stop, from rest: frames and actions."""
    way = torch.where(torch.arange(batch) % 2 == 0, LEFT, RIGHT)
    actions = torch.eye(3)[way].unsqueeze(1).repeat(1, MOMENTUM_TIME, 1)
    generator = torch.Generator().manual_seed(seed)
    first = 2 * math.pi * torch.rand(batch, 1, generator=generator)
    headings = torch.cat([first, first + turning(kind, actions)], 1)
    return ring_world(headings, seed), actions


def brute_force_fit(
    transition: Transition, values: Values, frames: Tensor, actions: Tensor, keys: HeadingKeys
) -> Tensor:
    """Errors of mixed frames, entry by entry: (batch,)."""
    for name, value in values.items():
        getattr(transition, name).data = value
    start, still = torch.zeros(len(frames), 3).to(frames), torch.zeros(*actions.shape[:2], 3).to(frames)
    places = keys(transition.rollout(start, actions, still))
    tau, total = frames.shape[1] // 2, []
    for b in range(len(frames)):
        errors = []
        for t in range(tau, frames.shape[1]):
            distance = [float((places[b, t] - places[b, i]).norm()) for i in range(tau)]
            one, two = sorted(range(tau), key=distance.__getitem__)[:2]
            share = distance[one] / (distance[one] + distance[two])
            shown = (1 - share) * frames[b, one] + share * frames[b, two]
            errors.append(float((shown - frames[b, t]).square().mean()))
        total.append(sum(errors) / len(errors))
    return torch.tensor(total, dtype=frames.dtype)


def rotation_candidates(n: int, seed: int = 0) -> Values:
    generator = torch.Generator().manual_seed(seed)
    return {"displacement": 0.3 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64)}


def small_problem() -> tuple[Tensor, Tensor, HeadingKeys]:
    torch.manual_seed(0)
    actions = torch.eye(3, dtype=torch.float64)[torch.randint(3, (3, 14))]
    headings = torch.cat([torch.zeros(3, 1), turning(RotatingTranslation, actions.float())], 1)
    return ring_world(headings).double(), actions, HeadingKeys(0.7).double()


@pytest.mark.parametrize("kind", [RotatingTranslation, MomentumTranslation])
@torch.no_grad()
def test_memory_fit_equals_a_loop_over_entries(kind: type[RotatingTranslation]) -> None:
    frames, actions, keys = small_problem()
    transition = kind(3).double()
    before = {name: value.clone() for name, value in transition.named_parameters()}
    candidates = rotation_candidates(7)
    if kind is MomentumTranslation:
        candidates["friction"] = torch.randn(7, 3, dtype=torch.float64)
    fit = memory_fit(transition, candidates, actions, differences(frames, 7), keys, chunk=3)
    assert fit.shape == (7, 3)
    assert all(torch.equal(value, before[name]) for name, value in transition.named_parameters())
    for n in range(7):
        values = {name: value[n] for name, value in candidates.items()}
        torch.testing.assert_close(fit[n], brute_force_fit(kind(3).double(), values, frames, actions, keys))


@torch.no_grad()
def test_the_order_of_candidates_and_their_chunks_do_not_matter() -> None:
    frames, actions, keys = small_problem()
    transition, candidates = RotatingTranslation(3).double(), rotation_candidates(9)
    apart, order = differences(frames, 7), torch.randperm(9)
    fit = memory_fit(transition, candidates, actions, apart, keys)
    mixed = memory_fit(transition, {k: v[order] for k, v in candidates.items()}, actions, apart, keys, chunk=2)
    torch.testing.assert_close(mixed, fit[order], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_one_memorised_step_and_other_families_of_transitions() -> None:
    """With one entry there is nothing to mix; positions in a plane are their own keys."""
    frames, actions, keys = small_problem()
    fit = memory_fit(RotatingTranslation(3).double(), rotation_candidates(2), actions, differences(frames, 1), keys)
    copy = (frames[:, 1:] - frames[:, :1]).square().mean((1, 2, 3, 4))
    torch.testing.assert_close(fit, copy.expand(2, 3))
    flat = {"displacement": torch.randn(4, 2, 3, dtype=torch.float64)}
    fit = memory_fit(Translation(3).double(), flat, actions, differences(frames, 7), torch.nn.Identity())
    assert fit.shape == (4, 3) and fit.isfinite().all()


def test_frames_are_compared_at_eight_pixels() -> None:
    frames = torch.rand(2, 5, 3, 16, 16)
    apart = differences(frames, 3)
    small = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 2).unflatten(0, (2, 5))
    expected = (small[:, 3:, None] - small[:, None, :3]).square().mean((-3, -2, -1))
    assert apart.predicted.shape == (2, 2, 3) and apart.memorised.shape == (2, 3, 3)
    torch.testing.assert_close(apart.predicted, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [RotatingTranslation, MomentumTranslation])
def test_initialise_finds_the_turns_from_frames_and_actions(kind: type[RotatingTranslation]) -> None:
    """The rate of each action and, at the end, both turns within one percent; the sign of the first action is free."""
    frames, actions = turn_episodes(kind)
    transition = kind(3)
    MemorySearch().start(transition, frames, actions, TAU)
    with torch.no_grad():
        found = transition.controls(actions)[..., 1:, 2]
        true = turning(kind, actions).diff(dim=-1, prepend=torch.zeros(len(actions), 1))
        sign = (found * true).sum().sign()
        rate = (sign * found[:, -1] / true[:, -1]).tolist()
        assert rate == pytest.approx([1.0] * len(rate), rel=0.01)
        whole = (sign * found.sum(-1) / true.sum(-1)).tolist()
    assert whole == pytest.approx([1.0] * len(rate), rel=0.01)


def test_the_same_search_gives_the_same_values_and_nothing_random_changes() -> None:
    """Half of the steps is memorised where the caller does not say, or leaves nothing to predict."""
    frames, actions = turn_episodes(RotatingTranslation, batch=2)
    found = []
    for seed, num_observed in enumerate((None, MOMENTUM_TIME // 2, MOMENTUM_TIME)):
        torch.manual_seed(seed)
        transition, before = RotatingTranslation(3), torch.get_rng_state()
        MemorySearch().start(transition, frames, actions, num_observed)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(transition.displacement.detach().clone())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_search_is_seeded_and_keeps_the_best() -> None:
    frames, actions = turn_episodes(RotatingTranslation, batch=4)
    transition = RotatingTranslation(3)

    def propose(best: Values, generator: torch.Generator) -> Values:
        turns = torch.zeros(16, 3, 3)
        turns[:, 2] = 0.15 * torch.randn(16, 3, generator=generator)
        return {"displacement": best["displacement"] + turns}

    def run(rounds: int, seed: int = 0, gain: float = 0.0) -> tuple[Tensor, float, float]:
        start = {"displacement": torch.zeros(3, 3)}
        found = search(transition, propose, start, seen(frames, actions, TAU), HeadingKeys(), rounds, gain, seed)
        return found.values["displacement"], found.score, found.chance

    scores = [run(rounds)[1] for rounds in (0, 2, 8)]
    assert scores[0] >= scores[1] >= scores[2] < 0.5 * scores[0]
    assert torch.equal(run(8)[0], run(8)[0]) and not torch.equal(run(8)[0], run(8, seed=1)[0])
    assert torch.equal(run(8, gain=1.0)[0], torch.zeros(3, 3))  # nothing is that much better
    chance = differences(frames, TAU).predicted.mean()
    assert run(0)[2] == pytest.approx(float(chance)) and scores[2] < run(0)[2]


@pytest.mark.parametrize("opposite", [True, False])
def test_turn_signs_tell_which_actions_turn_the_same_way(opposite: bool) -> None:
    """Each episode turns one way only, so that no memory can tell."""
    rates = (RATE, -RATE) if opposite else (RATE, 0.8 * RATE)
    batch = 32
    actions = torch.eye(3)[torch.where(torch.arange(batch) % 4 < 2, LEFT, RIGHT)].unsqueeze(1).repeat(1, 60, 1)
    headings = torch.cat([torch.zeros(batch, 1), turning(RotatingTranslation, actions, rates)], 1)
    frames = ring_world(headings + torch.linspace(0, 6, batch).unsqueeze(1))
    for given in itertools.product((1.0, -1.0), repeat=2):
        turns = torch.tensor([0.0, given[0] * abs(rates[0]), given[1] * abs(rates[1])])
        signed = turns * turn_signs(turns, frames, actions, lambda turns: actions @ turns)
        assert signed[LEFT] == turns[LEFT] and signed[STAY] == 0
        assert (signed[LEFT] * signed[RIGHT] < 0) == opposite


def test_a_world_that_never_changes_starts_anywhere_without_an_error() -> None:
    actions = torch.eye(3)[torch.randint(3, (4, 12))]
    for kind in (RotatingTranslation, MomentumTranslation):
        transition = kind(3)
        MemorySearch().start(transition, torch.full((4, 12, 3, 6, 6), 0.5), actions, 6)
        assert all(parameter.isfinite().all() for parameter in transition.parameters())


def test_where_no_two_frames_look_the_same_a_translation_is_searched() -> None:
    data = ImageNavigation(walls=False, frame_noise=0.1)
    episodes = data.sample(16, num_observed=96, num_predicted=32, seed=0)
    torch.manual_seed(0)
    transition = Translation(5)
    LoopClosure().start(transition, episodes.frames, episodes.actions, 96)
    m = transition.displacement.detach()
    torch.testing.assert_close(m[:, 0], -m[:, 1], atol=0.05, rtol=0)
    torch.testing.assert_close(m[:, 2], -m[:, 3], atol=0.05, rtol=0)
    assert abs(float(torch.cosine_similarity(m[:, 0], m[:, 2], dim=0))) < 0.2
    assert float(m[:, 4].norm()) < 0.05 and float(m[:, :4].norm(dim=0).min()) > 0.5


def test_one_step_tells_nothing() -> None:
    with pytest.raises(EpisodesError, match="frames: expected at least 2 steps to find starting values, got 1"):
        scored_episodes(1, None)
