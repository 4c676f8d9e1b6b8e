"""Episodes of labyrinths: stateless, the same whoever makes them, and from rest."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.experiment.catalogue import classes
from gtm_pyro.tasks import EpisodeData, LabyrinthRooms, LabyrinthRotation, LabyrinthWalk, SavedEpisodes
from gtm_pyro.tasks.labyrinth import shards
from gtm_pyro.tasks.labyrinth.shards import SHARD_SIZE
from gtm_pyro.tasks.labyrinth.sources import SOURCES, Labyrinth


@pytest.fixture(scope="module")
def data() -> LabyrinthRotation:
    return LabyrinthRotation(num_episodes=70, num_test_episodes=5, num_steps=6)


def draw(data: Labyrinth, batch_size: int = 4, seed: int = 1, split: str = "train") -> Episodes:
    return data.sample(batch_size, num_observed=3, num_predicted=2, seed=seed, split=split)  # type: ignore[arg-type]


def same(one: Episodes, other: Episodes) -> bool:
    pairs = zip(one.stored.values(), other.stored.values(), strict=True)
    return one.num_observed == other.num_observed and all(torch.equal(a, b) for a, b in pairs)


def keys(episodes: Episodes) -> set[bytes]:
    """The first frame tells one world from another."""
    return {frames[0].numpy().tobytes() for frames in episodes.frames}


@pytest.mark.parametrize(
    ("source", "actions"),
    [
        (LabyrinthRotation, ("stay", "turn left", "turn right")),
        (LabyrinthWalk, ("turn left", "turn right", "forward", "backward", "strafe left", "strafe right",
                         "forward left", "forward right")),
        (LabyrinthRooms, ("turn left", "turn right", "forward", "backward", "strafe left", "strafe right",
                          "forward left", "forward right")),
    ],
)  # fmt: skip
def test_episodes_are_whole(source: type[Labyrinth], actions: tuple[str, ...]) -> None:
    data = source(num_episodes=2, num_test_episodes=2, num_steps=8)  # type: ignore[call-arg]
    assert isinstance(data, EpisodeData) and data.view_tolerance == (0.25, 0.0767)
    assert (data.action_names, data.action_dim, data.frame_shape) == (actions, len(actions), (3, 32, 32))
    state = torch.get_rng_state()
    episodes = data.sample(2, num_observed=5, num_predicted=3, seed=0, split="test")
    assert torch.equal(state, torch.get_rng_state())
    assert episodes.has_heading and episodes.continuous_actions is False
    replace(episodes, validate=True)  # every value is checked
    assert episodes.frames.shape == (2, 8, 3, 32, 32) and episodes.num_observed == 5
    assert episodes.poses is not None and episodes.poses.shape == (2, 8, 3)
    assert episodes.frames.dtype == episodes.actions.dtype == episodes.poses.dtype == torch.get_default_dtype()
    assert (episodes.actions.sum(-1) == 1).all() and episodes.frames.std() > 0.02
    moved = episodes.poses.diff(dim=1)
    if source is LabyrinthRotation:
        assert (moved[..., :2] == 0).all()
        turn = moved[..., 2].abs()
        assert (turn.diff(dim=1) > 0).all() and (turn <= 2 * np.pi / 41).all(), "it accelerates from rest"
    else:
        assert (moved[..., :2].norm(dim=-1)[:, 0] < 0.05).all(), "the first step is from rest"
        assert moved.abs().sum() > 0
    first = episodes.poses[:, 0, 2]
    assert (first >= 0).all() and (first < 2 * np.pi).all()


def test_it_may_turn_at_full_speed_from_the_start() -> None:
    data = LabyrinthRotation(num_episodes=3, num_steps=4, from_rest=False)
    poses = data.sample(3, num_observed=4, num_predicted=0, seed=0).poses
    assert poses is not None
    assert torch.allclose(poses[..., 2].diff(dim=1).abs(), torch.tensor(2 * np.pi / 41), atol=1e-5)


def test_sampling_is_stateless(data: LabyrinthRotation) -> None:
    first = draw(data)
    for seed in range(3):
        draw(data, batch_size=2, seed=seed)
    draw(data, split="test")
    assert same(first, draw(data))
    assert same(first, draw(LabyrinthRotation(num_episodes=70, num_steps=6)))
    assert not same(first, draw(data, seed=2)) and not same(first, draw(data, split="test"))
    shorter = data.sample(4, num_observed=2, num_predicted=0, seed=1)
    assert torch.equal(shorter.frames, first.frames[:, :2]), "windows begin where the episode does"
    with pytest.raises(ConfigError, match=r"expected at most 6 steps, the length of the episodes \(num_steps\), got 7"):
        data.sample(1, num_observed=4, num_predicted=3, seed=0)


def test_a_batch_holds_every_episode_before_one_comes_again(data: LabyrinthRotation) -> None:
    everything = keys(draw(data, 70))
    assert len(everything) == 70 and len(keys(draw(data, 100))) == 70
    seen = set()
    for seed in range(40):
        episodes = draw(data, 8, seed=seed)
        assert len(keys(episodes)) == 8 and keys(episodes) <= everything
        seen |= keys(episodes)
    assert len(seen) > 60
    assert len(keys(draw(data, 9, split="test"))) == 5
    assert not keys(draw(data, 5, split="test")) & everything


def test_worlds_are_those_of_the_episodes(data: LabyrinthRotation) -> None:
    from gtm_pyro.tasks.labyrinth.raycaster import RayCaster

    episodes, worlds = draw(data, 40, seed=5), data.worlds(40, seed=5)
    assert episodes.poses is not None
    frames = RayCaster(worlds).render(episodes.poses[:, :1]).float() / 255
    assert (frames - episodes.frames[:, :1]).abs().mean() < 1e-3


def test_poses_do_not_depend_on_the_default_dtype(data: LabyrinthRotation) -> None:
    single = draw(data)
    torch.set_default_dtype(torch.float64)
    try:
        double = draw(data)
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.frames.dtype == torch.float64 and same(single, double.to(torch.float32))


def test_workers_give_the_same_and_a_killed_one_costs_nothing(data: LabyrinthRotation) -> None:
    expected = [draw(data, seed=seed) for seed in range(6)]
    working = LabyrinthRotation(num_episodes=70, num_test_episodes=5, num_steps=6, workers=2)
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < 2:  # so no shard can be given up
            for pid in set(working.store.worker_pids) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.01)

    murderer = threading.Thread(target=kill, daemon=True)
    murderer.start()
    assert all(same(draw(working, seed=seed), batch) for seed, batch in enumerate(expected))
    murderer.join()
    assert len(killed) == 2 and not killed & set(working.store.worker_pids)
    working.close()
    assert working.store.worker_pids == []
    assert same(draw(working, split="test"), draw(data, split="test")), "new workers are started when needed"
    working.close()


def test_shards_of_a_folder_are_used_and_added_to(data: LabyrinthRotation, tmp_path: Path) -> None:
    one = LabyrinthRotation(num_episodes=20, num_test_episodes=5, num_steps=6, cache=str(tmp_path / "a"))
    batch = draw(one, 20)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["train-00000.npz"]
    stamp = (tmp_path / "a" / "train-00000.npz").stat().st_mtime_ns
    more = LabyrinthRotation(num_episodes=70, num_test_episodes=5, num_steps=6, cache=str(tmp_path / "a"), workers=1)
    assert same(draw(more, 70), draw(data, 70)) and keys(batch) <= keys(draw(more, 70))
    more.close()
    assert len(list((tmp_path / "a").iterdir())) == 3
    assert (tmp_path / "a" / "train-00000.npz").stat().st_mtime_ns == stamp
    assert SavedEpisodes(str(tmp_path / "a")).frame_shape == (3, 32, 32)
    message = r"train-00000\.npz: expected a shard of labyrinth-walk with source labyrinth-walk, got source labyrinth-r"
    with pytest.raises(EpisodesError, match=message):
        LabyrinthWalk(num_steps=6, cache=str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: expected a whole number from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "seed: expected a whole number from 0 to 4294967295, got 4294967296"),
        ({"num_episodes": 0}, "num_episodes: expected a whole number from 1 to 3200000, got 0"),
        ({"num_test_episodes": 0}, "num_test_episodes: expected a whole number from 1 to 3200000, got 0"),
        ({"num_steps": 0}, "num_steps: expected a whole number of at least 1, got 0"),
        ({"workers": -1}, "workers: expected a whole number from 0 to 256, got -1"),
        ({"engine": "doom"}, "engine: expected 'raycaster' or 'vizdoom', got 'doom'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    for source in SOURCES.values():
        with pytest.raises(ConfigError, match=message):
            source(**arguments)


def test_the_command_line_knows_them() -> None:
    assert {"LabyrinthRooms", "LabyrinthRotation", "LabyrinthWalk"} <= classes("data").keys()
    assert "Labyrinth" not in classes("data")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_shards_stay_on_the_device(data: LabyrinthRotation) -> None:
    on_gpu = LabyrinthRotation(num_episodes=70, num_steps=6)
    episodes = on_gpu.sample(4, num_observed=3, num_predicted=2, seed=1, device="cuda")
    assert same(episodes.to("cpu"), draw(data))
    assert all(tensor.is_cuda for shard in on_gpu.store._loaded.values() for tensor in shard)


def test_vizdoom_shows_the_same_labyrinths() -> None:
    """The two engines move alike; what they show is about the same."""
    pytest.importorskip("vizdoom")
    doom = shards.make_shard(shards.Recipe("labyrinth-rotation", "vizdoom", 0, 3), "train", 0)
    cast = shards.make_shard(shards.Recipe("labyrinth-rotation", "raycaster", 0, 3), "train", 0)
    assert doom["frames"].shape == cast["frames"].shape == (SHARD_SIZE, 3, 3, 32, 32)
    assert np.array_equal(doom["actions"], cast["actions"])
    assert np.abs(doom["poses"] - cast["poses"]).max() < 0.05
    difference = np.abs(doom["frames"] / 255 - cast["frames"] / 255).mean()
    assert difference < 0.5 * np.abs(doom["frames"] / 255 - np.roll(cast["frames"], 1, 0) / 255).mean()
