"""One worker process, from the side of its parent and from its own.

A worker leads a session of its own, so that Ctrl-C does not reach it, and dies together with all that it started.
Messages are pickles after their length, through pipes that only these two hold.
"""

import os
import pickle
import queue
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gtm_pyro.errors import EngineError, GTMPyroError

_START = f"import sys; from {__name__} import serve; serve(int(sys.argv[1]))"
_MARK = "GTM_PYRO_WORKER"  # in the environment of all that a worker starts, which may lead sessions of its own
_START_SECONDS = 120.0
_POLL_SECONDS = 1.0


class WorkerFailure(Exception):
    """A process was killed, took too long or met an unforeseen error; says which."""


class WorkerProcess:
    """One worker, as its parent sees it. Its working and temporary folder is one of its own."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="gtm-pyro-"))
        self._lock = threading.RLock()
        self._started = self._ended = False
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path),
            "OMP_NUM_THREADS": "1",  # torch is imported by the calls that need it
            "MKL_NUM_THREADS": "1",
            "TMPDIR": str(self._home),
            _MARK: str(self._home),
        }
        try:
            with (self._home / "errors.txt").open("wb") as errors:
                self._popen = subprocess.Popen(
                    [sys.executable, "-c", _START, str(os.getpid())],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
                    cwd=self._home, env=environment, start_new_session=True,
                )  # fmt: skip
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise
        self.pid = self._popen.pid

    def do(self, call: Callable[..., Any], arguments: tuple, timeout: float) -> Any:
        """The result of a call.

        :param timeout: seconds that it may take, the start of the process apart.
        :raises WorkerFailure: says why there is none.
        :raises GTMPyroError: what the call raised.
        """
        assert self._popen.stdin is not None and self._popen.stdout is not None
        # unpacked later than the rest, so that a call that cannot be imported is an error like others
        content = pickle.dumps((call, arguments))
        try:
            _send(self._popen.stdin.fileno(), (content, timeout))
            if not self._started:
                _receive(self._popen.stdout.fileno(), time.monotonic() + _START_SECONDS)
                self._started = True
            good, result = _receive(self._popen.stdout.fileno(), time.monotonic() + timeout)
        except TimeoutError:
            seconds = timeout if self._started else _START_SECONDS
            raise WorkerFailure(f"the worker did not answer within {seconds:g} seconds") from None
        except (EOFError, BrokenPipeError):
            raise WorkerFailure(self._last_words()) from None
        if good:
            return result
        # another engine may do better
        again = isinstance(result, EngineError) or not isinstance(result, GTMPyroError)
        raise WorkerFailure(str(result)) if again else result

    def _last_words(self) -> str:
        self.kill()  # what it started may live on
        status = self._popen.wait()
        if status < 0:
            return f"the worker was killed by {signal.Signals(-status).name}"
        with suppress(OSError):
            lines = (self._home / "errors.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            words = [line.strip() for line in lines if line.strip()]
            if words:
                return f"the worker ended with status {status}: {words[-1]}"
        return f"the worker ended with status {status}"

    def kill(self) -> None:
        """At once, with everything that it started."""
        with self._lock:
            if not self._ended:  # later the number may be another's
                _kill_all(self.pid, self._home)

    def end(self) -> None:
        """Kill it and remove what it leaves."""
        self.kill()
        with self._lock:
            self._ended = True
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        shutil.rmtree(self._home, ignore_errors=True)


def serve(parent: int) -> None:
    """What a worker does: answer calls until its parent has gone.

    :param parent: its process number.
    """
    requests, replies = os.dup(0), os.dup(1)
    # what a call starts may read and write there
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    calls: queue.SimpleQueue[tuple[bytes, float]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, parent, calls, Path.cwd()), daemon=True).start()

    _send(replies, "ready")
    while True:
        content, timeout = calls.get()
        # the last resort: the parent has gone, and a call never lets the other thread run
        signal.alarm(int(2 * timeout) + 60)
        answer: tuple[bool, Any]
        try:
            call, arguments = pickle.loads(content)
            answer = True, call(*arguments)
        except GTMPyroError as error:
            answer = False, error
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        signal.alarm(0)
        _send(replies, answer)


def _listen(requests: int, parent: int, calls: "queue.SimpleQueue[tuple[bytes, float]]", home: Path) -> None:
    """Take calls, and end this process with all that it started when the parent has gone."""
    try:
        while True:
            calls.put(_receive(requests, None, lambda: os.getppid() == parent))
    finally:
        shutil.rmtree(home, ignore_errors=True)
        _kill_all(os.getpid(), home)  # ends this process too


def _kill_all(worker: int, home: Path) -> None:
    """Kill a worker with all that it started, and remove shared memory that an engine can no longer remove."""
    mark = f"{_MARK}={home}\0".encode()
    for _ in range(2):  # the first time round, more may be started
        names: set[str] = set()
        others = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in environment.read_bytes():
                    others.append(int(environment.parent.name))
                    maps = environment.with_name("maps").read_text(encoding="utf-8", errors="replace")
                    names.update(re.findall(r"/dev/shm/ViZDoom\w+", maps))
        for name in names:
            with suppress(OSError):
                os.unlink(name)
        for pid in set(others) - {worker}:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker, signal.SIGKILL)


def _send(descriptor: int, message: Any) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    for part in (struct.pack("<Q", len(content)), content):
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]


def _receive(descriptor: int, deadline: float | None, alive: Callable[[], bool] = lambda: True) -> Any:
    """One message.

    :param deadline: of the monotonic clock; None waits as long as the other side is alive.
    :raises TimeoutError: it is not whole by then.
    :raises EOFError: the other side has gone.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    buffer, size = bytearray(), 8
    while len(buffer) < size:
        left = _POLL_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not alive():
            raise EOFError
        if poll.poll(1000 * min(left, _POLL_SECONDS)):
            part = os.read(descriptor, min(size - len(buffer), 1 << 20))
            if not part:
                raise EOFError
            buffer += part
            if len(buffer) == 8 == size:
                size += struct.unpack("<Q", buffer)[0]
    return pickle.loads(memoryview(buffer)[8:])
