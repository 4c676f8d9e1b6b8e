"""The code and the commands of the how-to pages run, top to bottom."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from page_cases import ROOT, blocks, commands, run

from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.tasks.general.words import PLACES

PAGES = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("write_your_own_*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    code = blocks(page, "python")
    assert len(code) >= 2
    names = {"__name__": "page"}
    for block in code:
        exec(compile(block, page, "exec"), names)

    (module,) = set(re.findall(r"`(my_\w+)\.py`", (ROOT / page).read_text(encoding="utf-8")))
    (tmp_path / f"{module}.py").write_text(code[0], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, module, raising=False)
    lines = commands(page)
    assert lines and lines[0].startswith("gtm-pyro train ")
    for line in lines:
        run(line)
    assert list(tmp_path.glob("runs/*/report.html"))


def test_no_command_hides_in_the_text() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "gtm-pyro " not in text and "--" not in text, page


def test_the_page_of_rooms_names_every_room_and_no_file_that_is_gone() -> None:
    table, _, way = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8").partition("## The way")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    floor = {room: number for number, layer in enumerate(layers) for room in layer.split(" | ")}
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    told = [name.removesuffix(".py").replace("/", ".") for row in rows for name in re.findall(r"`([\w./]+)`", row)]
    assert {*told} == floor.keys() - {"tasks.help"}
    assert [floor[room] for room in told] == sorted(floor[room] for room in told)
    for name in re.findall(r"`((?:gtm_pyro|models|guides)/[\w./]*)`", way):
        assert (ROOT / name).exists(), name


def test_the_page_of_measures_describes_each_as_the_library_does() -> None:
    page = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    told = {name.strip("`"): words for name, *words in rows}
    for measure in MEASURES:
        label, meaning = (text.format_map(PLACES) for text in (measure.label, measure.meaning))
        unit = f" ({measure.unit})" if measure.unit else ""
        assert told.pop(measure.name) == [label + unit, meaning, measure.better, ", ".join(measure.needs)]
    assert not told
