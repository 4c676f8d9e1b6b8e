"""Experiments: what YAML declares is overridden by dotted options, checked in full, and only then made.

An experiment is settled in two steps. ``resolve`` checks every name and type and makes nothing; ``Config.settled``
makes the data, which says the sizes and windows that nobody said.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gtm_pyro.errors import ConfigError, GTMPyroError, did_you_mean
from gtm_pyro.experiment.catalogue import short_names
from gtm_pyro.experiment.choices import as_text, choose_motion, choose_stages, chosen_by_data
from gtm_pyro.experiment.declared import Experiment
from gtm_pyro.experiment.errors import describe
from gtm_pyro.experiment.misfits import without_misfits
from gtm_pyro.experiment.said import PARTS, Said
from gtm_pyro.experiment.schema import FIELDS, check_untyped, data_types, make_parser
from gtm_pyro.experiment.sizes import agreed, check_sizes, of_data
from gtm_pyro.experiment.windows import WINDOW, evaluation_on, given_stages, stages_on
from gtm_pyro.storage.limits import LARGEST_THREADS, check_range, check_seed
from gtm_pyro.storage.moved import todays
from gtm_pyro.storage.yaml import Raw

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from gtm_pyro.tasks import EpisodeData

# arguments of data that name a file or a folder
_PATHS = ("images", "directory", "cache")


class Config:
    """A resolved experiment: every field has its value and every value has its type.

    :ivar notes: what the data decided, a line each; empty before ``settled``.
    """

    def __init__(
        self,
        parser: "ArgumentParser",
        values: "Namespace",
        raw: Raw,
        given: Mapping[str, str],
        chosen: Mapping[str, str] | None = None,
        data: "EpisodeData | None" = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._parser, self._values, self._raw, self._given = parser, values, raw, given
        self._chosen, self._data, self.notes = chosen or {}, data, notes
        self._settled: dict[bool, Config] = {}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def yaml(self) -> str:
        """The text of config.yaml; settles the config if it is not, for that holds what the data decides too."""
        config = self.settled()
        return config._parser.dump(config._values, format="yaml", skip_unset=False)

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted name; of an experiment that leaves nothing open, or of a settled one."""
        return vars(self._values.as_flat())

    def settled(self, training: bool = True) -> "Config":
        """With the data made, and all that it decides.

        :param training: whether the stages matter too.
        :raises ConfigError: the data's class does not accept its arguments, or is no source of episodes.
        :raises GTMPyroError: what the class itself raises, for instance of a folder of images.
        """
        if self._data is not None:
            return self
        if training not in self._settled:
            self._settled[training] = self._settle(training)
        return self._settled[training]

    def _settle(self, training: bool) -> "Config":
        data = self._made("data")["data"]
        _check_data(data)
        said = Said(self._raw, self._given)
        chosen, notes = choose_motion(said, data)
        given = {**self._given, **chosen}
        said = Said(self._raw, given)
        chosen |= agreed(said) | of_data(said, data)
        stages = given_stages(self._raw, self._given)
        if training:
            if stages is None:
                stages, lines = choose_stages(said, data)
                chosen["stages"] = as_text(stages)
            else:
                fitting, lines = stages_on(said, self._raw, self._given, data)
                if fitting is not None:
                    chosen["stages"] = as_text(fitting)
                    stages = fitting
            notes += lines
        last = stages[-1] if stages and isinstance(stages[-1], dict) else {}
        window = (last[WINDOW[0]], last[WINDOW[1]]) if last.keys() >= set(WINDOW) else None
        evaluation, lines = evaluation_on(said, window, data)
        chosen |= evaluation
        notes += lines
        config = Config(self._parser, self._values, self._raw, self._given, {}, data)
        return config._with(chosen, notes)

    def build(self, training: bool = True) -> Experiment:
        """Make the objects. Starting values depend on the field ``seed`` only.

        :param training: whether the stages matter too.
        :raises ConfigError: a class does not accept its arguments, or the parts do not fit each other.
        :raises GTMPyroError: what the classes themselves raise, for instance of a folder of images.
        """
        import torch

        config = self.settled(training)
        assert config._data is not None  # as settled
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self["seed"])
            made = config._made(*(name for name in FIELDS if name != "data"))
            guide = _guarded("guide", lambda: made["guide"](made["model"]))
        check_sizes(made["model"], config._data)
        built = ("model", "data", "loss", "stages", "learning_rates", "evaluation")
        rest = {name: made[name] for name in FIELDS if name not in (*built, "guide")}
        parts = {name: made[name] for name in built if name != "data"}
        experiment = Experiment(
            guide=guide, data=config._data, fields=rest, yaml=config.yaml, notes=config.notes, **parts
        )
        if not (training and Said(self._raw, self._given).swaps("model", "guide")):
            return experiment
        return config._without_misfits(experiment)

    def _without_misfits(self, experiment: Experiment) -> Experiment:
        """With what the YAML says of a class that another one stands for left out."""
        said = Said(self._raw, self._given)
        found = without_misfits(experiment.model, experiment.guide, experiment.stages, experiment.learning_rates, said)
        if not found.notes:
            return experiment
        config = self._with(found.overrides, found.notes)
        return replace(
            experiment, stages=found.stages, learning_rates=found.rates, yaml=config.yaml, notes=config.notes
        )

    def _with(self, chosen: Mapping[str, str], notes: Sequence[str]) -> "Config":
        """With more that was chosen, and why."""
        if not chosen:
            return self
        chosen = {**self._chosen, **chosen}
        parser, values = _parsed(self._raw, {**self._given, **chosen})
        return Config(parser, values, self._raw, self._given, chosen, self._data, (*self.notes, *notes))

    def _made(self, *names: str) -> "Namespace":
        from jsonargparse import Namespace

        values = Namespace({name: self._values[name] for name in names})
        return _guarded("experiment", lambda: self._parser.instantiate(values))


