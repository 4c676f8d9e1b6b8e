"""The run folder: what lies where, who may write into it, and files that are written whole or not at all."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtm_pyro.errors import RunFolderError
from gtm_pyro.storage.atomic import write_atomically

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_HELD: set[tuple[int, Path]] = set()  # by this process: thread and folder


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run (see the properties for what it holds)."""

    path: Path

    @property
    def config(self) -> Path:
        """The full resolved config, enough to run again."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object a log step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoint"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def posterior(self) -> Path:
        return self.path / "posterior.nc"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def lock(self) -> Path:
        """Locked while a process trains here; the lock, not the file, ends with the process."""
        return self.path / ".lock"

    def contents(self) -> list[str]:
        """Names of what lies here, but for what a run that was killed before its first step leaves.

        :raises OSError: the folder cannot be read.
        """
        ignored = {self.config, self.lock, *self._half_written()}
        return sorted(entry.name for entry in self.path.iterdir() if entry not in ignored)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """A folder for a new run; one that holds nothing but a config.yaml counts as empty.

        :raises RunFolderError: it holds something, is no folder, or cannot be made.
        """
        if not os.fspath(path):  # which would be the working folder
            raise RunFolderError("out: expected the name of a run folder, got ''")
        folder = cls(Path(path))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            others = folder.contents()
        except FileExistsError:
            raise RunFolderError(f"{path}: expected a new or empty folder, got a file") from None
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be used as a run folder ({error.strerror})") from error
        if others:
            raise RunFolderError(
                f"{path}: expected a new or empty folder, it holds {others[0]}; to continue a run, resume it"
            )
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """The folder of an earlier run.

        :raises RunFolderError: it is missing, or no run was ever started in it.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            there = "got a file" if folder.path.exists() else "there is nothing"
            raise RunFolderError(f"{path}: expected a run folder, {there}")
        if not (folder.config.is_file() or folder.checkpoints.is_dir()):
            raise RunFolderError(f"{path}: expected a run folder, found no config.yaml and no checkpoint/")
        return folder

    def remove_unused(self) -> None:
        """Remove the folder if no training began in it."""
        with suppress(OSError):
            if not self.contents():
                for path in (self.config, self.lock):
                    path.unlink(missing_ok=True)
                self.path.rmdir()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from training here, and remove what a killed run left half written.

        A thread that holds the folder may hold it again. Where there are no locks, nobody is kept out.

        :raises RunFolderError: another process or thread holds it, or the lock cannot be written.
        """
        key = threading.get_ident(), self.path.resolve()
        if key in _HELD:
            yield
            return
        try:
            file = self.lock.open("ab")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be used as a run folder ({error.strerror})") from error
        with file:
            self._lock(file.fileno())
            _HELD.add(key)
            try:
                for path in self._half_written():
                    path.unlink(missing_ok=True)
                yield
            finally:
                _HELD.discard(key)
                if fcntl is not None:  # closing is not enough where a forked process has the file open too
                    with suppress(OSError):
                        fcntl.flock(file, fcntl.LOCK_UN)

    def _lock(self, descriptor: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise RunFolderError(f"another process is training in {self.path}") from None
        except OSError:  # a file system without locks
            pass

    def _half_written(self) -> list[Path]:
        return list(self.path.glob(".*.*.tmp"))

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl, whole or not at all.

        :raises RunFolderError: it cannot be written.
        """
        try:
            with self.metrics.open("ab", buffering=0) as file:
                size, text = file.tell(), (json.dumps(line) + "\n").encode()
                try:
                    if file.write(text) < len(text):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise RunFolderError(f"{self.metrics}: could not be written ({error.strerror})") from error

    def read_metrics(self, last_step: int | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl up to ``last_step``; a line that was cut short is left out."""
        if not self.metrics.is_file():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and (last_step is None or line.get("step", 0) <= last_step):
                lines.append(line)
        return lines

    def truncate_metrics(self, last_step: int) -> list[dict[str, Any]]:
        """Drop what was logged after ``last_step``, which a resumed run is about to log again; return the rest.

        :raises RunFolderError: metrics.jsonl cannot be written.
        """
        lines = self.read_metrics(last_step)
        try:
            write_atomically(self.metrics, "".join(json.dumps(line) + "\n" for line in lines).encode())
        except OSError as error:
            raise RunFolderError(f"{self.metrics}: could not be written ({error.strerror})") from error
        return lines
