"""What all tests share."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch
from command_cases import SMALL, Fails

from gtm_pyro.cli.parser import BAD_INPUT, main
from gtm_pyro.evaluation import style

LONG = (
    "test_hypotheses", "test_cli", "test_reliability_command", "test_readme", "test_docs", "test_pairs",
    "test_conformance", "test_labyrinth_guides", "test_cli_resume", "test_labyrinth_workers", "test_writers",
    "test_cli_data", "test_labyrinth_figures", "test_labyrinth_rooms", "test_loop_closure", "test_transitions",
    "test_figures", "test_imports", "test_shown", "test_batches", "test_parts",
)  # fmt: skip


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for each core, at most eight; none where only files are named, which are done before workers start."""
    if config.args and all(".py" in name for name in config.args):
        return 0
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that no worker is left with one in the end.

    The very first compiles the search, for half a minute; the next ones have no use for it, so it is done once.
    """
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Runs are compared bit for bit, which holds for one number of threads; small tensors are quickest on one."""
    gc.freeze()  # torch and Pyro stay: a collection need not look at them again and again
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def empty_store() -> None:
    """No test finds in Pyro's global store what an earlier one left."""
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line looks for classes in the folder where it is called: no later test finds what lies there."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(autouse=True)
def quick_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are blank but in the tests that look at them: to lay them out and to draw takes most of a small run."""
    if not {"figures", "comparison"} & set(request.module.__name__.split("_")):
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
