"""Imports go down the floors of the house and in no circle; and importing costs little and fetches nothing."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache', '--no-logo'])"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The package as it is installed, with ``models`` and ``guides`` inside, beside the contracts of its imports."""
    source = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gtm_pyro", tmp_path / "gtm_pyro", ignore=source)
    for name in ("models", "guides"):
        shutil.copytree(ROOT / name, tmp_path / "gtm_pyro" / name, ignore=source)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house: Path) -> tuple[bool, str]:
    """Whether every contract holds, and what is said."""
    done = subprocess.run([sys.executable, "-c", LINT], cwd=house, capture_output=True, text=True, timeout=120)
    return done.returncode == 0, done.stdout + done.stderr


def test_imports_go_down_the_floors(house: Path) -> None:
    kept, said = lint(house)
    assert kept, said


WRONG = [
    ("memory/keys.py", "from gtm_pyro.models import GTMSM", "gtm_pyro.memory.keys -> gtm_pyro.models"),
    ("models/gtm_sm.py", "from gtm_pyro import guides", "gtm_pyro.models.gtm_sm -> gtm_pyro.guides"),
    ("priors/query.py", "def f():\n    import gtm_pyro.paths.fused", "gtm_pyro.priors.query -> gtm_pyro.paths.fused"),
    ("errors.py", "if TYPE_CHECKING:\n    import gtm_pyro.poses.places", "gtm_pyro.errors -> gtm_pyro.poses.places"),
    ("storage/atomic.py", "import gtm_pyro.storage.checkpoints", "No cycles are allowed in gtm_pyro.storage."),
    ("testing/pair.py", "import gtm_pyro.cli.parser", "gtm_pyro.testing.pair -> gtm_pyro.cli.parser"),
    ("training/loop.py", "import gtm_pyro.testing", "gtm_pyro.training.loop -> gtm_pyro.testing"),
]


def test_imports_that_go_up_are_seen(house: Path) -> None:
    """Also inside functions and for types alone."""
    for file, line, _ in WRONG:
        path = house / "gtm_pyro" / file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    kept, said = lint(house)
    assert not kept
    for _, _, broken in WRONG:
        assert broken in " ".join(said.split()), said


def test_every_room_stands_on_a_floor() -> None:
    """What no contract names, no contract holds; and the top of the package can be read at a glance."""
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = " | ".join(contracts["contracts"][0]["layers"]).split(" | ")
    entries = {path.name for path in (ROOT / "gtm_pyro").iterdir() if path.name != "__pycache__"}
    assert len(entries) <= 24
    rooms = {entry.removesuffix(".py") for entry in entries} - {"__init__", "__init__.pyi", "py.typed", "tasks"}
    assert rooms | {"models", "guides"} == {layer for layer in layers if "." not in layer} | {"testing"}
    inside = {path.stem for path in (ROOT / "gtm_pyro" / "tasks").iterdir() if not path.name.startswith("__")}
    assert {layer.removeprefix("tasks.") for layer in layers if "." in layer} == {
        name for name in inside if not name.startswith("__")
    }


@pytest.mark.parametrize("name", ["models", "guides"])
def test_the_root_folders_are_no_packages_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``import models`` from the root would make a second copy of every class."""
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=f"expected the package to be imported as gtm_pyro.{name}, got {name}"):
        importlib.import_module(name)
    assert name not in sys.modules


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom gtm_pyro.cli import main\nassert main(['--help']) == 0 and main(['train', '--help']) == 0\n"
        "heavy = {'torch', 'pyro', 'numpy', 'matplotlib', 'jsonargparse'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_what_is_only_drawn_written_or_tested_is_loaded_later() -> None:
    """In one process, for each takes seconds; torch imports unittest by itself, no module of ours holds it."""
    code = """
import sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

import gtm_pyro.training.fitting
ours = {name: module for name, module in sys.modules.items() if name.startswith("gtm_pyro")}
assert "gtm_pyro.inference.checks" in ours
assert not [name for name in ours if name.startswith("gtm_pyro.testing")]
assert not [name for name, module in ours.items() if hasattr(module, "unittest")]
import gtm_pyro.diagnostics.posterior, gtm_pyro.diagnostics.figures, gtm_pyro.report.comparison
assert not loaded("arviz_base", "arviz_stats", "xarray", "scipy.stats", "matplotlib")
from gtm_pyro.report import figures, page
assert not loaded("matplotlib", "jinja2")
from gtm_pyro.evaluation.style import canvas
figure, _ = canvas(1, 1, (2, 2))
figure.savefig("/dev/null", format="png")
assert not loaded("matplotlib.pyplot")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_needs_no_network_and_writes_nothing(tmp_path: Path) -> None:
    """Every module is imported in an empty folder with the network refused."""
    code = """
import importlib, pkgutil, socket
def refuse(*args, **keywords):
    raise AssertionError(f"a connection was tried: {args}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import gtm_pyro
for module in pkgutil.walk_packages(gtm_pyro.__path__, "gtm_pyro."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    environment = {"HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "mpl"), "PATH": ""}
    place = tmp_path / "empty"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == []


def test_only_tasks_name_tasks() -> None:
    """Nothing else knows a labyrinth or image navigation, but the public names and where classes used to be."""
    files = {path for name in ("gtm_pyro", "models", "guides") for path in (ROOT / name).rglob("*.*")}
    files -= {*(ROOT / "gtm_pyro" / "tasks").rglob("*"), ROOT / "gtm_pyro" / "__init__.pyi"}
    found = []
    for path in sorted(files - {ROOT / "gtm_pyro" / "storage" / "moved.py"}):
        if path.suffix in (".py", ".pyi", ".j2"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.search("labyrinth|image.?navigation", line, re.IGNORECASE):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
