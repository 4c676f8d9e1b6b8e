"""Experiments and overrides: what comes out, and that every wrong name or type is told in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gtm_pyro import errors
from gtm_pyro.errors import ConfigError, GTMPyroError
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.errors import describe
from gtm_pyro.experiment.files import experiments, read_experiment
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.stages import Stage

NAME = "image-navigation"

MY_CLASSES = '''
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.transitions import Translation

class MyGuide(DeadReckoning):
    """A guide."""
    def __init__(self, model, strength: float = 2.0):
        super().__init__(model)
        self.strength = strength

class MyData:
    action_names = ("a", "b", "c", "d", "e")
    action_dim = 5
    frame_shape = (3, 8, 8)
    def __init__(self, size: int = 3):
        self.size = size
    def sample(self, batch_size, *, num_observed, num_predicted, seed, split="train", device="cpu"):
        raise NotImplementedError

class ChannelsLast(MyData):
    frame_shape = (8, 8, 3)

class NoData:
    pass

class Asserting(DeadReckoning):
    def __init__(self, model):
        assert False

class Broken(DeadReckoning):
    def __init__(self, model):
        raise TypeError("broken on purpose")
'''


@pytest.fixture
def my_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_own_classes.py").write_text(MY_CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "my_own_classes", raising=False)
    return "my_own_classes"


def built(**overrides: str) -> Any:
    return resolve(read_experiment(NAME), {k.replace("__", "."): v for k, v in overrides.items()}).build()


def on_recordings(name: str) -> bool:
    data = read_experiment(name)["data"]
    return (data if isinstance(data, str) else data["class_path"]).endswith("SavedEpisodes")


# those on recordings: test_sizes.py and test_worlds_of_others.py
@pytest.mark.parametrize("name", [name for name in experiments() if not on_recordings(name)])
def test_every_experiment_resolves_builds_and_survives_its_own_yaml(name: str) -> None:
    if name.startswith("recall"):
        pytest.importorskip("sklearn")
    # the engine that the GPU presets ask for need not be installed
    engine = {"data.engine": "raycaster"} if name.startswith("labyrinth") else {}
    config = resolve(read_experiment(name), engine)
    again = resolve(yaml.safe_load(config.yaml()))
    assert again.yaml() == config.yaml() and not again.settled().notes
    experiment = again.build()
    assert isinstance(experiment.guide, torch.nn.Module)
    assert experiments()[name], f"{name}: expected a first line that says what it is"


def test_starting_values_depend_on_the_seed_only() -> None:
    first, second, other = (built(seed=seed).model.state_dict() for seed in ("5", "5", "6"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_callers_random_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    built()
    assert torch.equal(torch.rand(3), expected)


def test_overrides_reach_every_level() -> None:
    experiment = built(
        model__transition__scale="0.01",
        model__init_args__memory__init_args__num_neighbors="7",
        data__walls="false",
        learning_rates__by_prefix="{transition.displacement: 5e-1}",
        stages="[{steps: 11}]",
        evaluation__num_episodes="3",
        guide="DeadReckoning",
        clip_norm="10",
    )
    assert float(experiment.model.transition.scale) == pytest.approx(0.01)
    assert experiment.model.memory.num_neighbors == 7
    assert isinstance(experiment.data, ImageNavigation) and not experiment.data.walls
    assert experiment.learning_rates.by_prefix["transition.displacement"] == 0.5
    assert experiment.stages[0].steps == 11
    assert experiment.evaluation.num_episodes == 3
    assert type(experiment.guide) is DeadReckoning
    assert experiment.fields["clip_norm"] == 10


def test_a_class_keeps_the_arguments_that_it_shares_with_the_old_one() -> None:
    overrides = {"model.transition": "Translation", "model.transition.scale": "0.5"}
    config = resolve(read_experiment(NAME), overrides)
    stored = yaml.safe_load(config.yaml())["model"]["init_args"]["transition"]
    assert stored["class_path"] == "gtm_pyro.transitions.Translation" and "hidden" not in stored["init_args"]
    experiment = config.build()
    assert type(experiment.model.transition).__name__ == "Translation"
    assert experiment.model.transition.action_dim == 5
    loss = built(loss__alpha="0", loss="RenyiELBO").loss  # the class comes first, whatever the order
    assert type(loss).__name__ == "RenyiELBO" and loss.alpha == 0


def test_stages_come_from_a_file_or_from_text(tmp_path: Path) -> None:
    (tmp_path / "stages.yaml").write_text("- {steps: 3, num_observed: 8}\n- {steps: 4}\n")
    assert [stage.steps for stage in built(stages=str(tmp_path / "stages.yaml")).stages] == [3, 4]
    assert built(stages="[{steps: 5}]").stages == [Stage(5)]  # nothing is left of the experiment's own stages


def test_classes_of_ones_own(my_classes: str) -> None:
    experiment = built(guide=f"{my_classes}.MyGuide", guide__strength="4", data=f"{my_classes}.MyData", data__size="9")
    assert experiment.guide.strength == 4.0 and experiment.guide.model is experiment.model
    assert experiment.data.size == 9


def test_paths_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    config = resolve(read_experiment(NAME), {"data.images": "photos"})
    assert config["data"]["init_args"]["images"] == str(tmp_path / "photos")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stepz": "3"}, "stepz: no such field of an experiment; did you mean steps?"),
        ({"steps": "x"}, "steps: expected a whole number over 0"),
        ({"seed": "-1"}, "seed: expected a whole number from 0"),
        ({"guide": "DeadRekoning"}, "got 'DeadRekoning'; did you mean DeadReckoning?"),
        ({"guide": "nosuch.module.X"}, "guide: cannot import nosuch.module.X: there is no module nosuch"),
        ({"guide": "gtm_pyro.guides.Nope"}, "guide: expected a class Nope in gtm_pyro.guides, got nothing"),
        ({"guide": "gtm_pyro.models.GTMSM"}, "guide: could not be made: AttributeError"),
        ({"guide.foo": "3"}, "guide.foo: no such field"),
        ({"data.wall": "3"}, "data.wall: no such field of ImageNavigation, which has images, walls"),
        ({"data.wall": "3"}, "did you mean walls?"),
        ({"data.walls": "maybe"}, "data.walls: expected bool, got maybe"),
        ({"data": "SavedEpisodes"}, "data: gtm_pyro.tasks.SavedEpisodes needs a value for directory"),
        (
            {"data.crop_size": "12", "model.encoder.frame_shape": "[3, 8, 8]"},
            "model.encoder.frame_shape: expected (3, 12, 12) as the data has it, got (3, 8, 8)",
        ),
        ({"model.transition.action_dim": "3"}, "model.transition.action_dim: expected 5 as the data has it, got 3"),
        (
            {"model.encoder.latent_dim": "8", "model.decoder.latent_dim": "9"},
            "decoder.latent_dim: expected 8 as the encoder has it, got 9",
        ),
        ({"model.transition": "Transl"}, "did you mean Translation?"),
        ({"model.transition": "FrameDecoder"}, "expected a Transition, got gtm_pyro.networks.FrameDecoder"),
        ({"model.transition.scale": "abc"}, "model.transition.scale: expected float, got abc"),
        ({"model.transition.scale": "-1"}, "scale: expected a number over 0, got -1.0"),
        ({"model.memory.backend": "foo"}, "model.memory.backend: expected auto or torch or kdtree"),
        ({"model.memory.num_neighbors": "foo"}, "model.memory.num_neighbors: expected int or all, got foo"),
        ({"model.nope.x": "3"}, "model.nope: no such field of GTMSM"),
        ({"stages": "[{steps: x}]"}, "stages.steps: expected int, got x"),
        ({"stages": "[{step: 3}]"}, "stages.step: no such field of Stage"),
        ({"stages": "[{steps: 3, reading: {scored: foo}}]"}, "stages.reading.scored: expected predicted or others or"),
        ({"stages": "[]"}, "stages: expected in every experiment, got none"),
        ({"stages": "[{"}, "stages: expected a list in YAML, or the name of a YAML file that holds one, got [{"),
        (
            {"stages": "nope.yaml"},
            "stages: expected a list in YAML, or the name of a YAML file that holds one, got nope.",
        ),
        ({"steps.x": "3"}, "steps: expected a whole number over 0"),
        (
            {"loss": "ReweightedWakeSleep", "loss.num_particles": "1"},
            "could not be made: ValueError: Reweighted Wake Sleep needs to be run with more than one particle",
        ),
        ({"loss": "Adam"}, "loss: expected the import path of a class (module.Class), got 'Adam'"),
        ({"evaluation.num_episods": "3"}, "evaluation.num_episods: no such field"),
        ({"evaluation.num_episodes": "0"}, "evaluation.num_episodes: expected a whole number of at least 1, got 0"),
        ({"clip_norm": "foo"}, "clip_norm: expected float or null, got foo"),
        ({"evaluation.cell_size": "nan"}, "evaluation.cell_size: expected float or null, got nan"),
        ({"learning_rates.default": "-1"}, "learning_rates: default: expected a number over 0, got -1.0"),
    ],
)
def test_every_mistake_is_one_line(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(read_experiment(NAME), overrides).build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_of_ones_own_are_checked(my_classes: str) -> None:
    for overrides, message in (
        ({"guide": f"{my_classes}.MyGuide", "guide.strength": "x"}, "guide.strength: expected float, got x"),
        ({"guide": f"{my_classes}.MyGuide", "guide.nope": "x"}, "guide.nope: no such field"),
        ({"guide": f"{my_classes}.Asserting"}, "guide: could not be made: AssertionError: not accepted"),
        ({"guide": f"{my_classes}.Broken"}, "guide: could not be made: TypeError: broken on purpose"),
        ({"data": f"{my_classes}.NoData"}, "data: expected a class with sample, action_names, action_dim"),
        ({"data": f"{my_classes}.ChannelsLast"}, "data.frame_shape: expected .channels, height, width., got .8, 8, 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(read_experiment(NAME), overrides).build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [\n", "line 2: not valid YAML"),
        ("- a\n", "expected the fields of an experiment, got list"),
        ("modle: {}\n", "modle: no such field of an experiment; did you mean model?"),
        ("seed: 3\n", "model: expected in every experiment, got none"),
        ("model: 3\n", "model: expected a class_path and its init_args, got 3"),
        ("", "expected the fields of an experiment, got NoneType"),
    ],
)
def test_damaged_experiments(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        resolve(read_experiment(str(path)))


def test_unknown_experiments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 'image-navigaton'; did you mean image-navigation"):
        read_experiment("image-navigaton")
    with pytest.raises(ConfigError, match="No such file"):
        read_experiment(str(tmp_path / "nope.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="a file that is no text"):
        read_experiment(str(tmp_path / "binary.yaml"))


def test_overrides_do_not_change_what_they_are_given() -> None:
    raw = read_experiment(NAME)
    before = yaml.safe_dump(raw)
    resolve(raw, {"model.transition.scale": "3", "stages": "[{steps: 1}]", "guide": "DeadReckoning"})
    assert yaml.safe_dump(raw) == before


def test_messages_of_unknown_form_pass_through() -> None:
    assert describe(ValueError("something else")) == "something else"
    assert describe(ValueError("")) == "not accepted"


def test_all_errors_are_of_one_family() -> None:
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, Exception) and cls.__module__ == errors.__name__:
            assert issubclass(cls, GTMPyroError), name


def test_arguments_without_a_type_are_read_as_yaml_and_asked_for() -> None:
    with pytest.raises(ConfigError, match="^model.keys: my_parts.Needs needs a value for matrix"):
        built(model__keys="my_parts.Needs")
    model = built(model__keys="my_parts.Needs", model__keys__matrix="[1, 2]").model
    assert model.keys.matrix == [1, 2] and built(guide="my_parts.MyGuide", guide__width="0.5").guide.log_width < 0
    with pytest.raises(ConfigError, match="^model.keys.matrx: no such field of Needs, .*did you mean matrix?"):
        built(model__keys="my_parts.Needs", model__keys__matrx="1")
