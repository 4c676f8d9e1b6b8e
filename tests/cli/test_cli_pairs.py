"""The command line trains any pair, and what it writes never stops it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_cases import SMALL, Fails

from gtm_pyro.cli import main

VAE = ("--model", "own_pairs.FrameVAE", "--guide", "own_pairs.FrameGuide")


def test_a_plain_autoencoder_of_ones_own(tmp_path: Path, fails: Fails, capfd: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "vae")
    small = [*SMALL, "--model.latent_dim", "3"]
    assert main(["train", "image-navigation", *VAE, *small, "--out", run]) == 0
    told = capfd.readouterr().out
    assert "learning_rates.by_prefix: without transition.displacement, transition.gate_network" in told
    config = yaml.safe_load((tmp_path / "vae" / "config.yaml").read_text())
    assert config["model"]["init_args"] == {"frame_shape": [3, 8, 8], "latent_dim": 3}
    numbers = json.loads((tmp_path / "vae" / "evaluation.json").read_text())
    assert numbers["elbo"] < 0 and "retrieval_accuracy" not in numbers
    assert (tmp_path / "vae" / "report.html").is_file()
    assert "names own_pairs.FrameVAE" in fails("evaluate", run)
    assert main(["evaluate", run, "--trust", "--out", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text()) == numbers


@pytest.mark.parametrize("words", [
    ("--model", "own_pairs.Drift", "--guide", "own_pairs.DriftGuide"),
    ("--model", "own_pairs.ActionMemory", "--guide", "own_pairs.FrameGuide"),
    ("--model", "LinearGaussian"),
])  # fmt: skip
def test_other_pairs(words: tuple[str, ...], tmp_path: Path, no_report: None) -> None:
    assert main(["train", "image-navigation", *words, *SMALL, "--steps", "1", "--out", str(tmp_path / "a")]) == 0


def test_damaged_results_are_written_anew(copied: Path) -> None:
    before = (copied / "evaluation.json").read_bytes()
    for name in ("evaluation.json", "posterior.nc", "report.html", "evaluation_by_horizon.npz"):
        (copied / name).write_bytes(b"{damaged")
    assert main(["report", str(copied)]) == 0
    assert (copied / "evaluation.json").read_bytes() == before
    assert (copied / "posterior.nc").read_bytes()[:4] == b"\x89HDF" and (copied / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_any_encoding_shows_what_there_is(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["list"]) == 0
    out.flush()
    said = out.buffer.getvalue().decode(encoding)
    assert "own-episodes" in said and "AutoGuide" not in said


def test_the_module_is_the_command_in_any_encoding() -> None:
    words = [sys.executable, "-m", "gtm_pyro.cli", "list"]
    setting = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(words, env=setting, capture_output=True, timeout=120, check=True)
    assert "own-episodes" in done.stdout.decode("ascii") and done.stderr == b""
