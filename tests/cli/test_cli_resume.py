"""A training that was stopped goes on where it was, and one that is repeated gives the same again."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_cases import SMALL, Fails

from gtm_pyro.cli import main


def test_a_resumed_run_ends_as_an_uninterrupted_one(run: Path, tmp_path: Path) -> None:
    """Remove what came after step 4, as if the run had been killed there."""
    killed = Path(shutil.copytree(run, tmp_path / "killed"))
    for path in (killed / "checkpoint").glob("step-00000006.*"):
        path.unlink()
    for name in ("evaluation.json", "report.html"):
        (killed / name).unlink()
    assert main(["train", "--resume", str(killed)]) == 0
    for path in ("checkpoint/step-00000006.safetensors", "evaluation.json"):
        assert (killed / path).read_bytes() == (run / path).read_bytes()


def test_resume_with_the_whole_command(copied: Path, fails: Fails, no_report: None) -> None:
    """A script may add --resume to its command; other settings than the run's are refused."""
    words = ["train", "image-navigation", "--out", str(copied), "--seed", "3", *SMALL, "--resume"]
    assert main([*words, "--log_every", "2"]) == 0
    assert "its run has other settings: seed is 3, not 4" in fails(*words, "--seed", "4")


def test_resume_before_the_first_checkpoint(run: Path, tmp_path: Path, no_report: None) -> None:
    """Killed right after config.yaml was written: the run begins again."""
    (tmp_path / "a").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "a")
    assert main(["train", "--resume", str(tmp_path / "a"), "--device", "cpu"]) == 0
    weights = "checkpoint/step-00000006.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() == (run / weights).read_bytes()


def test_a_folder_with_a_half_written_config_is_new(tmp_path: Path, no_report: None) -> None:
    """Killed while config.yaml was written for the first time."""
    (tmp_path / ".config.yaml.123.tmp").write_text("model: ")
    assert main(["train", "image-navigation", "--out", str(tmp_path), *SMALL, "--steps", "1"]) == 0
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_run_that_is_still_training_is_left_alone(copied: Path, fails: Fails) -> None:
    fcntl = pytest.importorskip("fcntl")
    before = (copied / "config.yaml").read_bytes()
    with (copied / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # locks of one process exclude each other too
        words = ["train", "--resume", str(copied), "--log_every", "7"]
        assert f"another process is training in {copied}" in fails(*words)
    assert (copied / "config.yaml").read_bytes() == before


def test_a_run_is_repeated_from_its_config(run: Path, tmp_path: Path, no_report: None) -> None:
    assert main(["train", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    weights = "checkpoint/step-00000006.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (run / weights).read_bytes()


def test_stopping_tells_how_to_go_on(tmp_path: Path) -> None:
    """A real signal in the middle of a training too long to end by itself; then resumed from its checkpoint."""
    out = tmp_path / "a  folder"
    stages = "[{steps: 100000, batch_size: 8, num_observed: 12, num_predicted: 4}]"
    words = [Path(sys.executable).with_name("gtm-pyro"), "train", "image-navigation", "--out", out, *SMALL]
    process = subprocess.Popen(
        [*words, "--stages", stages, "--initialisation", "null"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
            assert time.monotonic() < deadline and process.poll() is None, "no step was taken"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    step = int(last.partition("stopped at step ")[2].partition(";")[0])
    assert shlex.split(last.partition("continue with ")[2]) == ["gtm-pyro", "train", "--resume", str(out)]
    assert (out / "checkpoint" / f"step-{step:08d}.safetensors").is_file()


def test_being_stopped_after_training_tells_how_to_go_on(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gtm_pyro.cli import commands

    def stopped(*_: object, rehearsal: bool = False) -> None:
        if not rehearsal:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr(commands, "_evaluate", stopped)
    assert main(["train", "--resume", str(copied)]) == 143
    last = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2].strip()
    assert last == f"gtm-pyro: stopped; the training is complete; to make the report: gtm-pyro train --resume {copied}"
