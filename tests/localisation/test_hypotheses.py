"""The search over hypotheses against a plain enumeration of all of them, and its parts against brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gtm_pyro.localisation.explanations import Hypotheses
from gtm_pyro.localisation.hypotheses import HypothesisSearch
from gtm_pyro.localisation.landmarks import Landmarks
from gtm_pyro.localisation.moves import typical_move
from gtm_pyro.localisation.selection import keep, replace_smallest
from gtm_pyro.transitions import Transition, Translation, WalledTranslation

ACTIONS, SLIP, SCALE, START_VARIANCE = 3, 0.2, 0.05, 0.01


def transition(kind: type[Translation] = Translation, slip: float = SLIP) -> Translation:
    torch.manual_seed(0)
    made = kind(ACTIONS, scale=SCALE, slip=slip, slip_scale=0.7).double()
    torch.nn.init.normal_(made.displacement)
    return made


def commanded(batch: int, steps: int) -> Tensor:
    return torch.eye(ACTIONS, dtype=torch.float64)[torch.randint(ACTIONS, (batch, steps))]


def own_landmarks(batch: int, steps: int) -> Landmarks:
    """Resemblances to random earlier steps, some of them of no account."""
    strength = torch.where(torch.rand(batch, steps, 1) < 0.6, 9.0, -4.0).double()
    strength = strength * torch.rand(batch, steps, 1, dtype=torch.float64)
    strength[:, 0] = -torch.inf
    index = torch.stack([torch.randint(max(t, 1), (batch, 1)) for t in range(steps)], 1)
    return Landmarks(strength, torch.zeros(batch, steps, dtype=torch.float64), index=index)


def fixed_landmarks(batch: int, steps: int) -> Landmarks:
    shape = (batch, steps, 3)
    draw = torch.randn(*shape, 4, dtype=torch.float64)
    return Landmarks(draw[..., 2], draw[:, :, 0, 3], position=2 * draw[..., :2], scale=0.2 + torch.rand(shape).double())


def run(search: HypothesisSearch, f: Transition, actions: Tensor, landmarks: Landmarks, **options: bool) -> Hypotheses:
    start = torch.zeros(len(actions), f.state_dim, dtype=actions.dtype)
    return search(f, actions, landmarks, start, torch.full_like(start[:, 0], START_VARIANCE), **options)


def kernel(square: float, variance: float, noise: float) -> float:
    """How certainly two positions in the plane are one place; nothing beyond 20 variances."""
    spread = variance + noise
    return math.exp(-square / (2 * spread)) * noise / spread if square <= 20 * spread else 0.0


class OwnPlaces:
    """What the frames of one episode say under one sequence of actions, step by step, from the definitions."""

    def __init__(self, landmarks: Landmarks, scale: float) -> None:
        self.strength = landmarks.log_weight[:, 0].tolist()
        assert landmarks.index is not None
        self.index, self.noise = landmarks.index[:, 0].tolist(), scale**2
        bar = max(1.0, 0.5 * max(self.strength[1:]))
        self.alike = [strength > bar for strength in self.strength]
        self.labels: list[int] = []
        for t, alike in enumerate(self.alike):
            self.labels.append(self.labels[self.index[t]] if alike else t)
        self.spots: list[tuple[int, Tensor, float]] = []
        self.before: tuple[Tensor, float] | None = None

    def __call__(self, t: int, s: Tensor, var: float) -> tuple[float, Tensor, float]:
        """Log likelihood of x_t at N(s, var), and the corrected mean and variance."""
        label, known = self.labels[t], [spot for spot in self.spots if spot[0] == self.labels[t]]
        contents = len(set(self.labels[:t]))
        alike = math.exp(-self.strength[t]) if self.alike[t] else 1.0
        chance, new = min(alike, 1 / (contents + 1)), (contents + 1) / (len(self.spots) + 1)
        elsewhere = new * (1 - contents * chance)
        if known:
            elsewhere = (len(known) - 1) / (len(self.spots) + 1) + new * chance
        overlap = 1e-3 if self.alike[t] else min(max(math.exp(self.strength[t]), 1e-3), 1.0)
        overlap = overlap if t else 1.0
        weights = [
            (here, kernel(float((s - at).square().sum()), max(var - own, 0.0), self.noise))
            for here, at, own in self.spots
        ]
        stayed, near = 0.0, [weight for here, weight in weights if here == label]
        if self.before is not None:
            step = var - self.before[1]
            stayed = kernel(float((s - self.before[0]).square().sum()), step, self.noise)
            weights.append((self.labels[t - 1], stayed))
        total = sum(weight for _, weight in weights)
        hit = sum(weight for here, weight in weights if here == label) / max(total, 1.0)
        missed = (min(total, 1.0) * overlap + max(1 - total, 0.0)) * elsewhere
        likelihood = math.log(hit * (1 - overlap) + missed)
        if hit * (1 - overlap) <= missed:
            self.spots.append((label, s, var))
        elif (stayed > 0.5 and self.labels[t - 1] == label) or not any(near):
            assert self.before is not None
            moved = float((s - self.before[0]).square().sum())
            gain = var / (var + self.noise * (self.noise + moved) / moved)
            s, var = s + gain * (self.before[0] - s), var * (1 - gain)
        else:
            _, at, own = max(
                known, key=lambda spot: kernel(float((s - spot[1]).square().sum()), max(var - spot[2], 0.0), self.noise)
            )
            relative = max(var - own, 0.0)
            gain = relative / (relative + self.noise)
            s, var = s + gain * (at - s), var * (1 - gain)
        self.before = s, var
        return likelihood, s, var


class FixedPlaces:
    """The same for landmarks at known positions."""

    def __init__(self, landmarks: Landmarks, _: float) -> None:
        self.landmarks = landmarks

    def __call__(self, t: int, s: Tensor, var: float) -> tuple[float, Tensor, float]:
        landmarks = self.landmarks
        assert landmarks.position is not None and landmarks.scale is not None
        noise = landmarks.scale[t] ** 2
        square = (s - landmarks.position[t]).square().sum(-1)
        apart = (landmarks.position[t].unsqueeze(1) - landmarks.position[t]).square().sum(-1)
        looks = (-apart / (2 * noise.unsqueeze(-1))).exp().sum(-1)  # several entries of one place are one
        each = landmarks.log_weight[t] - looks.log() - square / (2 * (var + noise)) + (noise / (var + noise)).log()
        background = landmarks.log_background[t]
        total = float(torch.logaddexp(each.logsumexp(-1), background))
        best = int(each.argmax())
        if each[best] > background:
            gain = var / (var + float(noise[best]))
            s, var = s + gain * (landmarks.position[t, best] - s), var * (1 - gain)
        return total, s, var


def enumerate_all(
    kind: type, f: Transition, actions: Tensor, landmarks: Landmarks, scale: float
) -> dict[tuple[int, ...], tuple[float, Tensor]]:
    """Log weight, unnormalised, and last position of every sequence of actions of one episode."""
    found, slip, noise = {}, float(f.slip), float(f.scale) ** 2
    done = actions.argmax(-1).tolist()
    for sequence in itertools.product(range(ACTIONS), repeat=len(done) - 1):
        looks = kind(landmarks, scale)
        total, s, var = looks(0, torch.zeros(2, dtype=torch.float64), START_VARIANCE)
        for t, action in enumerate(sequence, 1):
            s, var = f.loc(s, torch.eye(ACTIONS).double()[action]), var + noise
            prior = 1 - slip if action == done[t] else slip / (ACTIONS - 1)
            one, s, var = looks(t, s, var)
            total += math.log(prior) + one
        found[sequence] = total, s
    return found


@pytest.mark.parametrize("kind", [OwnPlaces, FixedPlaces])
@pytest.mark.parametrize("world", [Translation, WalledTranslation])
@torch.no_grad()
def test_a_search_that_keeps_all_hypotheses_is_the_exhaustive_sum(kind: type, world: type[Translation]) -> None:
    f, steps, batch = transition(world), 6, 3
    for seed in range(3):
        torch.manual_seed(seed)
        actions = commanded(batch, steps)
        landmarks = (own_landmarks if kind is OwnPlaces else fixed_landmarks)(batch, steps)
        found = run(HypothesisSearch(ACTIONS ** (steps - 1)), f, actions, landmarks)
        sequences = found.steps.actions[..., 1:, :].argmax(-1)
        for b in range(batch):
            one = Landmarks(
                *(None if v is None else v[b] for v in (landmarks.log_weight, landmarks.log_background,
                                                        landmarks.position, landmarks.index, landmarks.scale))
            )  # fmt: skip
            exact = enumerate_all(kind, f, actions[b], one, 0.2 * float(typical_move(f, actions)[b]))
            if kind is FixedPlaces:
                total = torch.tensor([weight for weight, _ in exact.values()], dtype=torch.float64).logsumexp(0)
                # sequences that meet are one from then on, though corrections left them a little apart
                positions = torch.stack([s for _, s in exact.values()])
                share = (torch.tensor([weight for weight, _ in exact.values()]).double() - total).exp()
                for s in found.steps.states[b, found.log_weight[b] > -5, -1]:
                    here = float(share[(positions - s).norm(dim=-1) < 0.3].sum())
                    near = (found.steps.states[b, :, -1] - s).norm(dim=-1) < 0.3
                    assert float(found.log_weight[b, near].exp().sum()) == pytest.approx(here, abs=0.02)
                continue
            alive = found.log_weight[b] > -math.inf
            kept = [tuple(sequence) for sequence in sequences[b, alive].tolist()]
            assert len(set(kept)) == len(kept) > 0.5 * len(exact)
            heaviest = exact[kept[int(found.log_weight[b, alive].argmax())]][0]
            top = float(found.log_weight[b].max())
            for sequence, weight, s in zip(
                kept, found.log_weight[b, alive].tolist(), found.steps.states[b, alive, -1], strict=True
            ):
                assert weight - top == pytest.approx(exact[sequence][0] - heaviest, abs=1e-5)
                assert torch.allclose(exact[sequence][1], s, atol=1e-9)
            # those that are left out end where a heavier one does, with the same map
            for sequence in exact.keys() - set(kept):
                near = [exact[one][0] for one in kept if float((exact[one][1] - exact[sequence][1]).norm()) < 0.1]
                assert max(near) > exact[sequence][0] - 0.1


@torch.no_grad()
def test_on_a_fixed_map_hypotheses_that_meet_are_one() -> None:
    """Where frames say nothing, the weight of a place is that of all sequences that lead there."""
    f, steps = transition(), 6
    slip = float(f.slip)
    nothing = torch.full((2, steps, 1), -torch.inf, dtype=torch.float64)
    landmarks = Landmarks(nothing, torch.zeros(2, steps).double(), position=torch.zeros(2, steps, 1, 2).double())
    actions = commanded(2, steps)
    found = run(HypothesisSearch(64), f, actions, landmarks)
    for b in range(2):
        counts: dict[tuple[int, ...], float] = {}
        for sequence in itertools.product(range(ACTIONS), repeat=steps - 1):
            slips = sum(c != int(a) for c, a in zip(sequence, actions[b, 1:].argmax(-1), strict=True))
            key = tuple(sequence.count(c) for c in range(ACTIONS))
            counts[key] = counts.get(key, 0.0) + (slip / (ACTIONS - 1)) ** slips * (1 - slip) ** (steps - 1 - slips)
        weights = found.log_weight[b].exp().sort(descending=True).values[: len(counts)]
        assert weights.tolist() == pytest.approx(sorted(counts.values(), reverse=True), abs=1e-6)


@torch.no_grad()
def test_fewer_hypotheses_are_the_heaviest_at_every_step() -> None:
    """Where frames say nothing, the N heaviest sequences are those with the fewest slips: weights are known."""
    f, steps = transition(), 5
    nothing = torch.full((2, steps, 1), -torch.inf, dtype=torch.float64)
    landmarks = Landmarks(nothing, torch.zeros(2, steps).double(), index=torch.zeros(2, steps, 1).long())
    found = run(HypothesisSearch(1 + 2 * (steps - 1), overlap=1.0), f, commanded(2, steps), landmarks)
    slipped = SLIP / (ACTIONS - 1) / (1 - SLIP)
    expected = torch.tensor([1.0] + [slipped] * 8, dtype=torch.float64)
    weights = found.log_weight.exp().sort(-1, descending=True).values
    assert torch.allclose(weights, (expected / expected.sum()).expand(2, -1))


@torch.no_grad()
def test_actions_that_lead_to_one_place_are_one_hypothesis() -> None:
    f = transition()
    f.displacement[:, 1:] = f.displacement[:, 1:2]
    actions = torch.eye(ACTIONS, dtype=torch.float64)[torch.tensor([[0, 0, 1]])]
    nothing = torch.full((1, 3, 1), -torch.inf, dtype=torch.float64)
    landmarks = Landmarks(nothing, torch.zeros(1, 3).double(), index=torch.zeros(1, 3, 1).long())
    found = run(HypothesisSearch(9, overlap=1.0), f, actions, landmarks)
    alive = found.log_weight[0] > -math.inf
    stay, other = 1 - SLIP / 2, SLIP / 2
    expected = sorted([(1 - SLIP) * stay, (1 - SLIP) * other, SLIP * stay, SLIP * other])
    assert found.log_weight[0][alive].exp().sort().values.tolist() == pytest.approx(expected)


@torch.no_grad()
def test_without_slips_a_path_is_dead_reckoning_where_nothing_resembles() -> None:
    for dtype in (torch.float32, torch.float64):
        f = transition(WalledTranslation, slip=0.0).to(dtype)
        actions = commanded(2, 20).to(dtype)
        strength = torch.full((2, 20, 1), -torch.inf, dtype=dtype)
        index = torch.zeros(2, 20, 1, dtype=torch.int64)
        landmarks = Landmarks(strength, torch.zeros(2, 20, dtype=dtype), index=index)
        found = run(HypothesisSearch(64), f, actions, landmarks)
        assert found.log_weight.shape == (2, 1) and found.online.states.dtype == dtype
        path = f.rollout(actions.new_zeros(2, 2), actions, actions.new_zeros(2, 20, 2))
        assert torch.allclose(found.online.states, path, atol=1e-6)
        assert bool(found.online.evidence.isinf().all())


@torch.no_grad()
def test_a_kidnap_is_followed_to_a_landmark_and_pinned_there() -> None:
    f, steps = transition(slip=0.0), 8
    actions = commanded(1, steps)
    away = torch.tensor([5.0, 5.0], dtype=torch.float64)
    truth = f.rollout(torch.zeros(1, 2).double(), actions, torch.zeros(1, steps, 2).double())
    truth[:, 4:] += away
    landmarks = Landmarks(
        torch.zeros(1, steps, 1).double(), torch.full((1, steps), -30.0).double(), position=truth.unsqueeze(-2),
        scale=torch.tensor(0.1).double(),
    )  # fmt: skip
    found = run(HypothesisSearch(8, kidnap=0.01), f, actions, landmarks)
    assert torch.allclose(found.online.states, truth, atol=1e-2)
    assert float(found.best.variance[0, 0, 4]) == pytest.approx(49.0)
    assert bool((found.best.variance[0, 0, 5:] < 0.01).all())


@torch.no_grad()
def test_an_agent_that_may_be_anywhere_is_found_at_a_landmark() -> None:
    f, steps = transition(slip=0.0), 4
    actions = commanded(1, steps)
    truth = f.rollout(torch.full((1, 2), 5.0).double(), actions, torch.zeros(1, steps, 2).double())
    elsewhere = truth[:, :1] + torch.tensor([-3.0, 2.0]).double()
    position = torch.stack([elsewhere.expand(-1, steps, -1), truth], 2)
    landmarks = Landmarks(
        torch.zeros(1, steps, 2).double(), torch.full((1, steps), -30.0).double(), position, scale=torch.tensor(0.1)
    )
    found = run(HypothesisSearch(8), f, actions, landmarks, anywhere=True)
    assert torch.allclose(found.best.states[:, 0], truth, atol=1e-2)
    assert run(HypothesisSearch(8), f, actions, landmarks).log_weight.shape == (1, 1)


class Generic(Translation):
    """A transition of a user's own, which is known by ``loc`` alone."""

    def loc(self, s: Tensor, actions: Tensor) -> Tensor:
        return s + self.moves(actions).tanh()


