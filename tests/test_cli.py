"""Every documented command runs as documented, with small settings; every mistake is one line and exit status 2."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import xarray
import yaml
from PIL import Image

from gtm_pyro import cli
from gtm_pyro.cli import main, make_parsers
from gtm_pyro.config import FIELDS, experiments
from gtm_pyro.episodes import Episodes, save_shards

SMALL = (
    "--stages", "[{steps: 4, batch_size: 8, num_observed: 12, num_predicted: 4}, "
    "{steps: 2, batch_size: 8, num_observed: 16, num_predicted: 4}]",
    "--checkpoint_every", "2", "--log_every", "1", "--data.cuts_per_image", "4",
    "--evaluation.num_episodes", "2", "--evaluation.num_observed", "24", "--evaluation.num_predicted", "36",
    "--evaluation.posterior_episodes", "1", "--evaluation.posterior_samples", "2",
)  # fmt: skip

MY_GUIDE = '''
from gtm_pyro.guides import DeadReckoning

class MyGuide(DeadReckoning):
    """Dead reckoning with an argument of its own."""
    def __init__(self, model, strength: float = 1.0) -> None:
        super().__init__(model)
        self.strength = strength
'''

EVALUATION_KEYS = {
    "retrieval_accuracy", "retrieval_accuracy_last_32", "mse", "mse_visited", "mse_unvisited", "reconstruction_mse",
    "mean_frame_mse", "localisation_rmse", "localisation_rmse_similarity", "elbo", "iwae", "kl_per_step",
}  # fmt: skip

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).resize((48, 40)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "image-navigation", "--out", str(out), "--seed", "3", *SMALL]) == 0
    return out


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of training alone: the evaluation and the report take most of the time of a small run."""
    from gtm_pyro import commands

    monkeypatch.setattr(commands, "_finish", lambda *_: None)


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail: exit status 2, nothing on stdout, one line on stderr, which is returned."""

    def call(*words: str) -> str:
        capfd.readouterr()
        assert main(words) == cli.BAD_INPUT
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("gtm-pyro: error: "), err
        return err

    return call


def test_train_fills_the_run_folder(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed"] == 3 and config["data"]["init_args"]["walls"] is True and set(config) == set(FIELDS)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert (run / "checkpoint" / "step-00000006.safetensors").is_file()
    numbers = json.loads((run / "evaluation.json").read_text())
    assert numbers.keys() >= EVALUATION_KEYS and numbers["num_episodes"] == 2
    assert all(value is None or isinstance(value, int | float) for value in numbers.values())
    assert len(np.load(run / "evaluation_by_horizon.npz")["mse"]) == 36
    assert {"rollout.gif", "frames.png", "training.png"} <= {path.name for path in (run / "figures").iterdir()}
    assert "data:image/png;base64" in (run / "report.html").read_text()


def test_posterior_opens(run: Path) -> None:
    with xarray.open_datatree(run / "posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["s"].dims == ("sample", "episode", "step", "state")
        assert tree["posterior"]["s"].shape == (2, 1, 60, 2)
        assert "x" in tree["observed_data"] and "x" in tree["posterior_predictive"]


def test_the_documented_training_command(photos: Path, tmp_path: Path, fails: Fails) -> None:
    """The fixed form, word for word; then the same again, which must be refused and change nothing."""
    words = (
        f"train image-navigation --seed 3 --steps 2 --checkpoint_every 200 --out {tmp_path / 'a'} --device cpu "
        f"--data.images {photos}"
    ).split()
    assert main([*words, *SMALL[:2], *SMALL[8:]]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert "this one is in use; gtm-pyro train --resume" in fails(*words)
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}


COMMANDS = make_parsers()[1]
HELP_LINES = [line.split("     ")[0].strip() for line in (COMMANDS["train"].epilog or "").splitlines()]


@pytest.mark.parametrize("line", [line for line in HELP_LINES if line.startswith("gtm-pyro train image-navigation")])
def test_every_example_in_the_help_trains(line: str, photos: Path, tmp_path: Path, no_report: None) -> None:
    (tmp_path / "my_guides.py").write_text(MY_GUIDE.replace("strength", "width"))
    sys.path.append(str(tmp_path))
    try:
        words = shlex.split(line.replace("~/photos", str(photos)))[1:]
        assert main([*words, "--steps", "2", "--data.cuts_per_image", "2", "--out", str(tmp_path / "out")]) == 0
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("my_guides", None)


def test_evaluate_writes_the_same_numbers_again(copied: Path) -> None:
    expected = (copied / "evaluation.json").read_text()
    (copied / "evaluation.json").unlink()
    assert main(["evaluate", str(copied)]) == 0
    assert (copied / "evaluation.json").read_text() == expected


def test_evaluate_on_images_of_ones_own(run: Path, photos: Path, tmp_path: Path) -> None:
    """All images of the folder are held out, even a single one; the run's own numbers stay as they were."""
    own = (run / "evaluation.json").read_bytes()
    out = tmp_path / "deep" / "numbers.json"
    assert main(["evaluate", str(run), "--data.images", str(photos), "--out", str(out)]) == 0
    assert json.loads(out.read_text()).keys() == json.loads(own).keys()
    single = tmp_path / "single"
    single.mkdir()
    shutil.copy(photos / "coffee.png", single)
    assert main(["evaluate", str(run), "--data.images", str(single)]) == 0
    assert (run / "evaluation.json").read_bytes() == own


