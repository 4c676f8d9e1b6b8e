"""The code of the how-to pages runs, top to bottom."""

from pathlib import Path

import pytest
from test_readme import blocks

PAGES = ["docs/write_your_own_guide.md", "docs/write_your_own_transition.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks(page, "python")
    assert len(code) >= 2
    names = {"__name__": "page"}
    for block in code:
        exec(compile(block, page, "exec"), names)
