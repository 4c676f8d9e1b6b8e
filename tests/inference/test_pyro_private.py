"""Private names of Pyro: two, in one file, each with what happens without it."""

import ast
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.nn import PyroModule
from pyro.poutine import runtime
from torch import nn

import gtm_pyro
from gtm_pyro.inference import pyro_private
from gtm_pyro.inference.pyro_private import collects_parameters, give_parameters_to

ROOT = Path(gtm_pyro.__file__).parent.parent
SOURCES = [path for part in ("gtm_pyro", "models", "guides") for path in (ROOT / part).rglob("*.py")]
# attributes of Pyro's objects, and names in its modules, that this library has used or might be tempted to
PRIVATE = {
    "_get_traces", "_get_trace", "_differentiable_loss_particle", "_get_vectorized_trace", "_guess_max_plate_nesting",
    "_get_loc_and_scale", "_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag", "_pyro_context", "_PYRO_STACK",
    "_Subsample", "_pyro_params", "_pyro_samples", "_setup_prototype",
}  # fmt: skip


def names(path: Path) -> set[str]:
    """Attributes, imported names and whole strings."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pyro":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_private_names_of_pyro_are_in_one_file() -> None:
    used = {path.name: names(path) & PRIVATE for path in SOURCES}
    assert {name: found for name, found in used.items() if found} == {
        "pyro_private.py": {"_pyro_context", "_PYRO_STACK"}
    }


def test_this_version_of_pyro_has_them() -> None:
    said = f"Pyro {pyro.__version__} has it no more (1.9.2 had): see gtm_pyro/inference/pyro_private.py"
    assert isinstance(getattr(runtime, "_PYRO_STACK", None), list), said
    assert "_pyro_context" in PyroModule().__dict__, said
    with pyro.settings.context(module_local_params=True):
        assert vars(PyroModule().__dict__["_pyro_context"])["param_state"] == {"params": {}, "constraints": {}}, said


def test_without_them_programs_run_and_nobody_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    with pyro.poutine.trace(param_only=True):
        assert collects_parameters()
        monkeypatch.delattr(runtime, "_PYRO_STACK")
        assert not collects_parameters()
    monkeypatch.undo()
    plain = nn.Linear(1, 1)
    before = dict(plain.__dict__)
    give_parameters_to(plain)
    assert plain.__dict__ == before


class Program(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self) -> Any:
        return pyro.sample("z", pyro.distributions.Normal(self.weight, 1.0))


def test_the_setting_alone_trains_what_is_built_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public path: nothing is done to the module, and its parameter is its own."""
    monkeypatch.setattr(pyro_private, "give_parameters_to", lambda module: None)
    pyro.clear_param_store()
    with pyro.settings.context(module_local_params=True):
        program = Program()
        program()
    assert not list(pyro.get_param_store())
