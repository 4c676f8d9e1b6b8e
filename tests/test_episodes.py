"""Episodes: what is checked on entry, slicing, and shards on disk."""

import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from folder_cases import loaded

from gtm_pyro.episodes import Episodes, concatenate, save_shards
from gtm_pyro.errors import EpisodesError


def make(batch: int = 3, time: int = 6, tau: int = 4, dtype: torch.dtype = torch.float32) -> Episodes:
    generator = torch.Generator().manual_seed(batch)
    return Episodes(
        frames=torch.rand(batch, time, 3, 4, 5, generator=generator, dtype=dtype),
        actions=torch.randn(batch, time, 2, generator=generator, dtype=dtype),
        num_observed=tau,
        poses=torch.randn(batch, time, 2, generator=generator, dtype=dtype),
        worlds=torch.rand(batch, 3, 8, 8, generator=generator, dtype=dtype),
    )


def fields(episodes: Episodes) -> dict:
    return {name: getattr(episodes, name) for name in ("frames", "actions", "num_observed", "poses", "worlds")}


def assert_same(left: Episodes, right: Episodes) -> None:
    for name, value in fields(left).items():
        other = getattr(right, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_sizes_and_parts():
    episodes = make()
    assert (episodes.batch_size, episodes.num_steps, episodes.num_observed, episodes.num_predicted) == (
        3,
        6,
        4,
        2,
    )
    assert (episodes.action_dim, episodes.frame_shape, len(episodes)) == (2, (3, 4, 5), 3)
    for name in ("frames", "actions", "poses"):
        whole = getattr(episodes, name)
        assert torch.equal(getattr(episodes, f"observed_{name}"), whole[:, :4])
        if name != "poses":
            assert torch.equal(getattr(episodes, f"predicted_{name}"), whole[:, 4:])
    assert episodes.observed.num_steps == episodes.observed.num_observed == 4
    bare = Episodes(episodes.frames, episodes.actions, 6)
    assert bare.observed_poses is None
    assert bare.predicted_frames.shape == (3, 0, 3, 4, 5)


def test_steps_keep_what_was_memorised():
    episodes = make()
    part = episodes.steps(1, 5)
    assert part.num_observed == 3 and torch.equal(part.frames, episodes.frames[:, 1:5])
    assert part.worlds is episodes.worlds
    assert episodes.steps(0, 3).num_observed == 3
    assert episodes.steps(4, 6, num_observed=1).num_observed == 1
    with pytest.raises(EpisodesError, match="num_observed: expected a whole number from 1 to 2, got 0"):
        episodes.steps(4, 6)
    for start, stop in ((-1, 3), (3, 3), (2, 7)):
        with pytest.raises(EpisodesError, match="start < stop <= 6"):
            episodes.steps(start, stop)


def test_another_tau_and_some_of_the_batch():
    episodes = make()
    assert episodes.steps(0, 6, 2).num_predicted == 4
    assert torch.equal(episodes[1].frames, episodes.frames[1:2])
    assert torch.equal(episodes[-1].actions, episodes.actions[2:])
    assert torch.equal(episodes[torch.tensor([2, 0])].poses, episodes.poses[[2, 0]])
    assert episodes[:2].batch_size == 2
    assert len(list(episodes)) == 3
    with pytest.raises(IndexError):
        episodes[3]


def test_to_changes_every_tensor():
    doubled = make().to(torch.float64)
    assert {t.dtype for t in fields(doubled).values() if isinstance(t, torch.Tensor)} == {torch.float64}
    moved = doubled.to("meta")
    assert moved.device.type == "meta" and moved.worlds.device.type == "meta"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": torch.rand(3, 6, 4, 5)}, r"frames: expected \(batch, time, channels.*got \(3, 6, 4, 5\)"),
        (
            {"frames": torch.zeros(3, 6, 3, 4, 5, dtype=torch.int64)},
            "frames: expected dtype float32, float64 or uint8, got torch.int64",
        ),
        ({"frames": np.zeros((3, 6, 3, 4, 5))}, "frames: expected a torch tensor, got ndarray"),
        ({"actions": torch.zeros(3, 5, 2)}, r"actions: expected \(3, 6, 2\), got \(3, 5, 2\)"),
        ({"actions": torch.zeros(3, 6)}, r"actions: expected \(batch, time, action_dim\)"),
        ({"actions": torch.zeros(3, 6, 0)}, r"actions: .*none of them 0, got \(3, 6, 0\)"),
        ({"actions": torch.zeros(3, 6)}, r"actions: .*got \(3, 6\); .*actions.long\(\)"),
        ({"actions": torch.zeros(3, 5, dtype=torch.int64)}, r"actions: expected \(3, 6\), got \(3, 5\)"),
        ({"actions": torch.zeros(3, 6, 2, dtype=torch.float64)}, "actions: expected torch.float32 .*torch.float64"),
        ({"is_first": torch.zeros(3, 6)}, "is_first: expected torch.bool on cpu, got torch.float32"),
        ({"is_first": torch.zeros(3, 5, dtype=torch.bool)}, r"is_first: expected \(3, 6\), got \(3, 5\)"),
        ({"num_actions": 3}, "num_actions: expected 2, as vectors of actions have, got 3"),
        ({"actions": torch.zeros(3, 6, 2, device="meta")}, "actions: expected .*on cpu .*on meta"),
        ({"poses": torch.zeros(2, 6, 2)}, r"poses: expected \(3, 6, 2\), got \(2, 6, 2\)"),
        ({"worlds": torch.zeros(2, 3, 8, 8)}, r"worlds: expected \(3, 3, 8, 8\), got \(2, 3, 8, 8\)"),
        ({"num_observed": 0}, "num_observed: expected a whole number from 1 to 6, got 0"),
        ({"num_observed": 7}, "num_observed: .* got 7"),
        ({"num_observed": True}, "num_observed: .* got True"),
        ({"num_observed": 2.0}, "num_observed: .* got 2.0"),
    ],
)
def test_wrong_shapes_are_always_refused(change, message):
    for validate in (True, False):
        with pytest.raises(EpisodesError, match=message):
            Episodes(**(fields(make()) | change), validate=validate)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        (
            "frames",
            (1, 2, 0, 3, 4),
            float("nan"),
            r"frames\[1, 2, 0, 3, 4\]: expected a value in \[0, 1\], got nan",
        ),
        ("frames", (2, 5, 1, 0, 0), 1.5, r"frames\[2, 5, 1, 0, 0\]: .* got 1.5"),
        ("frames", (0, 0, 0, 0, 0), -0.25, r"frames\[0, 0, 0, 0, 0\]: .* got -0.25"),
        ("actions", (0, 3, 1), float("inf"), r"actions\[0, 3, 1\]: expected a finite value, got inf"),
        ("poses", (2, 0, 1), float("nan"), r"poses\[2, 0, 1\]: expected a finite value, got nan"),
        ("worlds", (1, 2, 7, 7), 2.0, r"worlds\[1, 2, 7, 7\]: expected a value in \[0, 1\], got 2"),
    ],
)
def test_bad_values_are_named_with_their_index(name, index, value, message):
    given = fields(make())
    given[name] = given[name].clone()
    given[name][index] = value
    with pytest.raises(EpisodesError, match=message):
        Episodes(**given)
    Episodes(**given, validate=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shard_comes_back_bit_for_bit(tmp_path, dtype):
    episodes = make(dtype=dtype)
    episodes.save(tmp_path / "new" / "a.npz")
    assert_same(Episodes.load(tmp_path / "new" / "a.npz"), episodes)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npz"]


def test_shards_come_back_in_order(tmp_path):
    episodes = make(batch=5)
    paths = save_shards(episodes, tmp_path / "data", shard_size=2)
    assert [path.name for path in paths] == [f"episodes-0000{i}.npz" for i in range(3)]
    assert_same(loaded(tmp_path / "data"), episodes)
    with pytest.raises(EpisodesError, match="expected a folder without"):
        save_shards(episodes, tmp_path / "data")
    with pytest.raises(EpisodesError, match="shard_size"):
        save_shards(episodes, tmp_path / "other", shard_size=0)


def test_concatenate_names_what_differs():
    with pytest.raises(EpisodesError, match=r"frames: expected \(batch, \*\(6, 3, 4, 5\)\).* in part 1"):
        concatenate([make(), make(time=7)])
    with pytest.raises(EpisodesError, match="num_observed=4.*num_observed=3 in part 1"):
        concatenate([make(), make(tau=3)])
    with pytest.raises(EpisodesError, match="at least one"):
        concatenate([])


def test_users_own_arrays(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 5, 5)).astype(np.uint8)
    np.savez(tmp_path / "video.npz", frames=frames, actions=np.ones((2, 4, 3), np.int64), note=np.arange(3))
    episodes = Episodes.load(tmp_path / "video.npz")
    assert episodes.num_observed == 4 and episodes.actions.dtype == torch.float32
    assert torch.equal(episodes.frames, torch.from_numpy(frames).float() / 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": None}, "expected an array actions, got the arrays frames"),
        ({"actions": np.zeros((2, 3, 1))}, r"actions: expected \(2, 4, 1\), got \(2, 3, 1\)"),
        ({"actions": np.array([["a"]])}, "actions: expected numbers, got dtype <U1"),
        ({"actions": np.array([{"a": 1}])}, "actions: expected a whole array of numbers"),
        (
            {"frames": np.zeros((2, 4, 3, 5, 5), np.int64)},
            "frames: expected floats in .* or uint8, got dtype int64",
        ),
        ({"frames": np.full((2, 4, 3, 5, 5), np.nan)}, r"frames\[0, 0, 0, 0, 0\]: .* got nan"),
        ({"frames": np.float32(0.5)}, r"frames: expected \(batch, time, .* got \(\)"),
        ({"num_observed": np.asarray(9)}, "num_observed: expected a whole number from 1 to 4, got 9"),
        (
            {"num_observed": np.asarray([1, 2])},
            r"num_observed: expected one whole number, got int64, shape \(2,\)",
        ),
    ],
)
def test_foreign_arrays_are_named_with_their_file(tmp_path, change, message):
    arrays = {"frames": np.zeros((2, 4, 3, 5, 5)), "actions": np.zeros((2, 4, 1))} | change
    path = tmp_path / "shard.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(EpisodesError, match=message) as caught:
        Episodes.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def damage_nothing_there(path: Path) -> None:
    path.unlink()


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_text(path: Path) -> None:
    path.write_text("hello")


