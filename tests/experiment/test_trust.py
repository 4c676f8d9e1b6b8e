"""Classes of other packages that a run folder names are imported only if somebody says so."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_cases import Fails

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.trust import check_trusted, foreign_classes


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"model": {"class_path": "gtm_pyro.models.GTMSM", "init_args": {"keys": "gtm_pyro.memory.HeadingKeys"}}}, []),
        ({"loss": "pyro.infer.Trace_ELBO", "model": {"init_args": {"keys": {"class_path": "torch.nn.Identity"}}}}, []),
        ({"guide": "not_there.Guide"}, []),  # no module of that name: jsonargparse says so
        ({"guide": {"class_path": "not_there.Guide"}}, ["not_there.Guide"]),
        ({"model": {"init_args": {"keys": "os.system"}}}, ["os.system"]),
        ({"data": {"class_path": "gtm_pyro.tasks.SavedEpisodes", "init_args": {"directory": "walks.v2"}}}, []),
        ({"data": {"init_args": {"data": [{"class_path": "a.B"}]}}, "device": "os.system"}, ["a.B"]),
        ({"model": "{class_path: mine.Model}", "data": '"os.walk"'}, ["mine.Model", "os.walk"]),
        ({"data": {"class_path": "mine.No Name"}, "guide": "os.no name"}, ["mine.No Name", "os.no name"]),
        ({"evaluation": {"class_path": "mine.Settings"}, "stages": [{"class_path": "a.B"}]}, ["mine.Settings", "a.B"]),
        (
            {"initialisation": {"class_path": "torch.load"}, "auxiliary": "shutil.rmtree"},
            ["torch.load", "shutil.rmtree"],
        ),
    ],
)
def test_what_a_config_names(raw: dict[str, Any], found: list[str]) -> None:
    assert foreign_classes(raw) == found


def test_named_or_trusted_is_imported() -> None:
    raw = {"guide": {"class_path": "mine.Guide"}, "model": {"class_path": "mine.Model"}}
    check_trusted(Path("a"), raw, {}, trust=True)
    check_trusted(Path("a"), raw, {"guide": "mine.Guide", "model": "{class_path: mine.Model}"}, trust=False)
    for overrides in ({}, {"guide": "mine.Guide"}, {"guide": "mine.Guide", "data": "mine.Model2"}):
        with pytest.raises(ConfigError, match="^a: names mine.Model, .*add --trust"):
            check_trusted(Path("a"), {"model": raw["model"]}, overrides, trust=False)


def test_a_run_names_no_files_with_classes_in_them(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("[{class_path: mine.Stage}]")
    file = str(tmp_path / "more.yaml")
    for stages in (file, [file], [{"reading": file}]):
        with pytest.raises(ConfigError, match="^a: stages: expected them in this file, .*more.yaml"):
            check_trusted(Path("a"), {"stages": stages}, {}, trust=False)
    check_trusted(Path("a"), {"stages": [{"steps": 3, "reading": {"scored": "others"}}]}, {}, trust=False)


@pytest.mark.parametrize(
    "words", ["evaluate {}", "report {}", "train --resume {}", "train {}/config.yaml", "localise {}"]
)
def test_nothing_is_imported_from_somebody_elses_run(
    words: str, fails: Fails, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "somebodys.py").write_text("raise AssertionError('it ran')")
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["model"]["init_args"]["keys"] = "somebodys.Keys"
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    assert "names somebodys.Keys, which comes with neither gtm_pyro nor Pyro" in fails(*words.format(copied).split())
    assert "somebodys" not in sys.modules
