"""ImageNavigation: walks against a plain step-by-step reference, seeds and bad input."""

import numpy as np
import pytest
import torch

from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.tasks import EpisodeData, ImageNavigation
from gtm_pyro.tasks.image_navigation import walks

MOVES = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0), "stay": (0, 0)}


def walk_step_by_step(start, actions, size):
    """Where each action leads, one step after the other, and whether any was stopped by a wall."""
    (x, y), path, stopped = start, [], False
    for action in actions:
        dx, dy = MOVES[walks.ACTION_NAMES[action]]
        stopped |= not (0 <= x + dx < size and 0 <= y + dy < size)
        x, y = min(max(x + dx, 0), size - 1), min(max(y + dy, 0), size - 1)
        path.append((x, y))
    return path, stopped


def crop_of(world, x, y, data):
    top, left = y * data.stride, x * data.stride
    return world[:, top : top + data.crop_size, left : left + data.crop_size]


@pytest.fixture(scope="module")
def data() -> ImageNavigation:
    return ImageNavigation()


@pytest.mark.parametrize(("size", "steps"), [(2, 1), (2, 37), (3, 2), (9, 300), (5, 64), (12, 129)])
def test_walled_walks_equal_the_loop(size, steps):
    generator = torch.Generator().manual_seed(steps)
    actions = walks.draw_actions(20, steps, 2.0, generator)
    start = torch.randint(size, (20, 2), generator=generator)
    positions = walks.walled_positions(start, walks.displacements()[actions], size)
    expected = [walk_step_by_step(s, a, size)[0] for s, a in zip(start.tolist(), actions.tolist(), strict=True)]
    assert positions.dtype == torch.int64 and positions.tolist() == [[list(p) for p in path] for path in expected]


@pytest.mark.parametrize("size", [2, 3, 9])
def test_walks_without_walls_turn_back_at_the_edge(size):
    generator = torch.Generator().manual_seed(size)
    drawn = walks.draw_actions(20, 200, 2.0, generator)
    start = torch.randint(size, (20, 2), generator=generator)
    positions = walks.folded_positions(start, walks.displacements()[drawn], size)
    taken = walks.actions_between(start, positions)
    for s, a, p in zip(start.tolist(), taken.tolist(), positions.tolist(), strict=True):
        path, stopped = walk_step_by_step(s, a, size)
        assert [list(cell) for cell in path] == p and not stopped
    # Only the direction may turn: vertical moves stay vertical, and staying stays staying.
    axis = torch.tensor([0, 0, 1, 1, 2])
    assert torch.equal(axis[taken], axis[drawn]) and not torch.equal(taken, drawn)


@pytest.mark.parametrize("walls", [True, False])
def test_an_episode_is_a_walk_on_its_image(walls):
    data = ImageNavigation(walls=walls)
    episodes = data.sample(8, num_observed=64, num_predicted=32, seed=5, split="test")
    assert isinstance(data, EpisodeData)
    assert episodes.frames.shape == (8, 96, 3, 8, 8) and episodes.actions.shape == (8, 96, 5)
    assert episodes.num_observed == 64 and episodes.worlds.shape == (8, 3, 32, 32)
    assert torch.equal(episodes.actions.sum(-1), torch.ones(8, 96))
    assert (episodes.actions[:, 0, walks.STAY] == 1).all()
    assert torch.equal(episodes.poses[:, 0], torch.full((8, 2), 4.0))
    for b in range(8):
        path, stopped = walk_step_by_step((4, 4), episodes.actions[b].argmax(-1).tolist(), 9)
        assert episodes.poses[b].tolist() == [[float(x), float(y)] for x, y in path]
        assert walls or not stopped
        for t, (x, y) in enumerate(path):
            assert torch.equal(episodes.frames[b, t], crop_of(episodes.worlds[b], x, y, data))


def test_other_sizes():
    data = ImageNavigation(positions=4, crop_size=6, stride=5)
    episodes = data.sample(2, num_observed=30, num_predicted=10, seed=0)
    assert data.image_size == 21 and data.frame_shape == (3, 6, 6)
    assert episodes.worlds.shape == (2, 3, 21, 21) and episodes.poses.max() == 3 and episodes.poses.min() == 0
    x, y = episodes.poses[1, 20].int().tolist()
    assert torch.equal(episodes.frames[1, 20], crop_of(episodes.worlds[1], x, y, data))


