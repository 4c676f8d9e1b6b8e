"""Worker processes: in order, replaced when they fail, and never left behind."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.tasks.base import check_split
from gtm_pyro.tasks.labyrinth.workers import Job, Workers


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    workers = Workers(1, timeout=20.0)
    yield workers
    workers.close()


def ended(pid: int) -> bool:
    """Within some seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_workers_do_what_is_asked_for_first() -> None:
    kept: list[str] = []
    workers = Workers(1, timeout=20.0, keep=lambda job, _: kept.append(job.label))
    workers.prefetch(Job(str(number), os.strerror, (number,)) for number in range(4))
    assert workers.result(Job("9", os.strerror, (9,))) == os.strerror(9)
    assert [workers.result(Job(str(n), os.strerror, (n,))) for n in range(4)] == [os.strerror(n) for n in range(4)]
    assert sorted(kept) == ["0", "1", "2", "3", "9"] and kept.index("9") <= 1, "none is done twice"
    (pid,) = workers.pids
    workers.close()
    assert ended(pid) and workers.pids == []
    with pytest.raises(EpisodesError, match="1: expected workers that run, they were closed"):
        workers.result(Job("1", os.strerror, (1,)))


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_hangs_is_replaced(workers: Workers, signum: signal.Signals) -> None:
    before = workers.result(Job("pid", os.getpid, ()))
    workers._state.timeout = 1.0
    os.kill(before, signum)
    after = workers.result(Job("pid", os.getpid, ()))
    assert after != before and workers.pids == [after] and ended(before)
    workers._state.timeout = 20.0


def test_a_call_that_fails_again_and_again_is_given_up(workers: Workers) -> None:
    with pytest.raises(EpisodesError, match="it: could not be made, 3 tries failed; the worker ended with status 3"):
        workers.result(Job("it", os._exit, (3,)))
    with pytest.raises(ConfigError, match=r"split: expected 'train' or 'test', got 'both'"):
        workers.result(Job("it", check_split, ("both",)))
    assert workers.result(Job("it", os.strerror, (1,))) == os.strerror(1), "and the next one succeeds"


def test_a_result_that_was_forgotten_is_made_again(workers: Workers, tmp_path: Path) -> None:
    job = Job("it", tempfile.mkdtemp, (None, None, str(tmp_path)))
    workers.prefetch([job])
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    workers.forget(job)
    assert Path(workers.result(job)).is_dir() and len(list(tmp_path.iterdir())) == 2


def test_workers_end_with_their_owner() -> None:
    threads = threading.active_count()
    workers = Workers(1, timeout=20.0)
    pid = workers.result(Job("pid", os.getpid, ()))
    home = Path(f"/proc/{pid}/cwd").resolve() if Path("/proc").is_dir() else None
    del workers
    gc.collect()
    assert ended(pid) and (home is None or not home.exists())
    assert threading.active_count() == threads


def play(seconds: float) -> list[str]:
    """In a worker: an engine, and what lies in shared memory meanwhile."""
    import vizdoom

    game = vizdoom.DoomGame()
    game.set_window_visible(False)
    game.set_doom_scenario_path(os.path.join(vizdoom.scenarios_path, "basic.wad"))
    game.add_available_button(vizdoom.Button.ATTACK)
    game.init()
    Path("playing").touch()
    time.sleep(seconds)
    return os.listdir("/dev/shm")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no Linux")
def test_an_engine_and_its_shared_memory_go_with_a_killed_worker() -> None:
    pytest.importorskip("vizdoom")
    before = set(os.listdir("/dev/shm"))
    workers = Workers(1, timeout=30.0)
    pid = workers.result(Job("pid", os.getpid, ()))
    home = Path(f"/proc/{pid}/cwd").resolve()
    workers.prefetch([Job("play", play, (60.0,))])
    while not (home / "playing").exists():
        time.sleep(0.05)
    engine = next(e for e in Path("/proc").glob("[0-9]*") if f"PPid:\t{pid}\n" in (e / "status").read_text())
    assert set(os.listdir("/dev/shm")) > before
    os.kill(pid, signal.SIGKILL)
    assert workers.result(Job("pid", os.getpid, ())) != pid
    workers.close()
    # one that nobody waits for may stay as a zombie
    assert not engine.exists() or "State:\tZ" in (engine / "status").read_text()
    assert set(os.listdir("/dev/shm")) <= before and not home.exists()


PARENT = """
import os, signal, sys, time
from gtm_pyro.tasks.labyrinth.workers import Job, Workers
workers = Workers(1, timeout=60.0)
print(workers.result(Job("pid", os.getpid, ())), flush=True)
workers.prefetch([Job("sleep", time.sleep, (50,))])
time.sleep(0.2)
if sys.argv[1] == "exit":
    sys.exit()
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
time.sleep(50)
"""


@pytest.mark.parametrize("end", ["exit", "SIGKILL"])
def test_workers_end_with_the_interpreter_however_that_ends(end: str, tmp_path: Path) -> None:
    """In the middle of a call; and they leave nothing in the working and the temporary folder."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, end],
        cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended(int(done.stdout)), done.stderr
    assert list(tmp_path.iterdir()) == []
