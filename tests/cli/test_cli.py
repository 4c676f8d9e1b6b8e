"""Every documented command runs as documented, with small settings."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import xarray
import yaml
from command_cases import MY_GUIDE, SMALL, Fails
from PIL import Image

from gtm_pyro.cli import parser as cli
from gtm_pyro.cli.parser import main, make_parsers
from gtm_pyro.experiment.files import experiments
from gtm_pyro.experiment.schema import FIELDS

EVALUATION_KEYS = {
    "retrieval_accuracy", "retrieval_accuracy_last_32", "mse", "mse_visited", "mse_unvisited", "reconstruction_mse",
    "mean_frame_mse", "localisation_rmse", "localisation_rmse_similarity", "elbo", "iwae", "kl_per_step",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).resize((48, 40)).save(folder / f"{name}.png")
    return folder


def test_train_fills_the_run_folder(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed"] == 3 and config["data"]["init_args"]["walls"] is True and set(config) == set(FIELDS)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert (run / "checkpoint" / "step-00000006.safetensors").is_file()
    numbers = json.loads((run / "evaluation.json").read_text())
    assert numbers.keys() >= EVALUATION_KEYS and numbers["num_episodes"] == 3
    assert all(value is None or isinstance(value, int | float) for value in numbers.values())
    assert len(np.load(run / "evaluation_by_horizon.npz")["mse"]) == 36
    assert {"rollout.gif", "frames.png", "training.png"} <= {path.name for path in (run / "figures").iterdir()}
    assert "data:image/png;base64" in (run / "report.html").read_text()


def test_posterior_opens(run: Path) -> None:
    with xarray.open_datatree(run / "posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["s"].dims == ("chain", "draw", "episode", "step", "state")
        assert tree["posterior"]["s"].shape == (1, 2, 1, 60, 2)
        assert "x" in tree["observed_data"] and "x" in tree["posterior_predictive"]


def test_the_documented_training_command(photos: Path, tmp_path: Path, fails: Fails, no_report: None) -> None:
    """The fixed form, word for word; then the same again, which must be refused and change nothing."""
    words = (
        f"train image-navigation --seed 3 --steps 2 --checkpoint_every 200 --out {tmp_path / 'a'} --device cpu "
        f"--data.images {photos}"
    ).split()
    assert main([*words, *SMALL[:2], *SMALL[8:]]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert "this one is in use; to continue the run in it: gtm-pyro train --resume" in fails(*words)
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}


COMMANDS = make_parsers()[1]
HELP_LINES = [line.split("     ")[0].strip() for line in (COMMANDS["train"].epilog or "").splitlines()]


@pytest.mark.parametrize("line", [line for line in HELP_LINES if line.startswith("gtm-pyro train image-navigation")])
def test_every_example_in_the_help_trains(line: str, photos: Path, tmp_path: Path, no_report: None) -> None:
    (tmp_path / "my_guides.py").write_text(MY_GUIDE.replace("strength", "width"))
    sys.path.append(str(tmp_path))
    try:
        words = shlex.split(line.replace("~/photos", str(photos)))[1:] + ["--initialisation", "null"]
        small = [*SMALL[:2], "--steps", "2", "--data.cuts_per_image", "2", "--out", str(tmp_path / "out")]
        assert main([*words, *small]) == 0
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
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: gtm-pyro {command}")
    for name in COMMANDS[command].get_default("fields"):
        assert f"--{name} VALUE" in out
    assert re.search(rf"\n    {command}\s", make_parsers()[0].format_help())


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and main([]) == 2 and main(["--version"]) == 0
    assert capsys.readouterr().out == 2 * make_parsers()[0].format_help() + "gtm_pyro 0.1.0\n"


def test_options_may_come_in_any_order_and_form() -> None:
    words = "--seed=3 --data.images D --out O image-navigation --model.transition.scale=1e-2 --resume".split()
    arguments = cli._parse(make_parsers()[1]["train"], words)
    assert (arguments.experiment, arguments.out, arguments.resume) == ("image-navigation", "O", "")
    assert arguments.overrides == {"seed": "3", "data.images": "D", "model.transition.scale": "1e-2"}


def test_a_guide_of_ones_own_from_the_current_folder(
    tmp_path: Path, fails: Fails, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder outside the repository that holds the class, which is not on the path of modules."""
    (tmp_path / "own_guides.py").write_text(MY_GUIDE)
    words = "train image-navigation --guide own_guides.MyGuide --guide.strength 4 --initialisation null --out a".split()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "path", [*sys.path])
        assert main([*words, *SMALL]) == 0
    del sys.modules["own_guides"]
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert config["guide"] == {"class_path": "own_guides.MyGuide", "init_args": {"strength": 4.0}}
    # a run folder may be somebody else's; from elsewhere the class cannot be found, and the message says so
    for words, message in (
        ([], "a/config.yaml: names own_guides.MyGuide, which comes with neither gtm_pyro nor Pyro"),
        (["--trust"], "there is no module own_guides"),
        (["--guide", "own_guides.MyGuide"], "there is no module own_guides"),
    ):
        assert message in fails("evaluate", str(tmp_path / "a"), *words)
