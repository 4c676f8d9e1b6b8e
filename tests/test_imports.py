"""Imports go one way: models -> gtm_pyro <- guides; and importing costs little and fetches nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "gtm_pyro").rglob("*.py"))
PROGRAMS = sorted([*(ROOT / "models").rglob("*.py"), *(ROOT / "guides").rglob("*.py")])
# the command line names all classes; nothing else does
MAY_SEE_ALL = ("cli", "experiment")


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere, also inside functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def reaches(names: set[str], *packages: str) -> list[str]:
    return sorted(name for name in names for package in packages if f"{name}.".startswith(f"{package}."))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_library_knows_no_model_and_no_guide(path: Path) -> None:
    if path.relative_to(ROOT / "gtm_pyro").parts[0] not in MAY_SEE_ALL:
        assert reaches(imported(path), "gtm_pyro.models", "gtm_pyro.guides", "models", "guides") == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_models_and_guides_do_not_know_each_other(path: Path) -> None:
    other = "guides" if path.is_relative_to(ROOT / "models") else "models"
    assert reaches(imported(path), f"gtm_pyro.{other}", other) == []


def test_the_walk_finds_imports() -> None:
    """The two tests above could pass by finding nothing."""
    assert reaches(imported(ROOT / "models" / "gtm_sm.py"), "gtm_pyro")
    assert reaches({"gtm_pyro.models.GTMSM", "gtm_pyro.report.model_figures"}, "gtm_pyro.models") == [
        "gtm_pyro.models.GTMSM"
    ]


@pytest.mark.parametrize("name", ["models", "guides"])
def test_the_root_folders_are_no_packages_of_their_own(name: str) -> None:
    """``import models`` from the root would make a second copy of every class."""
    code = f"import {name}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"ImportError: expected the package to be imported as gtm_pyro.{name}, got {name}" in done.stderr


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom gtm_pyro.cli import main\nassert main(['--help']) == 0 and main(['train', '--help']) == 0\n"
        "heavy = {'torch', 'pyro', 'numpy', 'matplotlib', 'jsonargparse'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


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
