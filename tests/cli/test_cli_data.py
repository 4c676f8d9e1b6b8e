"""gtm-pyro data: fills a folder, keeps what is there, and says how to use it."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_cases import Fails

from gtm_pyro.cli.parser import main, make_parsers
from gtm_pyro.tasks import LabyrinthRotation
from gtm_pyro.tasks.labyrinth.sources import SOURCES

SMALL = ("--steps", "4", "--test_episodes", "20")
WORDS = ("data", "labyrinth-rotation", *SMALL, "--workers", "0")


def test_a_folder_is_filled_and_filled_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "a"
    assert main([*WORDS, "--episodes", "40", "--out", str(out)]) == 0
    written, bar = capfd.readouterr()
    assert f"40 episodes to train on and 20 to test on, of 4 steps: {out}\n" in written
    assert f"use them: gtm-pyro train labyrinth-rotation --data.cache {out} --data.num_episodes 40" in written
    assert "96/96" in bar and "there already" not in bar
    names = ["test-00000.npz", "train-00000.npz", "train-00001.npz"]
    assert sorted(path.name for path in out.iterdir()) == names
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "train-00000.npz").unlink()
    # what is missing is made again, with other workers, and nothing else is touched
    assert main([*WORDS[:-1], "1", "--episodes", "70", "--out", str(out)]) == 0
    assert "2 of 4 shards were there already and are kept" in capfd.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == [*names, "train-00002.npz"]
    assert all((out / name).stat().st_mtime_ns == stamps[out / name] for name in (names[0], names[2]))
    asked = {"num_observed": 2, "num_predicted": 2, "seed": 0}
    data = LabyrinthRotation(num_episodes=70, num_test_episodes=20, num_steps=4, cache=str(out))
    fresh = LabyrinthRotation(num_episodes=70, num_test_episodes=20, num_steps=4)
    assert data.store.missing() == []
    assert torch.equal(data.sample(70, **asked).frames, fresh.sample(70, **asked).frames)


def test_a_damaged_shard_is_not_kept(tmp_path: Path, fails: Fails) -> None:
    out = tmp_path / "a"
    assert main([*WORDS, "--episodes", "1", "--out", str(out)]) == 0
    shard = out / "train-00000.npz"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1  # a bit of a frame: the header is as it was
    shard.write_bytes(content)
    message = fails(*WORDS, "--episodes", "1", "--out", str(out))
    assert f"{shard}: frames: expected a whole array of numbers" in message
    assert "delete it to have it made again" in message
    shard.unlink()
    assert main([*WORDS, "--episodes", "1", "--out", str(out)]) == 0


def test_the_words_that_it_shows_name_what_it_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder"
    assert main([*WORDS, "--episodes", "3", "--seed", "5", "--steady", "--out", str(out)]) == 0
    words = shlex.split(capfd.readouterr().out.splitlines()[-1].partition("use them: ")[2])
    assert words[:5] == ["gtm-pyro", "train", "labyrinth-rotation", "--data.cache", str(out)]
    fields = dict(zip(words[5::2], words[6::2], strict=True))
    assert fields == {
        "--data.seed": "5", "--data.num_episodes": "3", "--data.num_test_episodes": "20", "--data.num_steps": "4",
        "--data.from_rest": "false",
    }  # fmt: skip


def test_without_a_folder_it_takes_one_of_the_users_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert main([*WORDS, "--episodes", "1"]) == 0
    (made,) = tmp_path.rglob("train-00000.npz")
    assert made.parent.name.startswith("labyrinth-rotation-raycaster-")
    assert f"--data.cache {made.parent}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data", "data: expected one of labyrinth-rotation, labyrinth-walk, labyrinth-rooms, got none"),
        ("data labyrinth-wlak", "labyrinth-wlak: expected one of labyrinth-rotation, labyrinth-walk, labyrinth-rooms; "
                                "did you mean labyrinth-walk?"),
        ("data labyrinth-walk --seed -1", "--seed: expected a whole number from 0 to 4294967295, got '-1'"),
        ("data labyrinth-walk --seed 4294967296", "expected a whole number from 0 to 4294967295, got '4294967296'"),
        ("data labyrinth-walk --episodes 0", "--episodes: expected a whole number from 1 to 3200000, got '0'"),
        ("data labyrinth-walk --engine dom", "engine: expected 'raycaster' or 'vizdoom', got 'dom'"),
        ("data labyrinth-walk --steady", "--steady: expected with labyrinth-rotation only, got labyrinth-walk"),
        ("data labyrinth-walk --episode 3", "--episode: no such option; did you mean --episodes?"),
        ("data labyrinth-walk --out file", "file: expected a folder for shards, got a file"),
        ("data labyrinth-walk --out file/below", "file/below: expected a folder that can be written to"),
    ],
)  # fmt: skip
def test_mistakes(words: str, message: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    assert message in fails(*words.split())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_another_sources_folder_is_left_alone(fails: Fails, tmp_path: Path) -> None:
    assert main([*WORDS, "--episodes", "1", "--out", str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    message = fails("data", "labyrinth-rooms", *SMALL, "--out", str(tmp_path))
    assert "train-00000.npz: expected a shard of labyrinth-rooms" in message
    (tmp_path / "train-00000.npz").write_bytes(before[tmp_path / "train-00000.npz"][:1000])
    assert "cut short or of another kind" in fails(*WORDS, "--out", str(tmp_path))
    assert len((tmp_path / "train-00000.npz").read_bytes()) == 1000


def test_without_vizdoom_the_install_command_is_told(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vizdoom" else find(name))
    for words in ((), ("--out", str(tmp_path))):
        assert 'pip install "gtm-pyro[labyrinth]"' in fails(*WORDS, "--engine", "vizdoom", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_leaves_whole_shards_and_goes_on(signum: signal.Signals, tmp_path: Path) -> None:
    words = f"data labyrinth-walk --steps 12 --episodes 640 --test_episodes 1 --out {tmp_path / 'a'}".split()
    script = [Path(sys.executable).with_name("gtm-pyro"), *words]
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    # a job in the background of a script has SIGINT ignored, and so have its children
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "train-00001.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (-9 if signum == signal.SIGKILL else 128 + signum), err
    whole = list((tmp_path / "a").glob("train-*.npz"))
    assert 2 <= len(whole) < 20
    left = [path.name for path in (tmp_path / "a").iterdir() if path not in whole]
    if signum != signal.SIGKILL:
        assert f"stopped; {len(whole)} of 21 shards are in {tmp_path / 'a'}" in err and left == []
    for _ in range(50):  # the worker notices that it is alone
        if not list(scratch.iterdir()):
            break
        time.sleep(0.1)
    assert list(scratch.iterdir()) == []
    source = SOURCES["labyrinth-walk"](num_episodes=640, num_test_episodes=1, num_steps=12, cache=str(tmp_path / "a"))
    assert len(source.store.missing()) == 21 - len(whole), "those that are there are whole"


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom gtm_pyro.cli import main\nassert main(['data', '--help']) == 0\n"
        "heavy = {'torch', 'pyro', 'numpy', 'platformdirs', 'tqdm'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert all(name in done.stdout for name in SOURCES)


def test_the_examples_in_the_help_are_commands() -> None:
    parser = make_parsers()[1]["data"]
    lines = [line.strip() for line in (parser.epilog or "").splitlines() if line.strip().startswith("gtm-pyro data")]
    assert len(lines) == 3
    for line in lines:
        assert parser.parse_args(line.split()[2:]).source in SOURCES