def test_generate_a_random_walk(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "walk.npz"
    assert main(["generate", str(run), "--steps", "2500", "--out", str(out)]) == 0
    assert "the right memory was read in" in capsys.readouterr().out
    with np.load(out) as arrays:
        assert arrays["frames"].shape == (2500, 3, 8, 8) and arrays["frames"].dtype == np.uint8
        assert arrays["true_frames"].shape == (2500, 3, 8, 8) and arrays["poses"].shape == (2500, 2)
        assert arrays["states"].shape == (2500, 2) and arrays["actions"].shape == (2500, 5)
        assert arrays["observed_frames"].shape == (24, 3, 8, 8)
        # three chunks: the true walk goes on where the last chunk ended, one cell at most a step
        poses = np.concatenate([arrays["observed_poses"], arrays["poses"]])
        assert np.abs(np.diff(poses, axis=0)).sum(1).max() <= 1
        # what was retrieved was written where the walker stands
        good = arrays["visited"] & arrays["retrieved"]
        assert good.any()
        assert np.array_equal(arrays["observed_poses"][arrays["entries"][good]], arrays["poses"][good])


def test_generate_follows_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "actions.txt").write_text("up\nup\nleft\n4\n")
    vectors = np.eye(5)[[0, 0, 2, 4]]
    np.savez(tmp_path / "actions.npz", actions=vectors)
    np.save(tmp_path / "actions.npy", np.array([0, 0, 2, 4]))
    results = []
    for name in ("actions.txt", "actions.npz", "actions.npy"):
        words = ["generate", str(run), "--actions", str(tmp_path / name), "--out", str(tmp_path / "out.npz")]
        assert main([*words, "--pixels", "float32", "--num_observed", "30", "--split", "train", "--seed", "1"]) == 0
        with np.load(tmp_path / "out.npz") as arrays:
            assert np.array_equal(arrays["actions"], vectors) and arrays["frames"].dtype == np.float32
            assert len(arrays["observed_frames"]) == 30
            results.append(arrays["frames"])
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_report_draws_everything_again(copied: Path) -> None:
    shutil.rmtree(copied / "figures")
    (copied / "report.html").unlink()
    assert main(["report", str(copied)]) == 0
    assert (copied / "report.html").is_file() and (copied / "figures" / "rollout.gif").is_file()


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    expected = ["GTMSM", "DeadReckoning", "ImageNavigation", "WalledTranslation", "MixturePrior", "Trace_ELBO"]
    for name in [*experiments(), *expected]:
        assert name in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: gtm-pyro {command}")
    for name in COMMANDS[command].get_default("fields"):
        assert f"--{name} VALUE" in out
    assert f"\n    {command} " in make_parsers()[0].format_help()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and main([]) == 2 and main(["--version"]) == 0
    assert capsys.readouterr().out == 2 * make_parsers()[0].format_help() + "gtm_pyro 0.1.0\n"


