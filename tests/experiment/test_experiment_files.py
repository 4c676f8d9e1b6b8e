"""Experiments that say only in what they differ from another one."""

from pathlib import Path

import pytest
import yaml

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import experiments, read_experiment

GPU = [name for name in experiments() if name.endswith("-gpu")]


def test_only_what_differs_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: image-navigation\n"
        "seed: 5\n"
        "model: {init_args: {memory: {init_args: {num_neighbors: 9}}, prior: {class_path: MixturePrior}}}\n"
        "data: {init_args: {walls: false}}\n"
        "stages: [{steps: 7}]\n"
        "learning_rates: {by_prefix: {encoder: 1.0e-4, transition.gate_network: null}}\n"
    )
    base, mine = read_experiment("image-navigation"), read_experiment(str(path))
    parts, theirs = mine["model"]["init_args"], base["model"]["init_args"]
    assert parts["memory"] == {"class_path": theirs["memory"]["class_path"], "init_args": {"num_neighbors": 9}}
    assert parts["prior"] == {"class_path": "MixturePrior"}  # another class without the old one's arguments
    assert parts["decoder"] == theirs["decoder"]
    assert mine["data"] == {"class_path": base["data"], "init_args": {"walls": False}}
    assert mine["stages"] == [{"steps": 7}]
    assert mine["learning_rates"] == base["learning_rates"] | {
        "by_prefix": {"transition.displacement": 3e-4, "encoder": 1e-4}
    }
    assert mine["seed"] == 5 and mine["clip_norm"] == base["clip_norm"] and "base" not in mine
    assert read_experiment("image-navigation") == base, "the base itself was changed"


def test_a_chain_of_files_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "first.yaml").write_text("base: image-navigation\nseed: 1\nsteps: 11\n")
    (tmp_path / "inner" / "second.yaml").write_text("base: ../first.yaml\nseed: 2\nlog_every: 3\n")
    mine = read_experiment(str(tmp_path / "inner" / "second.yaml"))
    assert (mine["seed"], mine["steps"], mine["log_every"]) == (2, 11, 3)
    assert "base" not in yaml.safe_load(resolve(mine).yaml()), "the config of a run is whole"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: image-navigatoin\n", "mine.yaml: base: expected image-navigation or .* or a YAML file, got "
                                     "'image-navigatoin'; did you mean image-navigation"),
        ("base: [a]\n", r"mine.yaml: base: expected .* or a YAML file, got \['a'\]"),
        ("base: other.yaml\n", r"other.yaml: expected an experiment in YAML \(No such file"),
        ("base: mine.yaml\n", "base: expected another experiment, got a circle: .*mine.yaml -> .*mine.yaml$"),
        ("base: sub/../mine.yaml\n", "base: expected another experiment, got a circle"),
        ("base: back.yaml\n", "back.yaml: base: expected another experiment, got a circle: .* -> .*back.yaml -> "),
    ],
)  # fmt: skip
def test_a_base_that_is_none_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "back.yaml").write_text("base: mine.yaml\n")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_experiment(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GPU)
def test_gpu_presets_are_the_same_experiment_only_larger(name: str) -> None:
    small, large = (resolve(read_experiment(n)) for n in (name.removesuffix("-gpu"), name))
    assert large["device"] == "cuda" and large["precision"] == "bfloat16" and small["device"] == "cpu"
    mine, theirs = large.flat(), small.flat()
    for field in ("model.class_path", "guide.class_path", "data.class_path", "loss.class_path"):
        assert mine[field] == theirs[field], field
    asked = {field: value for field, value in mine.items() if field.startswith("evaluation.")}
    assert asked == {field: value for field, value in theirs.items() if field.startswith("evaluation.")}
    assert "8192 worlds" in experiments()[name] and mine["data.init_args.num_episodes"] == 8192
    # a memory must hold at least as many entries as are read
    assert all(stage["num_observed"] >= mine["model.init_args.memory.init_args.num_neighbors"]
               for stage in yaml.safe_load(large.yaml())["stages"])  # fmt: skip


def test_there_are_gpu_presets() -> None:
    """The test above could pass by finding none."""
    assert {"labyrinth-rotation-gpu", "labyrinth-walk-gpu", "labyrinth-rooms-gpu"} <= set(GPU)