def resolve(raw: Raw, overrides: Mapping[str, str] | None = None) -> Config:
    """Check an experiment with its overrides, and fill in all defaults. Nothing is made yet.

    A class may be named in short where the library has it. Another class keeps the old arguments that it takes too.

    :param raw: what its YAML says.
    :param overrides: text by dotted name, {"data.walls": "false"} for instance.
    :raises ConfigError: an unknown class or field, or a value of the wrong type.
    """
    # with their full paths, short names mean the library's classes alone, and config.yaml needs no explanation
    short = short_names()
    given = {name: todays(short.get(value, value)) for name, value in (overrides or {}).items()}
    for name in (*raw, *(name.partition(".")[0] for name in given)):
        if name not in FIELDS:
            raise ConfigError(f"{name}: no such field of an experiment{did_you_mean(name, FIELDS)}")
    said = Said(raw, given)
    # what is said of a class that the data will name is looked at when it has
    now = {name: text for name, text in given.items() if not name.startswith(chosen_by_data(said))}
    parser, values = _parsed(raw, now | agreed(said))
    missing = [part for part in ("model", "guide", "data") if not values[part]]
    if not missing and values["stages"] is not None and not values["stages"]:
        missing = ["stages"]
    if missing:
        raise ConfigError(f"{missing[0]}: expected in every experiment, got none")
    check_seed(seed=values["seed"])
    if values["clip_norm"] is not None and not values["clip_norm"] > 0:
        raise ConfigError(f"clip_norm: expected a number over 0 or null, got {values['clip_norm']}")
    if values["num_threads"] is not None:
        check_range("num_threads", values["num_threads"], 1, LARGEST_THREADS)
    for name in PARTS:
        check_untyped(name, values[name], first=name == "guide")
    return Config(parser, values, raw, given)


def _parsed(raw: Raw, given: Mapping[str, str]) -> "tuple[ArgumentParser, Namespace]":
    """The parser, and the values of all fields; paths of data are whole."""
    if "stages" in given:  # jsonargparse would lay each new stage over the old one of the same number
        raw = {name: value for name, value in raw.items() if name != "stages"}
    # a class before its arguments, whatever their order on the command line
    words = [f"--{name}={given[name]}" for name in sorted(given, key=lambda name: name.count("."))]
    try:
        parser = make_parser(data_types(given.get("data", given.get("data.class_path")), raw.get("data")))
        values = parser.parse_args([f"--config={yaml.safe_dump(raw)}", *words])
    except GTMPyroError:
        raise
    except Exception as error:
        raise ConfigError(describe(error)) from error
    if values["data"]:
        _make_paths_absolute(values["data"])
    return parser, values


def _make_paths_absolute(data: "Namespace") -> None:
    """A run folder must work from anywhere: paths in the data's arguments are kept whole."""
    for name, value in (data.get("init_args") or {}).items():
        if name in _PATHS and value == "":
            raise ConfigError(f"data.{name}: expected a name, got ''")
        # a word such as "grid" may name a folder by chance
        if isinstance(value, str) and (name in _PATHS or "/" in value) and Path(value).exists():
            data["init_args"][name] = str(Path(value).resolve())


def _check_data(data: Any) -> None:
    from gtm_pyro.poses.conventions import channels_last
    from gtm_pyro.tasks import EpisodeData

    if not isinstance(data, EpisodeData):
        members = "sample, action_names, action_dim and frame_shape"
        raise ConfigError(f"data: expected a class with {members}, got {type(data).__name__}")
    if channels_last(data.frame_shape):
        raise ConfigError(f"data.frame_shape: expected (channels, height, width), got {data.frame_shape}")


def _guarded(what: str, make: Callable[[], Any]) -> Any:
    """Turn the errors of constructors that are called in the wrong way into one line."""
    try:
        return make()
    except (GTMPyroError, OSError):
        raise
    except (TypeError, AttributeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{what}: could not be made: {type(error).__name__}: {describe(error)}") from error