def test_options_may_come_in_any_order_and_form() -> None:
    words = "--seed=3 --data.images D --out O image-navigation --model.transition.scale=1e-2 --resume".split()
    arguments = cli._parse(make_parsers()[1]["train"], words)
    assert (arguments.experiment, arguments.out, arguments.resume) == ("image-navigation", "O", "")
    assert arguments.overrides == {"seed": "3", "data.images": "D", "model.transition.scale": "1e-2"}


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


def test_a_guide_of_ones_own_from_the_current_folder(tmp_path: Path) -> None:
    """The installed command, in a folder outside the repository that holds the class."""
    (tmp_path / "own_guides.py").write_text(MY_GUIDE)
    script = Path(sys.executable).with_name("gtm-pyro")
    words = "train image-navigation --guide own_guides.MyGuide --guide.strength 4 --out a".split() + [*SMALL]
    subprocess.run([script, *words], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert config["guide"] == {"class_path": "own_guides.MyGuide", "init_args": {"strength": 4.0}}
    # from elsewhere the class cannot be found, and the message says so
    elsewhere = [script, "evaluate", tmp_path / "a"]
    done = subprocess.run(elsewhere, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "there is no module own_guides" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_tells_how_to_go_on(tmp_path: Path, signum: int, status: int) -> None:
    """A real signal in the middle of a training too long to end by itself; then resumed from its checkpoint."""
    out = tmp_path / "a"
    stages = "[{steps: 100000, batch_size: 8, num_observed: 12, num_predicted: 4}]"
    words = [Path(sys.executable).with_name("gtm-pyro"), "train", "image-navigation", "--out", out, *SMALL]
    process = subprocess.Popen([*words, "--stages", stages], stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        deadline = time.monotonic() + 60
        while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
            assert time.monotonic() < deadline and process.poll() is None, "no step was taken"
            time.sleep(0.05)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status, err
    last = err.splitlines()[-1]
    step = int(last.partition("stopped at step ")[2].partition(";")[0])
    assert f"gtm-pyro train --resume {out}" in last
    assert (out / "checkpoint" / f"step-{step:08d}.safetensors").is_file()


def test_being_stopped_after_training_tells_how_to_go_on(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gtm_pyro import commands

    monkeypatch.setattr(commands, "_evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    assert main(["train", "--resume", str(copied)]) == 143
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"gtm-pyro: stopped; the training is complete, gtm-pyro train --resume {copied} makes the report"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "trian",
            "trian: expected one of train, evaluate, diagnose, localise, compare, generate, report, list; did you mean train?",
        ),
        ("train", "experiment: expected image-navigation"),
        ("train image-navigaton", "did you mean image-navigation?"),
        ("train image-navigation extra", "extra: not expected here"),
        ("train image-navigation --stepz 3", "--stepz: no such option; did you mean --steps?"),
        ("train image-navigation --steps", "--steps: expected a value"),
        ("train image-navigation --steps x", "steps: expected a whole number over 0"),
        ("train image-navigation --num_threads 0", "num_threads: expected a whole number over 0"),
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


BLIND_GUIDE = '''
from torch import nn
from gtm_pyro.guides import DeadReckoning

class BlindGuide(nn.Module):
    """Trains well, but says nothing about where the agent is."""
    def __init__(self, model) -> None:
        super().__init__()
        self.other = DeadReckoning(model)
    def forward(self, episodes, reading=None) -> None:
        self.other(episodes, reading)
'''


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--evaluation.num_observed 3", "evaluation: num_neighbors: expected 1 to 3"),
        ("--data SavedEpisodes --data.directory shards", "evaluation: num_observed + num_predicted: expected at most"),
        ("--guide blind_guides.BlindGuide", "guide: evaluation needs path, which BlindGuide does not have"),
    ],
)
def test_what_cannot_be_evaluated_is_told_before_training(
    words: str, message: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "blind_guides.py").write_text(BLIND_GUIDE)
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