def test_actions_are_uniform_and_repeated():
    """False alarm below 1e-5 in all: eight bounds, each five standard errors wide."""
    actions = walks.draw_actions(400, 3000, 2.0, torch.Generator().manual_seed(0))
    # Neighbours differ when a run ends, once in three steps, and the next run is of another action: 4 / 15.
    changes = (actions[:, 1:] != actions[:, :-1]).float().mean().item()
    assert changes == pytest.approx(4 / 15, abs=5 * (4 / 15 / 1.2e6) ** 0.5)
    # An action's share over 400,000 runs; as their lengths differ its standard error is 1.11 times a coin's.
    shares = torch.bincount(actions.flatten(), minlength=5) / actions.numel()
    assert shares.tolist() == pytest.approx([0.2] * 5, abs=5 * 1.11 * (0.16 / 4e5) ** 0.5)
    # Poisson, not geometric: the first run has one step with probability exp(-2), the next differs in 4 of 5.
    alone = walks.draw_actions(20000, 2, 2.0, torch.Generator().manual_seed(1)).diff(dim=1).ne(0).double().mean()
    assert alone.item() == pytest.approx(0.8 * np.exp(-2), abs=5 * (0.108 * 0.892 / 20000) ** 0.5)
    single = walks.draw_actions(400, 3000, 0.0, torch.Generator().manual_seed(0))
    changes = (single[:, 1:] != single[:, :-1]).float().mean().item()
    assert changes == pytest.approx(0.8, abs=5 * (0.16 / 1.2e6) ** 0.5)


def test_a_default_episode_covers_the_measured_number_of_cells(data):
    """256 steps visit 57.6 of 81 cells, deviation 7.3: 3 is 5.8 standard errors (false alarm 1e-8)."""
    episodes = data.sample(200, num_observed=256, num_predicted=1, seed=0)
    cells = (episodes.observed_poses @ torch.tensor([1.0, 9.0])).int()
    assert np.mean([len(set(row)) for row in cells.tolist()]) == pytest.approx(57.6, abs=3)


