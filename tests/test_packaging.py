"""What is installed is what is in the tree, and the metadata is whole."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

import gtm_pyro

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


def test_packages_equal_the_disk() -> None:
    """A subpackage that is not listed imports in editable mode and is missing from the wheel."""
    mapped = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}
    found = set()
    for folder in ("gtm_pyro", *mapped):
        for module in (ROOT / folder).rglob("*.py"):
            parts = module.parent.relative_to(ROOT).as_posix()
            top = parts.partition("/")[0]
            found.add(parts.replace(top, mapped.get(top, top), 1).replace("/", "."))
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)


def test_every_data_file_is_packaged() -> None:
    """Files of the packages that are no Python must match a pattern of package-data."""
    folders = {package: SETUPTOOLS["package-dir"].get(package, package.replace(".", "/")) for package in
               SETUPTOOLS["packages"]}  # fmt: skip
    packaged = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / folders[package]).glob(pattern)
    }
    assert packaged
    for folder in folders.values():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__":
                assert path in packaged, f"{path} is in no pattern of package-data"


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert gtm_pyro.__version__ == PYPROJECT["project"]["version"] == citation["version"]
    assert citation["license"] == PYPROJECT["project"]["license"] == "Apache-2.0"


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text and "The gtm_pyro developers" in text


def test_console_script() -> None:
    (script,) = entry_points(group="console_scripts", name="gtm-pyro")
    assert script.value == "gtm_pyro.cli:main"


def test_every_dependency_is_pinned() -> None:
    """constraints.txt has one exact version for each dependency, within the bounds of pyproject.toml."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), line
            assert canonicalize_name(requirement.name) not in pins, line
            pins[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    extras = PYPROJECT["project"]["optional-dependencies"]
    for text in [*PYPROJECT["project"]["dependencies"], *extras["test"], *extras["dev"]]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"}):
            pinned = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pinned), f"{text} excludes {pinned}"


@pytest.mark.parametrize("name", gtm_pyro.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(gtm_pyro, name) is not None
    assert name in dir(gtm_pyro)


def test_public_surface_is_lazy() -> None:
    code = "import sys, gtm_pyro\nassert 'fit' in dir(gtm_pyro) and not {'torch', 'pyro', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="attribute nothing"):
        gtm_pyro.nothing  # noqa: B018
