"""SavedEpisodes: a user's own shards through the protocol of every other source."""

import numpy as np
import pytest
import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.tasks import EpisodeData, SavedEpisodes


def write(path, number, steps, first, dtype=np.uint8, **extra):
    """Episodes whose every pixel is the episode's number and whose action is the step's number."""
    values = np.arange(first, first + number, dtype=dtype)[:, None, None, None, None]
    frames = np.broadcast_to(values if dtype == np.uint8 else values / 255, (number, steps, 1, 2, 2))
    actions = np.broadcast_to(np.arange(steps, dtype=np.float32)[:, None], (number, steps, 1))
    extra = {"continuous_actions": np.asarray(True)} | extra
    np.savez(path, frames=frames.astype(dtype), actions=actions, poses=actions, **extra)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "a.npz", 7, 10, first=0)
    write(tmp_path / "b.npz", 3, 30, first=7, num_observed=np.asarray(25))
    return tmp_path


def episode_numbers(episodes: Episodes) -> list[int]:
    return (episodes.frames[:, 0, 0, 0, 0] * 255).round().int().tolist()


def test_windows_of_the_right_episodes(folder):
    data = SavedEpisodes(str(folder))
    assert isinstance(data, EpisodeData)
    assert (data.frame_shape, data.action_dim, data.action_names) == ((1, 2, 2), 1, ("action 0",))
    train = data.sample(200, num_observed=4, num_predicted=2, seed=0)
    assert train.num_observed == 4 and train.num_steps == 6 and train.frames.dtype == torch.float32
    # 8 training episodes: one of 200 draws misses one of them with probability 8 * (7 / 8)**200 < 1e-10.
    assert set(episode_numbers(train)) == set(range(8))
    assert set(episode_numbers(data.sample(50, num_observed=4, num_predicted=2, seed=0, split="test"))) == {
        8,
        9,
    }
    # The steps of a window follow each other, and its poses are those of its frames and actions.
    assert torch.equal(train.actions.diff(dim=1), torch.ones(200, 5, 1))
    assert torch.equal(train.poses, train.actions)
    # Windows start at 0 and at the last possible place: missed in 175 draws of 5 with probability < 1e-15.
    short = train[torch.tensor(episode_numbers(train)) < 7]
    assert short.actions[:, 0].min() == 0 and short.actions[:, 0].max() == 4


def test_long_windows_come_from_long_episodes(folder):
    data = SavedEpisodes(str(folder))
    whole = data.sample(4, num_observed=20, num_predicted=10, seed=0)
    assert set(episode_numbers(whole)) == {7}
    with pytest.raises(ConfigError, match="at most 30 steps, the longest train episode .* got 31"):
        data.sample(4, num_observed=20, num_predicted=11, seed=0)


def test_what_the_data_says_of_itself(folder):
    data = SavedEpisodes(str(folder))
    assert data.lengths == {"train": (10,) * 7 + (30,), "test": (30, 30)}
    assert (data.pose_names, data.has_heading) == (None, False)
    assert [data.num_fitting(observed, 2) for observed in (8, 9, 25)] == [8, 1, 1]
    assert data.num_fitting(9, 2, "test") == 2


def test_the_same_seed_gives_the_same_windows(folder):
    data = SavedEpisodes(str(folder))
    state = torch.get_rng_state()
    first = data.sample(16, num_observed=4, num_predicted=2, seed=3)
    torch.manual_seed(99)
    again = SavedEpisodes(str(folder)).sample(16, num_observed=4, num_predicted=2, seed=3)
    assert torch.equal(first.frames, again.frames) and torch.equal(first.actions, again.actions)
    other = data.sample(16, num_observed=4, num_predicted=2, seed=4)
    assert not torch.equal(first.actions, other.actions)
    torch.manual_seed(99)
    assert not torch.equal(torch.get_rng_state(), state)


def test_all_episodes_for_testing(folder):
    data = SavedEpisodes(str(folder), test_fraction=1.0, action_names=["speed"])
    numbers = episode_numbers(data.sample(200, num_observed=1, num_predicted=1, seed=0, split="test"))
    # 10 * (9 / 10)**200 < 1e-8
    assert set(numbers) == set(range(10)) and data.action_names == ("speed",)
    with pytest.raises(ConfigError, match="train episode"):
        data.sample(1, num_observed=1, num_predicted=1, seed=0)


def test_shards_that_disagree_are_named(folder):
    write(folder / "c.npz", 2, 10, first=10)
    with np.load(folder / "c.npz") as stored:
        arrays = dict(stored)
    for name, array in (("frames", np.zeros((2, 10, 3, 2, 2), np.uint8)), ("actions", np.zeros((2, 10, 4)))):
        np.savez(folder / "c.npz", **(arrays | {name: array}))
        with pytest.raises(EpisodesError, match=rf"c\.npz: {name}: expected .* like the first shard"):
            SavedEpisodes(str(folder))
    np.savez(folder / "c.npz", **{name: array for name, array in arrays.items() if name != "poses"})
    with pytest.raises(EpisodesError, match=r"c\.npz: poses: expected 1 .* got None"):
        SavedEpisodes(str(folder))
    np.savez(folder / "c.npz", **(arrays | {"actions": np.full((2, 10, 1), np.nan)}))
    with pytest.raises(EpisodesError, match=r"c\.npz: actions\[0, 0, 0\]: expected a finite value, got nan"):
        SavedEpisodes(str(folder))


def test_bad_arguments(folder, tmp_path_factory):
    with pytest.raises(EpisodesError, match="there is nothing"):
        SavedEpisodes(str(folder / "missing"))
    with pytest.raises(ConfigError, match="test_fraction"):
        SavedEpisodes(str(folder), test_fraction=0.0)
    with pytest.raises(ConfigError, match="action_names: expected 1 names, got 2"):
        SavedEpisodes(str(folder), action_names=["a", "b"])
    with pytest.raises(ConfigError, match="split: expected 'train' or 'test', got 'valid'"):
        SavedEpisodes(str(folder)).sample(1, num_observed=1, num_predicted=1, seed=0, split="valid")
    lone = tmp_path_factory.mktemp("lone")
    write(lone / "a.npz", 1, 10, first=0)
    with pytest.raises(EpisodesError, match="at least two episodes"):
        SavedEpisodes(str(lone))
