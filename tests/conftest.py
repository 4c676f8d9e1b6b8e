"""What all tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch
from command_cases import SMALL, Fails

from gtm_pyro.cli.parser import BAD_INPUT, main
from gtm_pyro.evaluation import style


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for each core, at most eight; none where only files are named, which are done before workers start."""
    if config.args and all(".py" in name for name in config.args):
        return 0
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Runs are compared bit for bit, which holds for one number of threads; small tensors are quickest on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def empty_store() -> None:
    """No test finds in Pyro's global store what an earlier one left."""
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def quick_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are blank but in the tests that look at them: to lay them out and to draw takes most of a small run."""
    if not {"figures", "writers", "comparison"} & set(request.module.__name__.split("_")):
        monkeypatch.setattr(style, "LAYOUT", "none")
        monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps with seed 3, evaluated and reported; tests that write into it take ``copied``."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "image-navigation", "--out", str(out), "--seed", "3", *SMALL]) == 0
    return out


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of training alone: the evaluation and the report take most of the time of a small run."""
    from gtm_pyro.cli import commands

    monkeypatch.setattr(commands, "_finish", lambda *_: None)


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Run a command that must fail: exit status 2, nothing on stdout, one line on stderr, which is returned."""
    monkeypatch.setattr("gtm_pyro.storage.progress._PATIENCE", 1e6)  # a busy machine is no reason for a second line

    def call(*words: str) -> str:
        capfd.readouterr()
        assert main(words) == BAD_INPUT
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("gtm-pyro: error: "), err
        return err

    return call