def test_seeds(data):
    def draw(seed, split="train", source=data):
        return source.sample(4, num_observed=20, num_predicted=5, seed=seed, split=split)

    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = draw(7)
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(1)
    again = draw(7, source=ImageNavigation())
    for name in ("frames", "actions", "poses", "worlds"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    # Two batches of 4 walks of 24 free actions agree by chance with probability far below 1e-9.
    assert not torch.equal(first.actions, draw(8).actions)
    assert not torch.equal(first.actions, draw(7, "test").actions)
    assert not torch.equal(ImageNavigation(image_seed=1).worlds("test"), data.worlds("test"))


@pytest.mark.parametrize("one_hot", [True, False])
def test_a_walk_in_chunks_is_the_whole_walk(data, one_hot):
    episodes = data.sample(3, num_observed=10, num_predicted=5, seed=0, split="test")
    actions = data.random_actions(3, 500, seed=1)
    assert actions.shape == (3, 500, 5) and torch.equal(actions, data.random_actions(3, 500, seed=1))
    if not one_hot:
        actions = actions.argmax(-1)
    whole = data.walk(actions, episodes.worlds, episodes.poses[:, -1])
    assert whole.frames.shape == (3, 500, 3, 8, 8) and whole.poses.shape == (3, 500, 2)
    start = episodes.poses[:, -1]
    for chunk in actions.split(128, 1):
        part = data.walk(chunk, episodes.worlds, start)
        stop = sum(chunk.shape[1:2])
        assert torch.equal(part.frames, whole.frames[:, :stop]) and torch.equal(part.poses, whole.poses[:, :stop])
        whole = type(whole)(whole.frames[:, stop:], whole.poses[:, stop:])
        start = part.poses[:, -1]
    again = data.walk(episodes.actions, episodes.worlds)
    assert torch.equal(again.frames, episodes.frames) and torch.equal(again.poses, episodes.poses)


def test_random_actions_without_walls_stay_on_the_image():
    data = ImageNavigation(walls=False)
    worlds = data.sample(2, num_observed=1, num_predicted=1, seed=0).worlds
    start = torch.tensor([[0.0, 0.0], [8.0, 3.0]])
    walk = data.walk(data.random_actions(2, 400, seed=0, start=start), worlds, start)
    assert walk.poses.min() == 0 and walk.poses.max() == 8
    steps = torch.tensor([[3, 3, 3], [4, 4, 3]])
    with pytest.raises(EpisodesError, match=r"actions\[1, 2\]: expected a move that stays .* got 'right'"):
        data.walk(steps, worlds, start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": torch.tensor([[0, 5]])}, r"actions\[0, 1\]: expected an index from 0 to 4, got 5"),
        ({"actions": torch.rand(1, 2)}, r"actions: expected indices .* got torch.float32 of shape \(1, 2\)"),
        ({"actions": torch.zeros(1, 2, 5)}, r"actions\[0, 0\]: expected one-hot"),
        ({"actions": torch.zeros(1, 2, 4)}, r"actions: expected .* \(batch, steps, 5\)"),
        ({"worlds": torch.zeros(1, 3, 30, 32)}, r"worlds: expected \(1, 3, 32, 32\), got \(1, 3, 30, 32\)"),
        ({"start": torch.zeros(2, 2)}, r"start: expected \(1, 2\), got \(2, 2\)"),
        ({"start": torch.tensor([[1.0, 9.0]])}, r"start\[0, 1\]: expected a whole cell from 0 to 8, got 9"),
        ({"start": torch.tensor([[0.5, 1.0]])}, r"start\[0, 0\]: .* got 0.5"),
        ({"start": torch.tensor([[0.0, float("nan")]])}, r"start\[0, 1\]: .* got nan"),
    ],
)
def test_bad_walks(data, change, message):
    given = {"actions": torch.tensor([[0, 1]]), "worlds": torch.zeros(1, 3, 32, 32)} | change
    with pytest.raises(EpisodesError, match=message):
        data.walk(**given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": 1}, "positions: expected at least 2"),
        ({"crop_size": 0}, "crop_size: expected a whole number of at least 1, got 0"),
        ({"stride": 1.5}, "stride: .* got 1.5"),
        ({"cuts_per_image": 0}, "cuts_per_image: .* got 0"),
        ({"mean_repeats": -1.0}, "mean_repeats: expected a number of at least 0, got -1.0"),
        ({"mean_repeats": float("nan")}, "mean_repeats: .* got nan"),
        ({"test_fraction": 0.0}, "test_fraction: expected over 0"),
        ({"test_fraction": 0.5}, "test_fraction: expected 0.25 with the bundled photographs"),
        ({"image_seed": -1}, "image_seed: .* got -1"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ConfigError, match=message):
        ImageNavigation(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size: .* got 0"),
        ({"num_observed": 0}, "num_observed: .* got 0"),
        ({"num_predicted": -1}, "num_predicted: .* got -1"),
        ({"seed": -1}, "seed: .* got -1"),
        ({"split": "valid"}, "split: expected 'train' or 'test', got 'valid'"),
    ],
)
def test_bad_samples(data, change, message):
    with pytest.raises(ConfigError, match=message):
        data.sample(**({"batch_size": 2, "num_observed": 3, "num_predicted": 1, "seed": 0} | change))


def test_training_images_are_varied_and_test_images_are_not() -> None:
    data = ImageNavigation(cuts_per_image=2)
    plain = ImageNavigation(cuts_per_image=2, augment=False)
    varied = data.sample(64, num_observed=1, num_predicted=1, seed=0).worlds
    assert varied is not None
    pool = data.worlds("train").float() / 255
    same = (varied[:, None] == pool[None]).flatten(2).all(-1).any(-1)
    assert same.float().mean() < 0.2
    sums = {tuple(sorted(image.sum((-2, -1)).round(decimals=2).tolist())) for image in pool}
    assert {tuple(sorted(image.sum((-2, -1)).round(decimals=2).tolist())) for image in varied} <= sums
    for source, split in ((plain, "train"), (data, "test")):
        worlds = source.sample(8, num_observed=1, num_predicted=1, seed=0, split=split).worlds
        assert worlds is not None
        pool = source.worlds(split).float() / 255
        assert (worlds[:, None] == pool[None]).flatten(2).all(-1).any(-1).all()
