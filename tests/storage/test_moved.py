"""What run folders and experiments of earlier versions say is read as it was meant."""

from typing import Any

import pytest
import yaml

from gtm_pyro.storage.moved import translated

OLD = """
model:
  class_path: gtm_pyro.models.GTMSM
  init_args:
    transition:
      class_path: gtm_pyro.transitions.WalledTranslation
      init_args: {action_dim: 5, initialise_gate: true, slip: 0.0, initialise_slip: true}
    encoder: {class_path: gtm_pyro.emissions.FrameEncoder}
    displacement_weight: 0.0
    pose_unit: 1.0
data: gtm_pyro.data.ImageNavigation
"""


def old(**arguments: Any) -> dict[str, Any]:
    """A config.yaml of then, with other arguments of the transition or the model."""
    raw: dict[str, Any] = yaml.safe_load(OLD)
    model = raw["model"]["init_args"]
    for name, value in arguments.items():
        of_model = name in ("displacement_weight", "pose_unit")
        (model if of_model else model["transition"]["init_args"])[name] = value
    return raw


def strategy(name: str, **values: Any) -> dict[str, Any]:
    return {"class_path": f"gtm_pyro.initialisation.{name}", "init_args": values}


def regression(**values: Any) -> dict[str, Any]:
    return {"class_path": "gtm_pyro.inference.DisplacementRegression", "init_args": values}


def test_arguments_that_a_run_left_alone_are_dropped() -> None:
    found = translated(old())
    assert found["model"]["init_args"] == {
        "transition": {
            "class_path": "gtm_pyro.transitions.WalledTranslation",
            "init_args": {"action_dim": 5, "slip": 0.0},
        },
        "encoder": {"class_path": "gtm_pyro.networks.FrameEncoder"},
    }
    assert found["data"] == "gtm_pyro.tasks.ImageNavigation"
    assert "initialisation" not in found and found["auxiliary"] is None


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"initialise_gate": False}, "initialisation", strategy("LoopClosure", gate=False)),
        (
            {"initialise_gate": False, "initialise_slip": False},
            "initialisation",
            strategy("LoopClosure", gate=False, slips=False),
        ),
        ({"widest": 2.0}, "initialisation", strategy("MemorySearch", widest=2.0)),
        (
            {"displacement_weight": 100.0, "pose_unit": 0.5},
            "auxiliary",
            regression(weight=100.0, pose_unit=0.5),
        ),
    ],
    ids=str,
)
def test_arguments_that_a_run_set_are_where_they_belong_today(
    arguments: dict[str, Any], field: str, value: dict[str, Any]
) -> None:
    assert translated(old(**arguments))[field] == value


def test_what_is_laid_over_another_experiment_is_moved_too() -> None:
    def laid(**arguments: Any) -> Any:
        return translated({"base": "mine.yaml", "model": {"init_args": arguments}})

    assert laid(pose_unit=2.0)["auxiliary"] == {"init_args": {"pose_unit": 2.0}}
    assert laid(displacement_weight=0)["auxiliary"] is None
    assert laid(transition={"init_args": {"initialise_gate": False}})["initialisation"] == strategy(
        "LoopClosure", gate=False
    )


def test_arguments_of_a_users_own_classes_are_left_alone() -> None:
    mine = {"model": {"class_path": "my.Model", "init_args": {"pose_unit": 2.0, "displacement_weight": 1.0}}}
    assert translated(mine) == mine
    nested = {
        "model": {"class_path": "my.Model", "init_args": {"t": {"class_path": "my.T", "init_args": {"widest": 1}}}}
    }
    assert translated(nested) == nested
    said = old(initialise_gate=False) | {"initialisation": None}
    assert translated(said)["initialisation"] is None
