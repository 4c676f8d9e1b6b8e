"""The code and the commands of the how-to pages run, top to bottom."""

import re
import sys
from pathlib import Path

import pytest
from page_cases import ROOT, blocks, commands, run

PAGES = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("write_your_own_*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
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
