"""Labyrinths as a Gymnasium environment."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from gtm_pyro.errors import ConfigError, EngineError, MissingDependencyError  # noqa: E402
from gtm_pyro.tasks.labyrinth.doom import DoomEngine, record  # noqa: E402
from gtm_pyro.tasks.labyrinth.environment import LabyrinthEnv  # noqa: E402
from gtm_pyro.tasks.labyrinth.tasks import walk_task  # noqa: E402

needs_vizdoom = pytest.mark.skipif(importlib.util.find_spec("vizdoom") is None, reason="vizdoom is not installed")
ENGINES = ["raycaster", pytest.param("vizdoom", marks=needs_vizdoom)]


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    """Under which Gymnasium makes the environment."""
    gymnasium.register("LabyrinthOfTests-v0", LabyrinthEnv)
    yield "LabyrinthOfTests-v0"
    del gymnasium.registry["LabyrinthOfTests-v0"]


def played(env: LabyrinthEnv, seeds: list[int | None], steps: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Frames and poses of an episode for each seed."""
    actions = np.random.default_rng(0).integers(0, 8, steps)
    frames, poses = [], []
    for seed in seeds:
        frame, info = env.reset(seed=seed)
        frames.append(frame)
        poses.append(info["pose"])
        for action in actions:
            frame, reward, terminated, truncated, info = env.step(action)
            assert reward == 0 and not terminated and not truncated
            frames.append(frame)
            poses.append(info["pose"])
    return np.stack(frames), np.stack(poses)


@pytest.mark.parametrize("engine", ENGINES)
def test_gymnasium_finds_no_fault(engine: str, name: str):
    env = gymnasium.make(name, engine=engine, render_mode="rgb_array").unwrapped
    check_env(env)
    env.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_fixes_this_labyrinth_and_the_next_ones(engine: Any):
    env, other = LabyrinthEnv(engine=engine), LabyrinthEnv(engine=engine)
    frames, poses = played(env, [5, None, None, None])
    again, same = played(other, [5, None, None, None])
    np.testing.assert_array_equal(frames, again)
    np.testing.assert_array_equal(poses, same)
    episodes = frames.reshape(4, -1)
    assert len(np.unique(episodes, axis=0)) == 4
    # and from the middle of a row of labyrinths
    np.testing.assert_array_equal(played(env, [5])[0], frames[:13])
    env.close()
    other.close()


@needs_vizdoom
def test_it_shows_what_recordings_show():
    env = LabyrinthEnv()
    env.reset(seed=11)
    # the seed of the first labyrinth is the first number that the environment draws
    number = int(np.random.default_rng(11).integers(2**32))
    [recording] = record([walk_task(np.random.SeedSequence(number), 8)])
    env.reset(seed=11)
    for t in range(1, 8):
        frame, *_, info = env.step(recording.actions[t])
        np.testing.assert_array_equal(frame.transpose(2, 0, 1), recording.frames[t])
        np.testing.assert_array_equal(info["pose"], recording.poses[t])
    env.close()


def test_episodes_are_truncated():
    env = LabyrinthEnv(engine="raycaster", max_steps=3)
    env.reset(seed=0)
    assert [env.step(np.int64(2))[3] for _ in range(3)] == [False, False, True]
    env.reset()
    assert not env.step(np.int64(2))[3]


def test_rooms_have_more_walls_than_a_room():
    walls = []
    for labyrinth in ("walk", "rooms"):
        env = LabyrinthEnv(labyrinth, engine="raycaster")  # type: ignore[arg-type]
        spread = [env.reset(seed=seed)[1]["pose"][:2] for seed in range(12)]
        walls.append(np.ptp(spread, 0).max())
    assert walls[1] > 4.5 > walls[0]


@pytest.mark.parametrize("action", [8, -1, 1.0, "forward", None])
def test_an_action_that_is_not_in_the_set_is_refused(action: Any):
    env = LabyrinthEnv(engine="raycaster")
    env.reset(seed=0)
    before = env.step(np.int64(2))[4]["pose"]
    with pytest.raises(ConfigError, match=f"action: expected a whole number from 0 to 7, got {action!r}"):
        env.step(action)
    # nothing moved: a step that is taken later is the second
    after = env.step(np.int64(2))[4]["pose"]
    assert 0 < np.hypot(*(after - before)[:2]) < 0.05


def test_a_step_needs_a_reset():
    env = LabyrinthEnv(engine="raycaster")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(0))
    env.reset(seed=0)
    env.close()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(0))


def test_the_frame_is_rendered():
    env = LabyrinthEnv(engine="raycaster", render_mode="rgb_array")
    frame, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), frame)
    frame = env.step(np.int64(0))[0]
    np.testing.assert_array_equal(env.render(), frame)
    assert LabyrinthEnv(engine="raycaster").render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labyrinth": "cave"}, "labyrinth: expected 'walk' or 'rooms', got 'cave'"),
        ({"engine": "doom"}, "engine: expected 'vizdoom' or 'raycaster', got 'doom'"),
        ({"max_steps": 0}, "max_steps: expected a whole number of at least 1, got 0"),
        ({"render_mode": "human"}, "render_mode: expected None or 'rgb_array', got 'human'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        LabyrinthEnv(**arguments)


def test_without_vizdoom_its_install_command_is_told(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "vizdoom" else find(name, *rest)
    )
    task = walk_task(np.random.SeedSequence(0), 2)
    for use in (LabyrinthEnv, lambda: DoomEngine([task.world]), lambda: record([task])):
        with pytest.raises(MissingDependencyError, match=r'pip install "gtm-pyro\[labyrinth\]"'):
            use()
    LabyrinthEnv(engine="raycaster").reset(seed=0)


@needs_vizdoom
def test_after_an_engine_was_killed_the_next_reset_starts_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    env = LabyrinthEnv()
    expected = played(env, [3, None, None])[0]
    env.reset(seed=3)
    assert isinstance(env._engine, DoomEngine)
    os.kill(env._engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError):
        env.step(np.int64(0))
    with pytest.raises(EngineError, match="it was closed"):
        env.step(np.int64(0))
    np.testing.assert_array_equal(played(env, [None, None])[0], expected[13:])
    env.close()
    env.close()
    assert not os.listdir(tmp_path)
