"""Long work says what it does, where somebody looks, and short work says nothing."""

import sys
import time

import pytest

from gtm_pyro.storage import progress
from gtm_pyro.storage.progress import phase, progress_shown, watched


def counted() -> None:
    assert list(watched([1, 2], "counting", "number")) == [1, 2]


def test_only_long_work_that_is_looked_at_is_told(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted()
    with progress_shown(), phase("thinking"):
        counted()
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    with phase("thinking"), progress_shown(False):
        counted()
    assert capfd.readouterr().err == ""
    with progress_shown():
        for _ in watched([1], "counting", "number"):
            time.sleep(0.2)
        assert capfd.readouterr().err == "counting ...\n"
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        counted()
        assert "counting: 100%" in capfd.readouterr().err
