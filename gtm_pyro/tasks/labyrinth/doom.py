"""Labyrinths in a real first-person engine: ViZDoom, which runs without a screen.

The engine is in a process beside this one (:mod:`gtm_pyro.tasks.labyrinth.doom_process`): whatever becomes of it, this
one gets an :class:`~gtm_pyro.errors.EngineError`, and nothing is left behind.
"""

import importlib.util
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from gtm_pyro.errors import ConfigError, EngineError, MissingDependencyError, check_positive
from gtm_pyro.tasks.labyrinth import doom_process
from gtm_pyro.tasks.labyrinth.doom_process import ARGUMENTS, POSE, REPLY, REQUEST, SIZE, WAD
from gtm_pyro.tasks.labyrinth.motion import TICS, Action, next_spin
from gtm_pyro.tasks.labyrinth.recording import Recording, Task
from gtm_pyro.tasks.labyrinth.wad import build_wad, map_name
from gtm_pyro.tasks.labyrinth.world import UNITS, World

_START_SECONDS = 60.0
_CLOSE_SECONDS = 2.0
_SHARED_MEMORY = Path("/dev/shm")


def check_vizdoom() -> None:
    """Find out, without importing it, whether vizdoom is there.

    :raises MissingDependencyError: it is not.
    """
    if importlib.util.find_spec("vizdoom") is None:
        raise MissingDependencyError('the Doom engine comes with vizdoom: pip install "gtm-pyro[labyrinth]"')


class DoomEngine:
    """An engine that has loaded some worlds. It ends with a ``with`` block, :meth:`close`, or this object.

    :param worlds: in which there can be episodes.
    :param timeout: seconds after which an engine that does not answer is killed.
    :ivar worlds: the same, each once.
    :raises ConfigError: no world, the timeout is not over 0, or the system is not POSIX.
    :raises EngineError: the engine does not start.
    :raises MissingDependencyError: vizdoom is not installed.
    """

    def __init__(self, worlds: Sequence[World], timeout: float = 20.0) -> None:
        check_vizdoom()
        check_positive(timeout=timeout)
        if not worlds:
            raise ConfigError("worlds: expected at least one, got none")
        if os.name != "posix":
            raise ConfigError(f"engine: expected Linux or macOS for vizdoom, got {sys.platform}")
        self.timeout = timeout
        self.worlds = tuple({id(world): world for world in worlds}.values())
        self._names = {id(world): map_name(number) for number, world in enumerate(self.worlds)}
        self._process = _Process(build_wad(self.worlds), map_name(0))
        self.close = weakref.finalize(self, self._process.end)
        self._spin = self._aim = self._heading = 0.0
        self._reply(_START_SECONDS)

    @property
    def closed(self) -> bool:
        """Whether it ended, by itself or not."""
        return not self.close.alive

    @property
    def pid(self) -> int:
        """Of the process that holds the engine; it leads a session."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def reset(
        self, world: World, start: tuple[float, float, float], spin: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Begin an episode.

        :param start: x, y in cells, which become whole units of the map (1 / 128 of a cell), and heading in radians.
        :param spin: radians that the last frame turned by.
        :returns: the frame ``(32, 32, 3)`` uint8 and the true pose: x, y in cells and heading, ``(3,)``.
        :raises ConfigError: the world is none of those that were given.
        :raises EngineError: the engine ended or hangs; it is closed then.
        """
        if id(world) not in self._names:
            # an engine would look for an unknown map for ever
            raise ConfigError("world: expected one of those that the engine was given, got another one")
        x, y, heading = start
        self._spin, self._heading = spin, heading % math.tau
        turn = math.degrees(_wrapped(heading))
        pose = self._moved((self._names[id(world)].encode(), x * UNITS, y * UNITS, turn))
        # rounding must not make it one whole turn more or less
        self._heading = pose[2] = float(pose[2]) % math.tau
        self._aim = self._heading + _wrapped(heading - self._heading)
        return self._seen(), pose

    def step(self, action: Action) -> tuple[np.ndarray, np.ndarray]:
        """One frame: a turn, then the tics; the heading goes on counting whole turns.

        :returns: as of :meth:`reset`.
        :raises EngineError: the engine ended or hangs; it is closed then.
        """
        pose = self._stepped(action)
        return self._seen(), pose

    def record(self, tasks: Sequence[Task]) -> list[Recording]:
        """Play episodes.

        :param tasks: in worlds that the engine was given.
        :raises ConfigError: a world that it was not given, or a task without steps.
        :raises EngineError: the engine ended or hangs; it is closed then.
        """
        return [self._recorded(task) for task in tasks]

    def _recorded(self, task: Task) -> Recording:
        check_positive(num_steps=task.num_steps)
        frames = np.zeros((task.num_steps, SIZE, SIZE, 3), np.uint8)
        actions, poses = np.zeros(task.num_steps, np.int64), np.zeros((task.num_steps, 3))
        frames[0], poses[0] = self.reset(task.world, task.start, task.spin)
        for t in range(1, task.num_steps):
            actions[t] = task.policy(poses[t - 1])
            if t > 1:  # the last frame was being made meanwhile
                frames[t - 1] = self._seen()
            poses[t] = self._stepped(task.actions[actions[t]])
        if task.num_steps > 1:
            frames[-1] = self._seen()
        return Recording(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)), actions, poses)

    def _stepped(self, action: Action) -> np.ndarray:
        self._spin = next_spin(self._spin, action.turn)
        self._aim += self._spin
        # towards where it ought to be, so that the rounding of angles does not add up
        turn = math.degrees(self._aim - self._heading)
        return self._moved((b"", action.forward, action.side, turn))

    def _moved(self, request: tuple[bytes, float, float, float]) -> np.ndarray:
        """The pose after a request; its frame comes next."""
        x, y, degrees = POSE.unpack(self._reply(self.timeout, REQUEST.pack(*request)))
        self._heading += _wrapped(math.radians(degrees) - self._heading)
        return np.array([x / UNITS, y / UNITS, self._heading])

    def _seen(self) -> np.ndarray:
        return np.frombuffer(self._reply(self.timeout), np.uint8).reshape(SIZE, SIZE, 3)

    def _reply(self, seconds: float, request: bytes | None = None) -> bytes:
        """The next reply, after a request; anything else than a good one closes the engine."""
        if self.closed:
            raise EngineError("the Doom engine: expected one that runs, it was closed")
        try:
            return self._process.reply(seconds, request)
        except BaseException:  # an interrupt may leave half a reply behind
            self.close()
            raise