def damage_cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def damage_flipped_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[300:310] = bytes(10)
    path.write_bytes(content)


def damage_not_an_array_inside(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x93NUMPY", b"\x93NIMPY"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing_there, "there is nothing"),
        (damage_folder, "got a folder"),
        (damage_text, "cut short or of another kind"),
        (damage_cut_short, "cut short or of another kind"),
        (damage_flipped_bytes, "frames: expected a whole array of numbers"),
        (damage_not_an_array_inside, "frames: expected a whole array"),
    ],
)
def test_damaged_shards_give_one_clear_line(tmp_path, damage, message):
    path = tmp_path / "shard.npz"
    make().save(path)
    damage(path)
    with pytest.raises(EpisodesError, match=message) as caught:
        Episodes.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(EpisodesError, match="there is nothing"):
        loaded(tmp_path / "missing")
    with pytest.raises(EpisodesError, match="holds no"):
        loaded(tmp_path)


def test_a_write_that_fails_leaves_the_old_shard(tmp_path):
    path = tmp_path / "shard.npz"
    old = make()
    old.save(path)
    # A limit on file size fails like a full disk does: in the middle of the write.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(EpisodesError, match="could not be written"):
            make(batch=40).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert_same(Episodes.load(path), old)
    assert [entry.name for entry in tmp_path.iterdir()] == ["shard.npz"]


