"""Long work says what it does, where somebody looks, and short work says nothing."""

import pytest

from gtm_pyro.storage import progress
from gtm_pyro.storage.progress import phase, progress_shown, watched


def test_only_long_work_that_is_looked_at_is_told(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(watched([1, 2], "counting", "number")) == [1, 2]
    with progress_shown(), phase("thinking"):
        assert list(watched([1, 2], "counting", "number")) == [1, 2]
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    with phase("thinking"):
        assert list(watched([1, 2], "counting", "number")) == [1, 2]
    assert capfd.readouterr().err == ""
    with progress_shown():
        assert list(watched([1, 2], "counting", "number")) == [1, 2]
        assert "counting: 100%" in capfd.readouterr().err
        with phase("thinking") as started:
            started.join()
        assert capfd.readouterr().err == "thinking ...\n"
    with progress_shown(False), phase("thinking"):
        pass
    assert capfd.readouterr().err == ""
