"""Names of any bytes: shown, written down and found again."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from world_cases import save_images

from gtm_pyro.cli import main
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import read_experiment
from gtm_pyro.report.comparison import compare
from gtm_pyro.report.page import write_report
from gtm_pyro.storage.names import printable, quoted
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import parse_yaml

LATIN = os.fsdecode(b"caf\xe9")
ASCII_PYTHON = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_printable_text_holds_nothing_that_utf8_cannot_say() -> None:
    assert printable("café, τ") == "café, τ"
    assert printable("caf\udcc3\udca9") == "café", "its bytes are those of UTF-8"
    assert printable("caf\udce9") == "caf\ufffd"
    assert printable("a\ud800").encode() == b"a\\ud800"


@pytest.mark.parametrize("path", ["a", "a b", "it's", "a  b;c", "$HOME", "-a", "é"])
def test_a_quoted_path_is_one_word(path: str) -> None:
    (word,) = shlex.split(quoted(path))
    assert word == (path if path != "-a" else "./-a")


@pytest.mark.parametrize("name", [LATIN, "im \udcc3\udca9", "é: [τ] \uf7e9", 'a "b"'])
def test_config_keeps_every_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    save_images(folder, 4)
    images = str(folder)
    config = resolve(read_experiment("image-navigation"), {"data.images": images})
    assert config["data"]["init_args"]["images"] == images
    text = config.yaml()
    text.encode()
    again = resolve(parse_yaml("config.yaml", text))
    assert again["data"]["init_args"]["images"] == images and again.yaml() == text
    assert yaml.safe_load(text)["data"]["init_args"]["images"] == images


def test_a_run_in_a_folder_of_any_name(run: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """In a Python that reads names as UTF-8, with one that is none."""
    folder = shutil.copytree(run, tmp_path / LATIN)
    write_report(RunFolder(folder))
    assert "<title>caf\ufffd" in (folder / "report.html").read_text(encoding="utf-8")
    comparison = compare([run, folder])
    comparison.save(tmp_path / "all.html")
    assert "caf\ufffd" in (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "caf\ufffd" in comparison.csv() and "caf\\ufffd" in comparison.json()
    assert main(["compare", str(folder), str(run), "--out", str(tmp_path / "all.png")]) == 0
    assert b"gtm-pyro diagnose " + os.fsencode(quoted(folder)) in capfdbinary.readouterr().out


def test_a_python_without_utf8_writes_its_report(run: Path, tmp_path: Path) -> None:
    """The training is complete: what is left is what used to end in a traceback."""
    folder = shutil.copytree(run, tmp_path / "un été")
    (folder / "report.html").unlink()
    command = """
import sys
from matplotlib.figure import Figure
from gtm_pyro.cli import main
Figure.draw = lambda *_: None  # takes long
assert sys.getfilesystemencoding() == "ascii"
sys.exit(main(["train", "--resume", sys.argv[1]]) or main(["train", "image-navigation", "--out", sys.argv[1]]))
"""
    words = [sys.executable, "-c", command, folder]
    done = subprocess.run(words, env=os.environ | ASCII_PYTHON, capture_output=True)
    assert done.returncode == 2, done.stderr.decode()
    assert f"written: {folder}/report.html\n".encode() in done.stdout
    last = done.stderr.decode().splitlines()[-1]
    assert last.endswith(f"this one is in use; to continue the run in it: gtm-pyro train --resume '{folder}'")
    assert "<title>un été" in (folder / "report.html").read_text(encoding="utf-8")