# bytes and whole numbers


def compact(batch: int = 3, time: int = 6, **more) -> Episodes:
    generator = torch.Generator().manual_seed(batch)
    frames = torch.randint(256, (batch, time, 3, 4, 5), generator=generator, dtype=torch.uint8)
    return Episodes(frames, torch.randint(4, (batch, time), generator=generator), time - 2, num_actions=5, **more)


def test_programs_see_floats_of_bytes_and_vectors_of_whole_numbers():
    episodes = compact()
    kept = episodes.stored
    assert kept["frames"].dtype == torch.uint8 and kept["actions"].dtype == torch.int64
    assert (episodes.dtype, episodes.action_dim, episodes.frame_shape) == (torch.float32, 5, (3, 4, 5))
    frames, actions = kept["frames"].float() / 255, torch.eye(5)[kept["actions"]]
    for part, steps in (("observed", slice(0, 4)), ("predicted", slice(4, 6))):
        assert torch.equal(getattr(episodes, f"{part}_frames"), frames[:, steps])
        assert torch.equal(getattr(episodes, f"{part}_actions"), actions[:, steps])
    assert torch.equal(episodes.frames, frames) and torch.equal(episodes.actions, actions)
    assert episodes.actions is episodes.actions, "programs know an episode by its tensors"
    assert episodes.continuous_actions is False
    for part in (episodes[1], episodes.steps(2, 5), episodes.observed, concatenate([episodes, episodes])):
        assert part.stored["frames"].dtype == torch.uint8 and part.stored["actions"].ndim == 2
        assert part.action_dim == 5, "what some steps do not do can still be done"
    double = episodes.to(torch.float64)
    assert torch.equal(double.frames, frames.double()) and torch.equal(double.actions, actions.double())
    moved = episodes.to("meta")
    assert moved.frames.dtype == torch.float32 and moved.actions.shape == (3, 6, 5)


