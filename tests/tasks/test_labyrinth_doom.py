"""Labyrinths in a real engine: what it shows, how it moves, and that nothing of it stays behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gtm_pyro.errors import ConfigError, EngineError
from gtm_pyro.tasks.labyrinth import doom
from gtm_pyro.tasks.labyrinth.doom import DoomEngine, record
from gtm_pyro.tasks.labyrinth.maps import room
from gtm_pyro.tasks.labyrinth.motion import ROTATION_ACTIONS, WALK_ACTIONS, SimulatedAgent
from gtm_pyro.tasks.labyrinth.raycaster import RayCaster
from gtm_pyro.tasks.labyrinth.recording import Task
from gtm_pyro.tasks.labyrinth.tasks import rooms_task, rotation_task, walk_task
from gtm_pyro.tasks.labyrinth.world import UNITS, World

pytest.importorskip("vizdoom")
pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is left behind is seen in /proc")


def seeded(number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([7, number])


def some_tasks() -> list[Task]:
    return [walk_task(seeded(0), 120), rooms_task(seeded(1), 120), rotation_task(seeded(2), 60, from_rest=False)]


@pytest.fixture(scope="module")
def engine() -> Iterator[DoomEngine]:
    with DoomEngine([task.world for task in some_tasks()]) as running:
        yield running


class Footprint:
    """What an engine has beside this process."""

    def __init__(self, pid: int) -> None:
        self.home = Path(f"/proc/{pid}/cwd").readlink()
        maps = Path(f"/proc/{pid}/maps").read_text().split()
        self.files = [self.home] + [Path(word) for word in sorted(set(maps)) if word.startswith("/dev/shm/ViZDoom")]
        self.pids = [int(entry.name) for entry in Path("/proc").iterdir() if self._is_of(entry, pid)]
        [self.engine] = [p for p in self.pids if Path(f"/proc/{p}/exe").readlink().name == "vizdoom"]
        assert len(self.files) == 4 and len(self.pids) == 2

    @staticmethod
    def _is_of(entry: Path, session: int) -> bool:
        try:
            return entry.name.isdigit() and os.getsid(int(entry.name)) == session
        except ProcessLookupError:
            return False

    def left(self) -> list[object]:
        running = [pid for pid in self.pids if Path(f"/proc/{pid}").exists() and not self._is_zombie(pid)]
        return running + [file for file in self.files if file.exists()]

    @staticmethod
    def _is_zombie(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    def soon_left(self) -> list[object]:
        """For what was killed by a signal, which works in its own time."""
        deadline = time.monotonic() + 10
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.left()


def compared(engine: DoomEngine, world: World, starts: np.ndarray) -> float:
    """Mean absolute difference between frames of the engine and of the ray-caster at the same poses."""
    frames, poses = zip(*(engine.reset(world, tuple(start)) for start in starts.tolist()), strict=True)
    rendered = RayCaster([world]).render(torch.from_numpy(np.stack(poses))[None])[0]
    return float(np.abs(np.stack(frames) - rendered.permute(0, 2, 3, 1).numpy().astype(float)).mean())


def test_engine_and_ray_caster_show_the_same(engine: DoomEngine):
    rng = np.random.default_rng(0)
    for task in some_tasks()[:2]:
        world = task.world
        own = engine.worlds[0 if world.num_rooms == 1 else 1]
        left, bottom, right, top = world.floors[0]
        places = rng.uniform([left, bottom, 0], [right, top, 2 * np.pi], (12, 3))
        clear = [p for p in places if all(np.hypot(*(p[:2] - o[:2])) > 0.5 for o in world.objects)]
        clear = [p for p in clear if not any(
            a - 0.3 < p[0] < c + 0.3 and b - 0.3 < p[1] < d + 0.3 for a, b, c, d in world.pillars)]  # fmt: skip
        clear = [p for p in clear if min(p[0] - left, right - p[0], p[1] - bottom, top - p[1]) > 0.2]
        assert len(clear) >= 3
        # a pixel of the engine's is a fifth of one of ours; another field of view by 4% would give 4
        assert compared(engine, own, np.stack(clear)) < 3.5


def test_a_wall_in_pieces_has_one_texture():
    whole = room(np.random.default_rng(3))
    right, top = whole.floors[0, 2:]
    middle = 1.15625
    # two rectangles along walls that span both
    halves = replace(
        whole,
        floors=np.array([[0, 0, middle, top], [middle, 0, right, top]]),
        floor_textures=np.repeat(whole.floor_textures, 2),
        ceiling_textures=np.repeat(whole.ceiling_textures, 2),
        pillars=np.zeros((0, 4)),
        walls=whole.walls[:4],
        wall_textures=whole.wall_textures[:4],
        objects=np.zeros((0, 4)),
        object_pictures=np.zeros(0, np.int64),
    )
    starts = [[x, y, heading] for x, y in ((1, 1), (right - 0.7, 1.3)) for heading in np.arange(0.1, 6.2, 0.7)]
    with DoomEngine([halves]) as engine:
        assert compared(engine, halves, np.array(starts)) < 3.5


def test_an_episode_begins_where_it_should(engine: DoomEngine):
    world = engine.worlds[0]
    x, y = world.floors[0, 2:] / 2
    for heading in np.append(np.random.default_rng(1).uniform(0, 2 * np.pi, 20), [0, 2 * np.pi - 1e-9, np.pi]):
        _, pose = engine.reset(world, (x, y, float(heading)))
        assert abs(pose[0] - x) <= 0.5 / UNITS and abs(pose[1] - y) <= 0.5 / UNITS
        # of 65,536 directions the nearest
        assert abs(np.angle(np.exp(1j * (pose[2] - heading)))) < 1e-4
        assert 0 <= pose[2] < 2 * np.pi


def test_the_simulated_agent_moves_as_the_engines(engine: DoomEngine):
    rng = np.random.default_rng(2)
    for task, world in zip(some_tasks()[:2], engine.worlds, strict=False):
        # begins on a whole unit, so that the two begin at one place
        _, pose = engine.reset(world, task.start)
        agent = SimulatedAgent(world, tuple(pose.tolist()))
        for _ in range(40):
            action = WALK_ACTIONS[rng.integers(8)]
            for _ in range(rng.integers(1, 12)):
                agent.step(action)
                _, pose = engine.step(action)
                if agent.touched:  # corners are Doom's own
                    break
                np.testing.assert_allclose(pose, agent.pose, atol=2e-3)
            else:
                continue
            break
        assert agent.touched


def test_an_agent_stays_within_the_walls(engine: DoomEngine):
    world = engine.worlds[1]
    left, bottom, right, top = world.floors.T
    _, pose = engine.reset(world, some_tasks()[1].start)
    rng = np.random.default_rng(3)
    poses = []
    for action in rng.integers(0, 8, 30).repeat(12):
        frame, pose = engine.step(WALK_ACTIONS[action])
        x, y, _ = pose
        assert ((left - 1e-9 <= x) & (x <= right + 1e-9) & (bottom - 1e-9 <= y) & (y <= top + 1e-9)).any()
        poses.append(pose)
    assert np.ptp(poses, 0).min() > 0.5


def test_headings_count_whole_turns(engine: DoomEngine):
    world = engine.worlds[2]
    turn = ROTATION_ACTIONS[2]
    spin = -2 * np.pi / 41
    frames, poses = zip(
        engine.reset(world, (1.0, 1.0, 0.3), spin), *(engine.step(turn) for _ in range(123)), strict=False
    )
    headings = np.array([pose[2] for pose in poses])
    np.testing.assert_allclose(headings, 0.3 + spin * np.arange(124), atol=1e-4)
    # after a whole turn the view is nearly the same again, after half a turn it is not
    again, half = (np.abs(frames[n].astype(float) - frames[0]).mean() for n in (41, 20))
    assert again < 1 < 5 < half


def test_the_same_seeds_give_the_same_pixels():
    first, second = record(some_tasks()), record(some_tasks()[::-1])[::-1]
    for one, other, task in zip(first, second, some_tasks(), strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.poses, other.poses)
        assert one.frames.shape == (task.num_steps, 3, 32, 32) and one.frames.dtype == np.uint8
        assert one.actions[0] == 0 and len(set(one.actions[1:].tolist())) > (task.actions == WALK_ACTIONS)


def test_a_world_of_another_engine_is_refused(engine: DoomEngine):
    with pytest.raises(ConfigError, match="world: expected one of those that the engine was given"):
        engine.reset(some_tasks()[0].world, (1.0, 1.0, 0.0))
    engine.reset(engine.worlds[0], (1.0, 1.0, 0.0))


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="worlds: expected at least one"):
        DoomEngine([])
    with pytest.raises(ConfigError, match="timeout: expected a number over 0, got 0"):
        DoomEngine(some_tasks()[:1], timeout=0)  # type: ignore[arg-type]
    assert record([]) == []


@pytest.mark.parametrize("victim", ["engine", "process"])
def test_a_killed_engine_is_told_and_leaves_nothing(victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    task = some_tasks()[0]
    descriptors = len(os.listdir("/proc/self/fd"))
    with DoomEngine([task.world]) as engine:
        engine.reset(task.world, task.start)
        footprint = Footprint(engine.pid)
        os.kill(footprint.engine if victim == "engine" else engine.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(EngineError, match="the Doom engine (failed|ended)"):
            for _ in range(10):
                engine.step(WALK_ACTIONS[0])
        assert time.monotonic() - began < 5
        assert engine.closed and not footprint.soon_left()
        with pytest.raises(EngineError, match="it was closed"):
            engine.step(WALK_ACTIONS[0])
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not os.listdir(tmp_path)


def test_an_engine_that_hangs_is_killed():
    task = some_tasks()[0]
    with DoomEngine([task.world], timeout=0.5) as engine:
        engine.reset(task.world, task.start)
        footprint = Footprint(engine.pid)
        os.kill(footprint.engine, signal.SIGSTOP)
        with pytest.raises(EngineError, match="did not answer within 0.5 seconds, and was killed"):
            engine.step(WALK_ACTIONS[0])
        assert engine.closed and not footprint.soon_left()


def test_an_engine_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(doom, "build_wad", lambda worlds: b"PWAD" + b"\xff" * 8)
    started: list[Path] = []
    end = doom._Process.end

    def watched_end(process: doom._Process) -> None:
        started.extend(process._shared_memory())
        end(process)

    monkeypatch.setattr(doom._Process, "end", watched_end)
    world = some_tasks()[0].world
    for _ in range(4):
        with pytest.raises(EngineError, match="the Doom engine ended"):
            DoomEngine([world])
    assert len(set(started)) == 12 and not [file for file in started if file.exists()]
    assert not os.listdir(tmp_path)


def test_an_engine_ends_with_its_object():
    engine = DoomEngine([some_tasks()[0].world])
    footprint = Footprint(engine.pid)
    del engine
    assert not footprint.left()


def test_an_interrupted_engine_is_closed(monkeypatch: pytest.MonkeyPatch):
    task = some_tasks()[0]

    def interrupt(pose: np.ndarray) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), DoomEngine([task.world]) as engine:
        footprint = Footprint(engine.pid)
        engine.record([replace(task, policy=interrupt)])
    assert not footprint.left()


def test_an_engine_ends_with_its_interpreter():
    program = """
import os, signal, sys
import numpy as np
from gtm_pyro.tasks.labyrinth.doom import DoomEngine
from gtm_pyro.tasks.labyrinth.maps import room
engine = DoomEngine([room(np.random.default_rng(0))])
print(engine.pid, flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    parents = [
        subprocess.Popen([sys.executable, "-c", program + end], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        for end in ("1 / 0", "os.kill(os.getpid(), signal.SIGKILL)")
    ]
    for parent in parents:
        with parent:
            assert parent.stdout is not None
            footprint = Footprint(int(parent.stdout.readline()))
            parent.communicate(timeout=30)
        assert not footprint.soon_left()
