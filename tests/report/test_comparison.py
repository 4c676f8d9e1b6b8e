"""gtm-pyro compare: the table and the figure of runs that differ."""

import csv
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_cases import Fails

from gtm_pyro.cli import main
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import read_experiment
from gtm_pyro.report.comparison import compare


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two guides and two seeds by hand; the last run was never evaluated."""
    root = tmp_path_factory.mktemp("runs")
    text = resolve(read_experiment("image-navigation")).yaml()
    runs = (("DeadReckoning", 0, 2.0), ("DeadReckoning", 1, 3.0), ("my.Own", 0, 0.5), ("my.Own", 1, None))
    for guide, seed, khat in runs:
        folder = root / f"{guide}-{seed}"
        folder.mkdir()
        config = text.replace("\nseed: 0", f"\nseed: {seed}").replace("gtm_pyro.guides.DeadReckoning", guide)
        (folder / "config.yaml").write_text(config)
        (folder / "metrics.jsonl").write_text('{"step": 2, "seconds": 90}\n')
        if khat is not None:
            content = {
                "elbo": 10.0 * seed,
                "iwae": 11.0,
                "localisation_rmse": None if khat == 2 else 0.1,
                "retrieval_accuracy": 1.0,
            }
            content |= {"khat_median": khat, "khat_share_above_0.7": 0.5}
            (folder / "evaluation.json").write_text(json.dumps(content))
    return [str(root / f"{guide}-{seed}") for guide, seed, _ in runs]


def test_compare_shows_what_differs(
    several: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *several]) == 0
    out = capsys.readouterr().out.splitlines()
    head = out[0].split()
    assert head[:4] == ["run", "guide", "seed", "ELBO"] and head[-1] == "minutes" and "retrieval" in head
    assert [line.split()[1:3] for line in out[1:5]] == [
        ["DeadReckoning", "0"], ["DeadReckoning", "1"], ["Own", "0"], ["Own", "1"],
    ]  # fmt: skip
    cells = out[4].split()
    assert cells[3:] == ["-", "-", "-", "-", "-", "-", "1.5"]
    assert out[1].split()[head.index("localisation")] == "none", "a null is no lack that a command could end"
    assert out[5] == "none: not defined for this run"
    assert out[6] == f"-: not known yet: gtm-pyro diagnose {several[3]}"
    assert out[7] == f"-: not known yet: gtm-pyro report {several[3]}"
    assert out[8] == "written: compare.png" and (tmp_path / "compare.png").read_bytes()[1:4] == b"PNG"


def test_compare_writes_what_the_suffix_says(several: list[str], tmp_path: Path) -> None:
    assert main(["compare", *several, "--out", str(tmp_path / "a.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["khat_median"] for row in rows] == ["2.0", "3.0", "0.5", ""] and rows[2]["guide"] == "Own"
    assert (tmp_path / "a.png").is_file()
    assert main(["compare", *several, "--out", str(tmp_path / "b.json")]) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert content[1]["settings"] == {"guide": "DeadReckoning", "seed": "1"} and content[1]["numbers"]["elbo"] == 10
    assert main(["compare", *several, "--out", str(tmp_path / "c.html")]) == 0
    page = (tmp_path / "c.html").read_text()
    assert "data:image/png;base64" in page and "gtm-pyro diagnose" in page and "http" not in page
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.png", "b.json", "b.png", "c.html"}


def test_seeds_share_a_row_of_the_figure(several: list[str], tmp_path: Path) -> None:
    comparison = compare(several)
    assert comparison.groups() == {"DeadReckoning": [0, 1], "Own": [2, 3]}
    axes = [ax for ax in comparison.figure().axes if ax.get_title().startswith("k-hat\n")]
    dots, mean, alone = (np.asarray(line.get_xdata()).tolist() for line in axes[0].lines)
    assert (dots, mean, alone) == ([2.0, 3.0], [2.5], [0.5])
    copy = shutil.copytree(several[0], tmp_path / "copy")
    assert compare([several[0], copy]).groups() == {several[0]: [0], str(copy): [1]}
    assert compare([several[0], several[1]]).groups() == {"all seeds": [0, 1]}


def test_a_run_that_is_given_twice_counts_once(several: list[str]) -> None:
    first, second = several[:2]
    assert compare([first, second, os.path.join(first, "."), second]).runs == (first, second)


def test_runs_of_different_tasks_fit_on_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for name in ("image-navigation", "labyrinth-walk"):
        folder = tmp_path / f"the {name}"
        folder.mkdir()
        (folder / "config.yaml").write_text(resolve(read_experiment(name)).yaml(), encoding="utf-8")
        runs.append(str(folder))
    navigated = {"elbo": 1.0, "iwae": 2.0, "localisation_rmse": 0.1, "retrieval_accuracy": 1.0, "coverage_90": 0.9}
    walked = navigated | {"localisation_rmse": None} | dict.fromkeys(("khat_median", "khat_share_above_0.7"), 0.1)
    walked.pop("coverage_90")
    for run, numbers in zip(runs, (navigated, walked), strict=True):
        (Path(run) / "evaluation.json").write_text(json.dumps(numbers))
    comparison = compare(runs)
    head, *rows = comparison.rows()
    assert len(head) < 20 and head[:2] == ["run", "data"] and "model.transition" in head
    assert len(comparison.settings) > 50, "none is lost where there is room"
    cells = dict(zip(head, rows[1], strict=True))
    assert cells["localisation"] == cells["coverage 90%"] == "none", "no positions, no coverage of them"
    assert list(comparison.groups().values()) == [[0], [1]]
    assert main(["compare", *runs, "--out", str(tmp_path / "all.csv")]) == 0
    hints = [line for line in capsys.readouterr().out.splitlines() if line.startswith("-: ")]
    commands = [shlex.split(hint.partition("gtm-pyro ")[2]) for hint in hints]
    assert commands == [["diagnose", runs[0]], ["train", "--resume", runs[0]]]
    assert (tmp_path / "all.csv").read_text().count("\n") == 3


def test_mistakes_of_compare(several: list[str], tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, message in (
        ((), "DIR: expected two run folders or more, got 0"),
        (several[:1], "DIR: expected two run folders or more, got 1"),
        ((several[0], f"{several[0]}/../{Path(several[0]).name}"), f"or more, got {several[0]} 2 times"),
        ((several[0], ""), "DIR: expected the name of a run folder, got ''"),
        ((*several, "--out", ""), "--out: expected a name, got ''"),
        ((several[0], "nowhere"), "nowhere: expected a run folder, there is nothing"),
        ((*several, "--out", "a.pdf"), "--out: expected a file that ends in .html, .png, .csv or .json, got 'a.pdf'"),
        ((*several, "--seed", "1"), "--seed: no such option"),
    ):
        assert message in fails("compare", *words)
    assert list(tmp_path.iterdir()) == []
