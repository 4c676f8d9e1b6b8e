"""Calls that are answered by worker processes: what is asked for first, then what will be asked for next."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.tasks.labyrinth.worker_process import WorkerFailure, WorkerProcess

TRIES = 3
"""How often a call is tried, each time in a new process."""


@dataclass(frozen=True)
class Job:
    """A call of a function that can be imported, with arguments that can be pickled and compared.

    :ivar label: what errors call it.
    """

    label: str = field(compare=False)
    call: Callable[..., Any]
    arguments: tuple


class Workers:
    """Some processes, started when they are needed, and replaced when they hang or are killed.

    They end with :attr:`close`, when this object is collected, at the interpreter's exit, and when the interpreter is
    killed.

    :param number: of processes.
    :param timeout: seconds that one call may take, the start of the process apart.
    :param keep: called with a job and its result, in a thread of this process; what it raises becomes the result.
    :raises ConfigError: the system is not POSIX.
    """

    def __init__(self, number: int, timeout: float, keep: Callable[[Job, Any], None] | None = None) -> None:
        if os.name != "posix":
            raise ConfigError(f"workers: expected 0 on this system, got {number}")
        self._state = _State(timeout, keep)
        # threads hold the state alone, so that this object can be collected
        threads = [threading.Thread(target=_attend, args=(self._state,), daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        self.close = weakref.finalize(self, _close, self._state, threads)

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        with self._state.changed:
            return [process.pid for process in self._state.processes]

    def prefetch(self, jobs: Iterable[Job]) -> None:
        """Do these while nothing else is asked for, instead of those named here before."""
        with self._state.changed:
            self._state.waiting = deque(job for job in jobs if not self._state.knows(job))
            self._state.changed.notify_all()

    def result(self, job: Job) -> Any:
        """Do this one next, unless it is done, and return its result, which is then forgotten.

        :raises EpisodesError: it failed in three processes; says how.
        :raises GTMPyroError: what the call or ``keep`` raised.
        """
        state = self._state
        with state.changed:
            state.awaited.add(job)
            state.unwanted.discard(job)
            if not state.knows(job):
                with suppress(ValueError):
                    state.waiting.remove(job)
                state.urgent.append(job)
                state.changed.notify_all()
            while job not in state.results:
                if state.closed:
                    raise EpisodesError(f"{job.label}: expected workers that run, they were closed")
                state.changed.wait()
            state.awaited.discard(job)
            result = state.results.pop(job)
        if isinstance(result, Exception):
            raise result
        return result

    def forget(self, job: Job) -> None:
        """Let go of a result that nobody will ask for."""
        with self._state.changed:
            if self._state.results.pop(job, None) is None and job in self._state.running:
                self._state.unwanted.add(job)


class _State:
    """What the threads share, under the lock of ``changed``."""

    def __init__(self, timeout: float, keep: Callable[[Job, Any], None] | None) -> None:
        self.changed = threading.Condition()
        self.timeout, self.keep, self.owner = timeout, keep, os.getpid()
        self.urgent: deque[Job] = deque()
        self.waiting: deque[Job] = deque()
        self.awaited: set[Job] = set()
        self.unwanted: set[Job] = set()
        self.running: set[Job] = set()
        self.failures: dict[Job, int] = {}
        self.results: dict[Job, Any] = {}
        self.processes: set[WorkerProcess] = set()
        self.closed = False

    def knows(self, job: Job) -> bool:
        return job in self.running or job in self.urgent or job in self.results

    def next(self) -> Job | None:
        """Wait for a job; None when there will be none."""
        with self.changed:
            while not (self.closed or self.urgent or self.waiting):
                self.changed.wait()
            if self.closed:
                return None
            job = (self.urgent or self.waiting).popleft()
            self.running.add(job)
            return job

    def finish(self, job: Job, result: Any) -> None:
        with self.changed:
            self.running.discard(job)
            self.failures.pop(job, None)
            if job not in self.unwanted:
                self.results[job] = result
            self.unwanted.discard(job)
            self.changed.notify_all()

    def fail(self, job: Job, reason: str) -> None:
        """Have it tried again, or give up."""
        with self.changed:
            self.failures[job] = self.failures.get(job, 0) + 1
            if self.failures[job] < TRIES:
                self.running.discard(job)
                (self.urgent if job in self.awaited else self.waiting).appendleft(job)
                self.changed.notify_all()
            else:
                self.finish(job, EpisodesError(f"{job.label}: could not be made, {TRIES} tries failed; {reason}"))


def _attend(state: _State) -> None:
    """Look after one process at a time."""
    process: WorkerProcess | None = None
    try:
        while (job := state.next()) is not None:
            try:
                process = process or _started(state)
                result = process.do(job.call, job.arguments, state.timeout)
                if state.keep is not None:
                    state.keep(job, result)
                state.finish(job, result)
            except (WorkerFailure, OSError) as error:
                # a new process may fare better
                _end(state, process)
                process = None
                state.fail(job, str(error))
            except Exception as error:
                state.finish(job, error)
    finally:
        _end(state, process)


def _started(state: _State) -> WorkerProcess:
    process = WorkerProcess()
    with state.changed:
        state.processes.add(process)
        if state.closed:
            process.kill()
    return process


def _end(state: _State, process: WorkerProcess | None) -> None:
    if process is not None:
        with state.changed:
            state.processes.discard(process)
        process.end()


def _close(state: _State, threads: list[threading.Thread]) -> None:
    if os.getpid() != state.owner:  # in a fork of the process that has the workers
        return
    with state.changed:
        state.closed = True
        for process in state.processes:
            process.kill()
        state.changed.notify_all()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(timeout=10)
