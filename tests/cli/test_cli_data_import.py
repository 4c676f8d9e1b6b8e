"""gtm-pyro data import: what a source is, what is done twice, and the way from an import to a trained run."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from command_cases import Fails
from recording_cases import film, hdf5, npz, rows

from gtm_pyro.cli.parser import main, make_parsers
from gtm_pyro.tasks import SavedEpisodes


def run(*words: object) -> None:
    assert main(["data", "import", *map(str, words)]) == 0


def test_a_folder_of_files_and_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "maze", tmp_path / "some where"
    source.mkdir()
    npz(source / "a.npz", [12, 9])
    npz(source / "b.npz", [11])
    run(source, "--size", "3x4", "--out", out)
    written, bar = capfd.readouterr()
    assert f"3 episodes: {out}\n" in written and "3/3" in bar
    words = shlex.split(written.splitlines()[-1].partition("use them: ")[2])
    assert words == ["gtm-pyro", "train", "own-episodes", "--data.directory", str(out)]
    assert SavedEpisodes(str(out)).frame_shape == (3, 3, 4)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    run(source, "--size", "3x4", "--out", out)
    assert "they are there already" in capfd.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    np.savez(source / "c.npz", **dict(np.load(source / "b.npz")))
    assert main(["data", "import", str(source), "--size", "3x4", "--out", str(out)]) == 2
    assert "expected another folder, for this one holds an import with files" in capfd.readouterr().err


def test_other_kinds_show_by_their_names(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.h5", [12, 9])
    run(tmp_path / "a.h5", "--out", tmp_path / "h5")
    film(tmp_path / "v.mkv", np.zeros((5, 16, 24, 3), np.uint8), np.arange(5) / 10)
    rows(tmp_path / "log.csv", {"action": ["a", "b", "c", "a", "b"]})
    run(tmp_path / "v.mkv", "--actions", tmp_path / "log.csv", "--crop", "square", "--size", 8, "--out", tmp_path / "v")
    assert SavedEpisodes(str(tmp_path / "v")).frame_shape == (3, 8, 8)
    words = ["--out", tmp_path / "g", "--episodes", 2, "--steps", 5, "--only", "2,0", "--size", "28"]
    pytest.importorskip("minigrid")
    view = ["minigrid.wrappers.RGBImgObsWrapper(tile_size=2)", "minigrid.wrappers.ImgObsWrapper"]
    run("MiniGrid-Empty-5x5-v0", *words, *(word for name in view for word in ("--wrapper", name)))
    data = SavedEpisodes(str(tmp_path / "g"))
    assert (data.frame_shape, data.num_actions) == ((3, 28, 28), 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "data import: expected a Gymnasium id, a file, a folder or a Minari data set, got none"),
        ("a.npz", "--out: expected a folder for the shards, got none"),
        ("a.npz --out b", "a.npz: expected a file, there is nothing"),
        ("nothing --out b", "nothing: expected a Gymnasium id (MiniGrid-FourRooms-v0), an NPZ or HDF5 file"),
        (". --out b", ".: expected a folder of NPZ files, of videos or of a Minari data set, got none of them"),
        ("MiniGrid-FuorRooms-v0 --out b", "MiniGrid-FuorRooms-v0: could not be made"),
        ("x.hdf5 --kind hdf --out b", "--kind: expected one of gymnasium, npz, hdf5, minari, video, got hdf"),
        ("x.hdf5 --kind hdf5 --out b", "x.hdf5: expected an HDF5 file"),
        ("x.npz --kind npz --steps 4 --out b", "--steps: expected for gymnasium only, got it for npz"),
        ("MiniGrid-Empty-5x5-v0 --led --out b", "--led: expected for video only, got it for gymnasium"),
        ("CartPole-v1 --policy Mine --out b", "--policy: expected the import path of a class, module.Class, got Mine"),
        ("CartPole-v1 --policy a.B(3) --out b", "--policy: expected module.Class or module.Class(name=value)"),
        ("CartPole-v1 --policy nowhere.B --out b", "--policy: cannot import nowhere.B"),
        ("CartPole-v1 --size 3x4x5 --out b", "--size: expected a side, or HEIGHTxWIDTH, got 3x4x5"),
        ("CartPole-v1 --crop round --out b", "crop: expected square, or a top"),
        ("CartPole-v1 --steps 1 --out b", "--steps: expected a whole number of at least 2, got '1'"),
    ],
)  # fmt: skip
def test_mistakes(words: str, message: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails("data", "import", *words.split())
    assert list(tmp_path.iterdir()) == []


def test_the_examples_in_the_help_are_commands() -> None:
    parser = make_parsers()[1]["data import"]
    lines = [line.strip() for line in (parser.epilog or "").splitlines() if line.strip().startswith("gtm-pyro data")]
    assert len(lines) == 5
    for line in lines:
        assert parser.parse_args(line.split()[3:]).out
