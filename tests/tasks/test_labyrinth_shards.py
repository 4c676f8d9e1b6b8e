"""Shards are made from numbers alone, kept whole or not at all, and never mistaken for others."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gtm_pyro.errors import EpisodesError, MissingDependencyError
from gtm_pyro.tasks import SavedEpisodes
from gtm_pyro.tasks.labyrinth import shards
from gtm_pyro.tasks.labyrinth.shards import SHARD_SIZE, Arrays, Recipe
from gtm_pyro.tasks.labyrinth.store import ShardStore

RECIPE = Recipe("labyrinth-rotation", "raycaster", seed=3, num_steps=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made() -> list[Arrays]:
    return [shards.make_shard(RECIPE, "train", number) for number in range(2)]


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_shard_is_decided_by_its_recipe_split_and_number(made: list[Arrays]) -> None:
    first, second = made
    assert first["frames"].shape == (SHARD_SIZE, 3, 3, 32, 32) and first["frames"].dtype == np.uint8
    assert first["actions"].shape == (SHARD_SIZE, 3, 3) and (first["actions"].sum(-1) == 1).all()
    assert first["poses"].shape == (SHARD_SIZE, 3, 3)
    assert same(first, shards.make_shard(RECIPE, "train", 0))
    others = [second, shards.make_shard(RECIPE, "test", 0), shards.make_shard(replace(RECIPE, seed=4), "train", 0)]
    firsts = np.concatenate([arrays["frames"][:, 0] for arrays in (first, *others)])
    assert len(np.unique(firsts, axis=0)) == 4 * SHARD_SIZE, "no world comes twice"


def test_a_file_holds_what_was_made_and_says_what_it_is(made: list[Arrays], tmp_path: Path) -> None:
    for number, arrays in enumerate(made):
        path = shards.write_shard(tmp_path / "new", RECIPE, "train", number, arrays)
        assert same(shards.load_shard(tmp_path / "new", RECIPE, "train", number), arrays)
    with np.load(path) as archive:
        header = json.loads(str(archive["header"]))
    expected = {"source": "labyrinth-rotation", "engine": "raycaster", "seed": 3, "split": "train", "number": 1}
    assert header.items() >= (expected | {"version": shards.PIXELS_VERSION, "digest": RECIPE.digest}).items()
    assert sorted(os.listdir(tmp_path / "new")) == ["train-00000.npz", "train-00001.npz"]
    # the same file byte for byte, and one that any reader of episodes takes
    content = path.read_bytes()
    assert shards.write_shard(tmp_path / "new", RECIPE, "train", 1, made[1]).read_bytes() == content
    saved = SavedEpisodes(str(tmp_path / "new")).sample(2, num_observed=2, num_predicted=1, seed=0)
    assert saved.frames.shape == (2, 3, 3, 32, 32)


@pytest.mark.parametrize("change", [{"seed": 4}, {"num_steps": 4}, {"engine": "vizdoom"}, {"from_rest": False}])
def test_other_pixels_have_another_digest(change: dict, made: list[Arrays], tmp_path: Path) -> None:
    other = replace(RECIPE, **change)
    assert other.digest != RECIPE.digest and shards.automatic_folder(other) != shards.automatic_folder(RECIPE)
    shards.write_shard(tmp_path, RECIPE, "train", 0, made[0])
    (name, value), *_ = change.items()
    message = rf"train-00000\.npz: expected .* with {name} {value}, got {name} {getattr(RECIPE, name)}; name another"
    with pytest.raises(EpisodesError, match=message):
        ShardStore(other, {"train": 32, "test": 32}, str(tmp_path), 0)


def test_a_new_version_makes_shards_stale(made: list[Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shards.write_shard(tmp_path, RECIPE, "train", 0, made[0])
    monkeypatch.setattr(shards, "PIXELS_VERSION", shards.PIXELS_VERSION + 1)
    with pytest.raises(EpisodesError, match=r"with version 2, got version 1"):
        shards.check_header(path, RECIPE, "train", 0)


def damage(path: Path) -> Iterator[str]:
    """One after the other: what is wrong with the file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    yield "cut short or of another kind"
    path.write_bytes(b"")
    yield "cut short or of another kind"
    arrays = {"frames": np.zeros((2, 3, 3, 32, 32), np.uint8), "actions": np.zeros((2, 3, 5))}
    np.savez(path, **arrays)
    yield "got episodes of another kind"
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(bytes(flipped))
    yield "frames: expected a whole array.*; delete it to have it made again"
    path.write_bytes(content)
    path.rename(path.with_name("test-00000.npz"))
    (path.with_name("test-00000.npz")).rename(path.with_name("train-00001.npz"))
    yield "with number 1, got number 0"


def test_a_bad_file_in_the_users_folder_is_an_error_and_stays(made: list[Arrays], tmp_path: Path) -> None:
    path = shards.write_shard(tmp_path, RECIPE, "train", 0, made[0])
    for message in damage(path):
        before = {entry: entry.read_bytes() for entry in tmp_path.iterdir()}
        with pytest.raises(EpisodesError, match=message):
            store = ShardStore(RECIPE, {"train": 64, "test": 1}, str(tmp_path), 0)
            store.shard("train", 0, CPU)  # what the header does not tell
        assert before == {entry: entry.read_bytes() for entry in tmp_path.iterdir()}


def spoil(made: Arrays, name: str, index: tuple[int, ...], value: float) -> Arrays:
    array = made[name].astype(np.float64) if name == "poses" else made[name].copy()
    array[index] = value
    return made | {name: array}