@torch.no_grad()
def test_a_transition_of_ones_own_is_searched() -> None:
    f = Generic(ACTIONS, slip=0.1).double()
    actions = commanded(2, 12)
    found = run(HypothesisSearch(32), f, actions, own_landmarks(2, 12))
    best = found.best
    moved = f.loc(best.states[..., :-1, :], best.actions[..., 1:, :])
    free = best.evidence[..., 1:].isinf()
    assert bool(free.any()) and torch.allclose(moved[free], best.states[..., 1:, :][free])


def test_a_single_action_is_not_replaced_by_another() -> None:
    f = Translation(1, slip=0.1).double()
    found = run(HypothesisSearch(4), f, torch.ones(2, 5, 1, dtype=torch.float64), own_landmarks(2, 5))
    assert bool(found.best.actions.eq(1).all()) and bool(found.best.states.isfinite().all())


def test_the_heap_and_the_choice_of_the_heaviest_equal_a_sort() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        size, options = int(random.integers(1, 9)), int(random.integers(1, 6))
        score = random.integers(-6, 0, (size, options)).astype(float)  # many ties
        score[random.random(score.shape) < 0.3] = -np.inf
        heap = np.full(size, -np.inf)
        for value in score.ravel():
            if value > heap[0]:
                replace_smallest(heap, value)
        expected = np.sort(score.ravel())[::-1][:size]
        assert np.array_equal(np.sort(heap)[::-1], expected)
        parents, pick = np.zeros((1, size), np.int64), np.zeros(size, np.int64)
        keep(score, heap[0], parents, 0, pick, np.zeros(score.size, np.int64))
        alive = score[parents[0], pick]
        kept = alive[alive > -np.inf]
        assert np.array_equal(np.sort(kept)[::-1], expected[expected > -np.inf])
        chosen = {(int(p), int(c)) for p, c in zip(parents[0], pick, strict=True) if score[p, c] > -np.inf}
        assert len(chosen) == len(kept)  # none twice
        for n, p in enumerate(parents[0]):
            assert p == n or parents[0, p] == p  # a map is copied from a place that keeps its own
