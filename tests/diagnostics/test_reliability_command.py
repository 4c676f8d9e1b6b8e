"""gtm-pyro diagnose on a small run: what it writes, keeps, and refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import xarray
from command_cases import Fails

from gtm_pyro.cli import main
from gtm_pyro.diagnostics import CHECKS
from gtm_pyro.diagnostics.advice import PREFIXES
from gtm_pyro.diagnostics.posterior import read_groups
from gtm_pyro.episodes import Episodes, save_shards

FEW = ("--draws", "100", "--simulations", "40")


@pytest.fixture(scope="module")
def diagnosed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run with a diagnosis; tests copy it before they change it."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("diagnosed") / "first"))
    assert main(["diagnose", str(folder), *FEW]) == 0
    return folder


@pytest.fixture
def copied(diagnosed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(diagnosed, tmp_path / "copied"))


def numbers(folder: Path) -> dict[str, float | None]:
    return json.loads((folder / "evaluation.json").read_text())


def test_a_diagnosis_is_added_to_the_run(run: Path, diagnosed: Path) -> None:
    before, after = numbers(run), numbers(diagnosed)
    assert after.items() >= before.items()
    added = after.keys() - before.keys()
    for prefix in PREFIXES.values():
        assert any(name.startswith(f"{prefix}_") for name in added)
    assert {"khat_median", "khat_share_above_0.7", "coverage_50", "coverage_90", "coverage_90_predicted"} <= added
    assert {"pit_ks_p", "sbc_p_min", "interval_width_visited", "interval_coverage_unvisited"} <= added
    assert after["diagnosed_step"] == 6 and all(isinstance(after[name], int | float | None) for name in added)
    assert {f"{check}.png" for check in CHECKS} <= {path.name for path in (diagnosed / "figures").iterdir()}
    text = (diagnosed / "report.html").read_text()
    assert "<h2>Diagnostics</h2>" in text and "k-hat " in text and "90% regions hold the true position" in text
    assert text.count("data:image/png") == 6 + (run / "report.html").read_text().count("image/png")


def test_the_posterior_keeps_its_groups(run: Path, diagnosed: Path) -> None:
    with (
        xarray.open_datatree(run / "posterior.nc", engine="h5netcdf") as old,
        xarray.open_datatree(diagnosed / "posterior.nc", engine="h5netcdf") as new,
    ):
        for name in old.children:
            xarray.testing.assert_identical(old[name].to_dataset().load(), new[name].to_dataset().load())
        found = new["diagnostics"]
        assert set(found.children) == set(CHECKS)
        assert dict(found["khat"].sizes) == {"episode": 3, "draw": 100}
        assert found["coverage"]["credible_level"].dims == ("episode", "step")
        assert "log_joint" in found["sbc"]["quantity"].values and found["sbc"]["rank"].sizes["simulation"] == 40
        assert found["khat"].attrs["advice"].startswith("k-hat")


def test_checks_add_up_and_outlive_a_new_report(copied: Path, run: Path, diagnosed: Path) -> None:
    shutil.copy(run / "evaluation.json", copied)
    shutil.copy(run / "posterior.nc", copied)
    for check in ("coverage", "unseen"):
        assert main(["diagnose", str(copied), "--checks", check, *FEW]) == 0
    assert main(["report", str(copied)]) == 0 and main(["evaluate", str(copied)]) == 0
    after = numbers(copied)
    assert "coverage_90" in after and "interval_width_ratio" in after and "khat_median" not in after
    # one check alone draws as among all others
    assert after["coverage_90"] == numbers(diagnosed)["coverage_90"]
    assert set(read_groups(copied / "posterior.nc", "diagnostics")) == {"diagnostics/coverage", "diagnostics/unseen"}


def test_a_diagnosis_of_other_parameters_is_dropped(copied: Path) -> None:
    stale = numbers(copied) | {"diagnosed_step": 1}
    (copied / "evaluation.json").write_text(json.dumps(stale))
    assert main(["diagnose", str(copied), "--checks", "coverage", *FEW]) == 0
    after = numbers(copied)
    assert after["diagnosed_step"] == 6 and "coverage_90" in after and "khat_median" not in after
    assert set(read_groups(copied / "posterior.nc", "diagnostics")) == {"diagnostics/coverage"}


def test_the_report_does_not_advise_the_run_s_own_guide(copied: Path) -> None:
    poor = {"khat_median": 1.2, "khat_max": 2.0, "khat_share_above_0.7": 1.0}
    (copied / "evaluation.json").write_text(json.dumps(numbers(copied) | poor))
    config = (copied / "config.yaml").read_text()
    for guide, advised in (("DeadReckoning", "try LandmarkCorrected or Smoothing"), ("Smoothing", "try ParticleGuide")):
        (copied / "config.yaml").write_text(config.replace("gtm_pyro.guides.DeadReckoning", f"gtm_pyro.guides.{guide}"))
        assert main(["report", str(copied)]) == 0
        text = (copied / "report.html").read_text()
        assert advised in text and "an alarm in at most 1% of the cases" in text
    assert "try Smoothing" not in text


def test_another_guide_leaves_the_run_alone(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    words = ["diagnose", str(copied), "--checks", "coverage", "--guide", "DeadReckoning", *FEW]
    assert main(words) == 0
    assert "coverage: 90% regions" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "other")]) == 0
    assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert "coverage_90" in numbers(tmp_path / "other") and (tmp_path / "other/figures/coverage.png").is_file()
    assert set(read_groups(tmp_path / "other/posterior.nc", "diagnostics")) == {"diagnostics/coverage"}


def test_a_run_without_truth(copied: Path, tmp_path: Path, fails: Fails, capfd: pytest.CaptureFixture[str]) -> None:
    actions = torch.eye(5)[torch.arange(8 * 60).view(8, 60) % 5]
    save_shards(Episodes(torch.rand(8, 60, 3, 8, 8), actions, num_observed=24), tmp_path / "shards")
    data = ["--data", "SavedEpisodes", "--data.directory", str(tmp_path / "shards")]
    message = "poses: expected true poses in the data for coverage, this data has none"
    assert message in fails("diagnose", str(copied), "--checks", "coverage", *data)
    assert main(["diagnose", str(copied), *data, *FEW]) == 0
    out = capfd.readouterr().out
    assert f"coverage: {message}" in out and "khat: k-hat" in out and "sbc: " in out


def test_mistakes_of_diagnose(run: Path, fails: Fails) -> None:
    for words, message in (
        (("diagnose",), "expected a run folder, got none; usage: gtm-pyro diagnose DIR"),
        (("diagnose", "nowhere"), "nowhere: expected a run folder, there is nothing"),
        (("diagnose", str(run), "--checks", "khat,coverge"), "got 'coverge'; did you mean coverage?"),
        (("diagnose", str(run), "--draws", "3"), "--draws: expected a whole number from 100 to 1000000, got '3'"),
        (("diagnose", str(run), "--model.x", "3"), "--model.x: no such option"),
        (("diagnose", str(run), "--guide", "Nope"), "guide: expected"),
    ):
        assert message in fails(*words)