WRONG: dict[str, Callable[[Arrays], Arrays]] = {
    r"frames: expected \(32, 3, 3, 32, 32\) of uint8, got .* of float32": lambda made: (
        made | {"frames": made["frames"].astype(np.float32) / 255}
    ),
    "frames: expected .* of uint8, got .* of float64": lambda made: (
        made | {"frames": np.full(made["frames"].shape, np.nan)}
    ),
    r"actions\[0, 1\]: expected a one-hot vector, got \(0, 0, 0\)": lambda made: (
        made | {"actions": np.zeros_like(made["actions"])}
    ),
    r"actions\[3, 2\]: expected a one-hot vector, got \(7, ": lambda made: spoil(made, "actions", (3, 2, 0), 7),
    r"actions: expected \(32, 3, 3\) of uint8, got \(32, 3, 8\) of uint8": lambda made: (
        made | {"actions": np.eye(8, dtype=np.uint8)[np.zeros((32, 3), int)]}
    ),
    r"poses\[5, 1, 2\]: expected a finite value, got nan": lambda made: spoil(made, "poses", (5, 1, 2), np.nan),
    r"poses\[5, 1, 2\]: expected a heading in radians": lambda made: spoil(made, "poses", (5, 1, 2), 180.0),
    "poses: expected .* of float64, got none": lambda made: {name: made[name] for name in ("frames", "actions")},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_shard_with_a_valid_header_and_wrong_values(message: str, made: list[Arrays], tmp_path: Path) -> None:
    path = shards.write_shard(tmp_path, RECIPE, "train", 0, WRONG[message](made[0]))
    shards.check_header(path, RECIPE, "train", 0)
    store = ShardStore(RECIPE, {"train": 1, "test": 1}, str(tmp_path), 0)
    with pytest.raises(EpisodesError, match=rf"train-00000\.npz: {message}.*; delete it to have it made again$"):
        store.shard("train", 0, CPU)
    with pytest.raises(EpisodesError, match=message):
        store.fill()
    assert store.missing() == [("test", 0)], "by its header it is there"


def test_shards_of_before_have_no_names(made: list[Arrays], tmp_path: Path) -> None:
    path = shards.write_shard(tmp_path, RECIPE, "train", 0, made[0])
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in ("header", "frames", "actions", "poses")}
    np.savez(path, **arrays)
    assert same(shards.load_shard(tmp_path, RECIPE, "train", 0), made[0])


def test_a_bad_file_in_the_own_folder_is_made_again(
    made: list[Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, _ in enumerate(damage(shards.write_shard(tmp_path, RECIPE, "train", 0, made[0]))):
        store = ShardStore(RECIPE, {"train": 64, "test": 1}, None, 0)
        store.folder = tmp_path  # where those of vizdoom would be
        with pytest.warns(UserWarning, match=r"npz: .*; it is made again$"):
            wrong = int(number == 4)
            assert np.array_equal(store.shard("train", wrong, CPU).frames, made[wrong]["frames"])
        store.folder = tmp_path
        assert same(shards.load_shard(tmp_path, RECIPE, "train", wrong), made[wrong])


def test_a_folder_that_cannot_be_written(made: list[Arrays], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EpisodesError, match=r"train-00000\.npz: could not be written \(Not a directory\)"):
        shards.write_shard(tmp_path / "file" / "below", RECIPE, "train", 0, made[0])
    with pytest.raises(EpisodesError, match="expected a folder for shards, got a file"):
        ShardStore(RECIPE, {"train": 1, "test": 1}, str(tmp_path / "file"), 0)
    with pytest.raises(EpisodesError, match="expected a folder that can be written to"):
        next(ShardStore(RECIPE, {"train": 1, "test": 1}, str(tmp_path / "file" / "below"), 0).fill())


def test_a_full_disk_leaves_nothing_half_written(made: list[Arrays], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        store = ShardStore(RECIPE, {"train": 32, "test": 1}, str(tmp_path), 0)
        with pytest.raises(EpisodesError, match=r"train-00000\.npz: could not be written \(File too large\)"):
            store.shard("train", 0, CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
    assert len(store.shard("train", 0, CPU).frames) == SHARD_SIZE, "and all goes on once there is room"


def test_what_a_killed_process_left_half_written_is_removed(made: list[Arrays], tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".train-00000.npz.{dead.pid}.tmp").write_bytes(b"half")
    (tmp_path / f".train-00001.npz.{os.getppid()}.tmp").write_bytes(b"another process is writing it")
    shards.check_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".train-00001.npz.{os.getppid()}.tmp"]


def test_filling_a_folder_keeps_what_is_there(made: list[Arrays], tmp_path: Path) -> None:
    path = shards.write_shard(tmp_path, RECIPE, "train", 1, made[1])
    before = path.stat().st_mtime_ns
    store = ShardStore(RECIPE, {"train": 40, "test": 1}, str(tmp_path), 0)
    assert store.missing() == [("train", 0), ("test", 0)] == list(store.fill())
    assert store.missing() == [] and path.stat().st_mtime_ns == before
    assert np.array_equal(store.shard("train", 0, CPU).frames, made[0]["frames"])


def test_vizdoom_is_asked_for_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vizdoom" else find(name))
    doom = replace(RECIPE, engine="vizdoom")
    with pytest.raises(MissingDependencyError, match=r'pip install "gtm-pyro\[labyrinth\]"'):
        ShardStore(doom, {"train": 1, "test": 1}, None)
    store = ShardStore(doom, {"train": 1, "test": 1}, str(tmp_path), 0)  # shards may have been made elsewhere
    with pytest.raises(MissingDependencyError, match=r'pip install "gtm-pyro\[labyrinth\]"'):
        store.shard("train", 0, CPU)