def test_how_many_actions_there_are():
    frames = torch.zeros(1, 3, 3, 8, 8, dtype=torch.uint8)
    assert Episodes(frames, torch.tensor([[0, 3, 1]]), 2).num_actions == 4
    with pytest.raises(EpisodesError, match=r"actions\[0, 1\]: expected a whole number from 0 to 2, got 3"):
        Episodes(frames, torch.tensor([[0, 3, 1]]), 2, num_actions=3)
    with pytest.raises(EpisodesError, match=r"actions\[0, 2\]: expected a whole number from 0, got -1"):
        Episodes(frames, torch.tensor([[0, 3, -1]]), 2)
    with pytest.raises(EpisodesError, match="continuous_actions says, got whole numbers"):
        Episodes(frames, torch.tensor([[0, 3, 1]]), 2, continuous_actions=True)
    for wrong in (0, True, 2.0):
        with pytest.raises(EpisodesError, match="num_actions: expected a whole number of at least 1"):
            Episodes(frames, torch.tensor([[0, 1, 1]]), 2, num_actions=wrong)
    vectors = torch.nn.functional.one_hot(torch.tensor([[0, 3, 1]]))  # int64
    assert torch.equal(Episodes(frames, vectors, 2).actions, vectors.float())


def test_shards_keep_bytes_and_whole_numbers(tmp_path):
    is_first = torch.zeros(3, 6, dtype=torch.bool)
    is_first[1, 3] = True
    episodes = compact(is_first=is_first)
    episodes.save(tmp_path / "a.npz")
    back = Episodes.load(tmp_path / "a.npz")
    for name, tensor in episodes.stored.items():
        assert torch.equal(back.stored[name], tensor) and back.stored[name].dtype == tensor.dtype, name
    assert (back.num_actions, back.num_observed) == (5, 4)
    with pytest.raises(EpisodesError, match="num_actions: expected 6, the file says 5"):
        Episodes.load(tmp_path / "a.npz", num_actions=6)


def test_ten_recordings_of_frames_on_disk(tmp_path):
    """At most 15 MB for 10 episodes of 150 steps of 56x56 RGB, whatever is in the frames."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 150, 3, 56, 56), dtype=np.uint8)
    Episodes(torch.from_numpy(noise), torch.zeros(10, 150, dtype=torch.uint8), 150).save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < 15e6
