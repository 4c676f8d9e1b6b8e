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
    arrays = {"frames": frames.astype(dtype), "actions": actions, "poses": actions}
    np.savez(path, **(arrays | extra))


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
    write(lone / "a.npz", 1, 1, first=0, actions=np.ones((1, 1, 1)))
    with pytest.raises(EpisodesError, match="at least two steps"):
        SavedEpisodes(str(lone))


def test_a_lone_episode_is_cut_in_two(tmp_path, caplog):
    write(tmp_path / "a.npz", 1, 20, first=0)
    data = SavedEpisodes(str(tmp_path))
    assert data.lengths == {"train": (16,), "test": (4,)}
    assert "the last 4 steps of the only episode are for testing" in caplog.text
    asked = {"num_observed": 2, "num_predicted": 1, "seed": 0}
    assert data.sample(100, **asked).actions.max() == 15
    assert data.sample(100, **asked, split="test").actions.min() == 16


# recordings with ends inside


def record(path, lengths, number=0, num_actions=None, **extra):
    """One recording of episodes of these lengths; each pixel is the episode's number, each action the step's in it."""
    steps = np.concatenate([np.arange(n) for n in lengths]).astype(np.uint8)
    numbers = np.repeat(np.arange(number, number + len(lengths)), lengths).astype(np.uint8)
    frames = np.broadcast_to(numbers[:, None, None, None], (len(steps), 1, 2, 2))[None]
    if num_actions is not None:
        extra["num_actions"] = np.asarray(num_actions)
    np.savez(path, frames=frames, actions=steps[None], is_first=(steps == 0)[None], **extra)


def test_no_window_crosses_an_end(tmp_path, caplog):
    record(tmp_path / "a.npz", [9, 4, 12, 3, 7])
    record(tmp_path / "b.npz", [5, 6], number=5)
    data = SavedEpisodes(str(tmp_path), test_fraction=0.1)
    assert data.lengths == {"train": (9, 4, 12, 3, 7, 5), "test": (6,)}
    assert (data.num_actions, data.action_dim) == (12, 12)
    asked = {"num_observed": 4, "num_predicted": 1}
    assert data.num_fitting(**asked) == 4
    drawn = data.sample(400, **asked, seed=0)
    assert drawn.stored["frames"].dtype == torch.float32 and drawn.is_first is None
    # the frame tells the episode and the action the step in it
    frames, steps = drawn.frames * 255, drawn.actions.argmax(-1)
    assert (frames.flatten(1).amax(1) == frames.flatten(1).amin(1)).all()
    assert (steps.diff(dim=1) == 1).all()
    seen = set(zip(episode_numbers(drawn), steps[:, 0].tolist(), strict=True))
    # every window of every episode that is long enough: 5, 8, 3 and 1 of them; the rarest is missed with p < 1e-5
    assert seen == {(e, t) for e, n in ((0, 5), (2, 8), (4, 3), (5, 1)) for t in range(n)}
    data.sample(4, num_observed=3, num_predicted=2, seed=1)
    (left_out,) = [text for text in caplog.messages if "left out" in text]
    assert "2 of 6 train episodes are left out, they are too short for 5 steps" in left_out
    with pytest.raises(ConfigError, match="at most 12 steps, the longest train episode"):
        data.sample(4, num_observed=12, num_predicted=1, seed=0)
    starts = SavedEpisodes(str(tmp_path), from_start=True).sample(50, **asked, seed=0)
    assert (starts.actions.argmax(-1)[:, 0] == 0).all()


def test_how_many_actions_a_folder_has(tmp_path):
    record(tmp_path / "a.npz", [4, 4])
    record(tmp_path / "b.npz", [7, 7], number=2)
    assert SavedEpisodes(str(tmp_path)).action_dim == 7
    told = SavedEpisodes(str(tmp_path), num_actions=9)
    assert told.action_dim == 9 == told.sample(1, num_observed=2, num_predicted=1, seed=0).action_dim
    with pytest.raises(EpisodesError, match=r"b\.npz: actions\[0, 5\]: expected a whole number from 0 to 4, got 5"):
        SavedEpisodes(str(tmp_path), num_actions=5)
    record(tmp_path / "b.npz", [7, 7], number=2, num_actions=8)
    record(tmp_path / "a.npz", [4, 4], num_actions=7)
    with pytest.raises(EpisodesError, match=r"b\.npz: actions: expected 7 like the first shard, got 8"):
        SavedEpisodes(str(tmp_path))


def test_memorising_in_a_recording_ends_where_its_shard_says(tmp_path):
    record(tmp_path / "a.npz", [6, 6], num_observed=np.asarray(9))
    data = SavedEpisodes(str(tmp_path), test_fraction=1)
    drawn = data.sample(100, num_observed=3, num_predicted=2, seed=0, split="test")
    starts = set(zip(episode_numbers(drawn), drawn.actions.argmax(-1)[:, 0].tolist(), strict=True))
    assert starts == {(0, 0), (0, 1), (1, 0)}


def test_windows_of_bytes_are_those_of_floats(tmp_path):
    frames = torch.randint(256, (6, 20, 3, 4, 4), dtype=torch.uint8)
    actions = torch.randint(3, (6, 20))
    for name, episodes in (
        ("bytes", Episodes(frames, actions, 20, num_actions=3)),
        ("floats", Episodes(frames.float() / 255, torch.eye(3)[actions], 20)),
    ):
        episodes.save(tmp_path / name / "a.npz")
    asked = {"num_observed": 5, "num_predicted": 3, "seed": 4}
    drawn = [SavedEpisodes(str(tmp_path / name)).sample(8, **asked) for name in ("bytes", "floats")]
    assert torch.equal(drawn[0].frames, drawn[1].frames) and torch.equal(drawn[0].actions, drawn[1].actions)


def test_shards_of_bytes_and_of_floats_go_together(tmp_path):
    write(tmp_path / "a.npz", 5, 10, first=0)
    write(tmp_path / "b.npz", 5, 10, first=5, dtype=np.float32)
    windows = SavedEpisodes(str(tmp_path)).sample(64, num_observed=4, num_predicted=2, seed=0)
    assert set(episode_numbers(windows)) == set(range(8)), "bytes beside floats are divided by 255 like others"
