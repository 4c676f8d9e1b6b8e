"""Every mistake on the command line is one line and exit status 2, and leaves nothing behind."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from command_cases import SMALL, Fails

from gtm_pyro.cli import main
from gtm_pyro.episodes import Episodes, save_shards


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "trian",
            "trian: expected one of train, evaluate, diagnose, localise, compare, generate, report, data, data import, "
            "list; did you mean train?",
        ),
        ("train", "experiment: expected image-navigation"),
        ("train image-navigaton", "did you mean image-navigation?"),
        ("train image-navigation extra", "extra: not expected here"),
        ("train image-navigation --stepz 3", "--stepz: no such option; did you mean --steps?"),
        ("train image-navigation --steps", "--steps: expected a value"),
        ("train image-navigation --steps x", "steps: expected a whole number over 0"),
        ("train image-navigation --num_threads 0", "num_threads: expected a whole number over 0"),
        (
            "train image-navigation --seed 4294967296",
            "seed: expected a whole number from 0 to 4294967295, got 4294967296",
        ),
        ("train image-navigation --seed -1", "seed: expected a whole number from 0"),
        (
            "train image-navigation --num_threads 100000",
            "num_threads: expected a whole number from 1 to 1024, got 100000",
        ),
        ("train image-navigation --evaluation.seed 4294967296", "evaluation.seed: expected a whole number from 0 to"),
        (
            "train image-navigation --evaluation.num_episodes 100000000000",
            "evaluation.num_episodes * steps: expected what",
        ),
        ("train image-navigation --evaluation.posterior_samples 100000000000", "posterior_samples: expected what fits"),
        (
            "train image-navigation --data.cuts_per_image 100000000000",
            "cuts_per_image * pixels of a cut: expected what fits",
        ),
        (
            'train image-navigation --stages [{"steps":1,"batch_size":100000000000}]',
            "stage 1: batch_size * steps: expected",
        ),
        ("train image-navigation --data.images=", "data.images: expected a name, got ''"),
        (
            "train labyrinth-walk --data.num_episodes 100000000000",
            "num_episodes: expected a whole number from 1 to 3200000",
        ),
        ("train labyrinth-walk --data.num_steps 100000000000", "num_steps: expected what fits into the memory"),
        (
            "data labyrinth-walk --episodes 100000000000",
            "--episodes: expected a whole number from 1 to 3200000, got '1000",
        ),
        ("data labyrinth-walk --workers 100000", "--workers: expected a whole number from 0 to 256, got '100000'"),
        ("data labyrinth-walk --seed 4294967296", "--seed: expected a whole number from 0 to 4294967295"),
        ("train image-navigation --guide Nope", "guide: expected"),
        ("train image-navigation --data.wall no", "did you mean walls?"),
        ("train image-navigation --data.images nowhere", "there is nothing"),
        ("train image-navigation --device nowhere", "device: expected one that this machine has"),
        ("train --resume", "--resume: expected one run folder, got none"),
        ("train --resume nowhere", "nowhere: expected a run folder, there is nothing"),
        ("train --resume nowhere --out elsewhere", "--resume: expected one run folder, got elsewhere and nowhere"),
        ("evaluate", "expected a run folder, got none; usage: gtm-pyro evaluate DIR"),
        ("evaluate nowhere", "nowhere: expected a run folder, there is nothing"),
        ("evaluate .", ".: expected a run folder, "),
        ("evaluate nowhere --model.transition.scale 3", "--model.transition.scale: no such option"),
        ("generate nowhere --steps 3", "nowhere: expected a run folder, there is nothing"),
        ("report nowhere", "nowhere: expected a run folder, there is nothing"),
        ("list everything", "everything: not expected here"),
    ],
)
def test_mistakes(words: str, message: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(*words.split())
    assert list(tmp_path.iterdir()) == [], "a mistake must leave nothing behind"


@pytest.mark.parametrize(
    "words",
    [
        ("train", "image-navigation", "--out", ""),
        ("evaluate", "{run}", "--out", ""),
        ("evaluate", "{run}", "--report", ""),
        ("diagnose", "{run}", "--out", ""),
        ("localise", "{run}", "--out", ""),
        ("compare", "{run}", "{run}", "--out", ""),
        ("generate", "{run}", "--out", ""),
        ("generate", "{run}", "--video", ""),
        ("generate", "{run}", "--actions", ""),
        ("data", "labyrinth-walk", "--out", ""),
        ("report", ""),
        ("evaluate", ""),
    ],
)
def test_an_empty_name_is_not_the_working_folder(
    words: tuple[str, ...], fails: Fails, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = fails(*(word.format(run=run) for word in words))
    assert "expected a name, got ''" in message or "expected the name of a run folder, got ''" in message
    assert list(tmp_path.iterdir()) == []


def test_episodes_that_the_disk_has_no_room_for(fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    message = fails("data", "labyrinth-rotation", "--episodes", "40", "--out", str(tmp_path / "a"))
    assert f"--episodes: expected what fits into the room that is left at {tmp_path} (1 MB), got 192, which" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--evaluation.num_observed 3", "evaluation: num_neighbors: expected 1 to 3"),
        ("--data SavedEpisodes --data.directory shards", "evaluation: num_observed + num_predicted: expected at most"),
        (
            "--loss Trace_ELBO --loss.num_particles 100000000000",
            "loss.num_particles: expected a whole number from 1 to",
        ),
        ('--stages [{"steps":1,"num_observed":3,"num_predicted":2}]', "num_neighbors: expected 1 to 3"),
        ("--clip_norm 0", "clip_norm: expected a number over 0 or null, got 0"),
    ],
)
def test_what_cannot_be_evaluated_is_told_before_training(
    words: str, message: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    actions = torch.eye(5)[torch.arange(8 * 40).view(8, 40) % 5]
    save_shards(Episodes(torch.rand(8, 40, 3, 8, 8), actions, num_observed=24), "shards", shard_size=8)
    small = [*SMALL[:6], *SMALL[8:]]  # another source has no cuts_per_image
    assert message in fails("train", "image-navigation", "--out", "a", *small, *words.split())
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device")
def test_a_device_that_is_not_there(fails: Fails, run: Path, tmp_path: Path) -> None:
    for words in (["train", "image-navigation", "--out", str(tmp_path / "a")], ["evaluate", str(run)]):
        assert "device: expected one that this machine has" in fails(*words, "--device", "cuda")


def test_mistakes_with_a_run(fails: Fails, run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("up\nsideways\n")
    (tmp_path / "short.txt").write_text("up\n")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "text.png").write_text("no image")
    folder = str(run)
    for words, message in (
        (("generate", folder, "--steps", "x"), "--steps: expected a whole number of at least 1, got 'x'"),
        (("generate", folder, "--seed", "4294967296"), "--seed: expected a whole number from 0 to 4294967295"),
        (("generate", folder, "--steps", "9" * 5000), "--steps: expected a whole number of at least 1, got '999"),
        (("generate", folder, "--steps", "100000000000"), "steps: expected what fits into the memory of this machine"),
        (("generate", folder, "--num_observed", "100000000000"), "num_observed * steps: expected what fits into"),
        (("generate", folder, "--out", str(tmp_path)), f"--out: expected a file, {tmp_path} is a folder"),
        (("localise", folder, "--seed", "4294967296"), "--seed: expected a whole number from 0 to 4294967295"),
        (("localise", folder, "--num_episodes", "100000000000"), "num_episodes * steps: expected what fits into"),
        (("localise", folder, "--num_hypotheses", "100000000"), "--num_hypotheses: expected what fits into the memory"),
        (("diagnose", folder, "--draws", "100000000000"), "--draws: expected a whole number from 100 to 1000000"),
        (("diagnose", folder, "--simulations", "100000000000"), "--simulations: expected a whole number from 40 to"),
        (("evaluate", folder, "--evaluation.seed", "4294967296"), "evaluation.seed: expected a whole number from 0 to"),
        (
            ("evaluate", folder, "--evaluation.num_predicted", "100000000000"),
            "num_episodes * steps: expected what fits",
        ),
        (("generate", folder, "--split", "both"), "--split: expected train or test, got 'both'"),
        (("generate", folder, "--pixels", "int"), "pixels: expected uint8 or float32, got 'int'"),
        (("generate", folder, "--actions", str(tmp_path / "bad.txt")), "line 2: expected one of up, down, left"),
        (("generate", folder, "--actions", str(tmp_path / "none")), "expected a file of actions (No such file"),
        (("generate", folder, "--actions", str(tmp_path / "damaged.npz")), "expected a whole NPY or NPZ file"),
        (("generate", folder, "--actions", str(tmp_path / "short.txt"), "--steps", "2"), "at most the 1 actions of"),
        (("generate", folder, "--steps", "3", "--out", str(tmp_path / "bad.txt" / "a.npz")), "could not be written"),
        (("evaluate", folder, "--data.images", str(tmp_path)), "text.png"),
        (("train", "--resume", folder, "--steps", "5"), "--steps: a resumed run keeps its settings"),
    ):
        assert message in fails(*words)


def test_damaged_runs(fails: Fails, copied: Path) -> None:
    for path in (copied / "checkpoint").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    fails("evaluate", str(copied))
    (copied / "config.yaml").write_text("model: [")
    assert "not valid YAML" in fails("train", "--resume", str(copied))
    (copied / "config.yaml").unlink()
    assert "expected the config of a run" in fails("report", str(copied))


def test_a_run_of_another_model(fails: Fails, copied: Path) -> None:
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("gtm_pyro.transitions.WalledTranslation", "Other"))
    assert "model.transition: expected the import path of a class" in fails("evaluate", str(copied))
    config = yaml.safe_load(text)
    config["model"]["init_args"]["transition"]["init_args"]["hidden"] = [4]
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    for words in (["evaluate", str(copied)], ["train", "--resume", str(copied)]):
        assert "transition.gate_network" in fails(*words)


def test_debug_shows_where(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere", "--debug"]) == 2
    assert "Traceback" in capfd.readouterr().err