def record(tasks: Sequence[Task]) -> list[Recording]:
    """Play episodes in an engine that is started for them.

    :raises ConfigError: a task without steps.
    :raises EngineError: the engine does not start, ended or hangs.
    :raises MissingDependencyError: vizdoom is not installed.
    """
    check_vizdoom()
    if not tasks:
        return []
    with DoomEngine([task.world for task in tasks]) as engine:
        return engine.record(tasks)


class _Process:
    """The process beside this one, its folder and its shared memory."""

    def __init__(self, wad: bytes, first_map: str) -> None:
        self._owner = os.getpid()
        self._patience = _CLOSE_SECONDS
        self._received = b""
        self._home = Path(tempfile.mkdtemp(prefix="gtm-pyro-doom-"))
        path = os.pathsep.join(os.path.abspath(place) for place in sys.path)
        try:
            (self._home / WAD).write_bytes(wad)
            with (self._home / "errors.txt").open("wb") as errors:
                # -P: the script's folder is no place to import from; a session can be killed with all that is in it
                self._popen = subprocess.Popen(
                    [sys.executable, "-P", os.path.abspath(doom_process.__file__), first_map, str(TICS)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
                    cwd=self._home, env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            shutil.rmtree(self._home, ignore_errors=True)
            raise EngineError(f"the Doom engine could not be started: {error}") from error
        self.pid = self._popen.pid
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._requests, self._replies = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._replies, select.POLLIN)

    def reply(self, seconds: float, request: bytes | None = None) -> bytes:
        """The next reply, after a request.

        :raises EngineError: none comes in time, the process ends, or it answers that the engine failed.
        """
        deadline = time.monotonic() + seconds
        try:
            if request is not None:
                os.write(self._requests, request)
            good, size = REPLY.unpack(self._read(REPLY.size, deadline))
            content = self._read(size, deadline)
        except TimeoutError:
            self._patience = 0.0
            raise EngineError(f"the Doom engine did not answer within {seconds:g} seconds, and was killed") from None
        except (EOFError, BrokenPipeError):
            raise EngineError(f"the Doom engine ended{self._last_words()}") from None
        if not good:
            raise EngineError(f"the Doom engine failed: {content.decode(errors='replace').strip()}")
        return content

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if self._poll.poll(math.ceil(1000 * left)):
                part = os.read(self._replies, 1 << 16)
                if not part:
                    raise EOFError
                self._received += part
        content, self._received = self._received[:size], self._received[size:]
        return content

    def _shared_memory(self) -> list[Path]:
        """Files of its engine, whose names end with a name of the engine's."""
        with suppress(OSError, ValueError, IndexError):
            arguments = (self._home / ARGUMENTS).read_text(encoding="utf-8", errors="replace").splitlines()
            name = arguments[arguments.index("+viz_instance_id") + 1]
            return [_SHARED_MEMORY / f"ViZDoom{part}{name}" for part in ("SM", "MQCtr", "MQDoom")]
        return []

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = (self._home / "errors.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            words = [line.strip() for line in lines if line.strip()]
            if words:
                return f": {words[-1]}"
        return ""

    def end(self) -> None:
        """End it with all that it started, and remove what it leaves."""
        if os.getpid() != self._owner:  # in a fork of the process that has the engine
            return
        assert self._popen.stdin is not None and self._popen.stdout is not None
        shared = self._shared_memory()  # it may remove its folder soon
        self._popen.stdin.close()
        deadline = time.monotonic() + self._patience
        with suppress(EOFError, TimeoutError):  # asked to close by the end of its input, it ends its output
            while True:
                self._read(1, deadline)
        # it is not waited for before, so its number is still its own
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._popen.stdout.close()
        for file in shared:
            file.unlink(missing_ok=True)
        shutil.rmtree(self._home, ignore_errors=True)


def _wrapped(angle: float) -> float:
    """Between -pi and pi."""
    return math.remainder(angle, math.tau)
