"""Signals: the step that is being taken is finished and saved."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from fitting_cases import SHORT, TOTAL, stopping_at, train

from gtm_pyro.storage import checkpoints
from gtm_pyro.storage.interrupts import Interrupted, StopSignals


@pytest.mark.parametrize("step", [1, 5, TOTAL])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tmp_path: Path, signum: signal.Signals, step: int) -> None:
    with pytest.raises(Interrupted, match=f"stopped at step {step}; to continue, resume {tmp_path}") as caught:
        train(stopping_at(step, signum), out=tmp_path / "a")
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value.exit_status == 128 + signum
    latest = checkpoints.load_latest(tmp_path / "a" / "checkpoint")
    assert latest is not None and latest.step == step


def test_a_second_signal_stops_at_once() -> None:
    with pytest.raises(Interrupted, match="second signal"), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_fit_works_outside_the_main_thread() -> None:
    runs: list[Any] = []
    thread = threading.Thread(target=lambda: runs.append(train(stages=SHORT, steps=1)))
    thread.start()
    thread.join()
    assert runs[0].steps == 1
