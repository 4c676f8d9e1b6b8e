"""Experiments: what YAML declares is overridden by dotted options, checked in full, and only then made."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from inspect import Parameter, signature
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gtm_pyro.errors import ConfigError, GTMPyroError, did_you_mean
from gtm_pyro.experiment.catalogue import class_path, import_class, short_names
from gtm_pyro.experiment.errors import describe
from gtm_pyro.storage.limits import LARGEST_THREADS, check_episodes, check_range, check_seed
from gtm_pyro.storage.moved import todays
from gtm_pyro.storage.names import load_with_names
from gtm_pyro.storage.yaml import Raw, parse_yaml

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from pyro.infer import ELBO
    from torch import nn

    from gtm_pyro.episodes import Episodes
    from gtm_pyro.tasks import EpisodeData
    from gtm_pyro.training.stages import LearningRates, Stage

# arguments of data that name a file or a folder
_PATHS = ("images", "directory", "cache")
_LOADER = "gtm-pyro"
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class EvaluationSettings:
    """What a trained model is measured on.

    :param num_episodes: held-out episodes.
    :param num_observed: steps that are memorised.
    :param num_predicted: steps that are predicted from actions alone.
    :param seed: of the episodes and of all draws.
    :param posterior_episodes: episodes in posterior.nc, at most ``num_episodes``.
    :param posterior_samples: draws of each in posterior.nc; the leave-one-out of ArviZ needs 25.
    :param cell_size: a side of what counts as one place, in pose units; None: as the data says, else read off the
        poses (``gtm_pyro.poses.places.nearness``).
    :param view_tolerance: for poses with a heading, how near counts as the same view, in pose units and radians; None:
        likewise.
    :raises ConfigError: a number out of its range.
    """

    num_episodes: int = 64
    num_observed: int = 256
    num_predicted: int = 256
    seed: int = 0
    posterior_episodes: int = 4
    posterior_samples: int = 25
    cell_size: float | None = None
    view_tolerance: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("cell_size", "view_tolerance"):
                sizes = () if value is None else value if isinstance(value, tuple | list) else (value,)
                if not all(0 < size < math.inf for size in sizes):
                    raise ConfigError(f"evaluation.{name}: expected over 0 or null, got {value!r}")
            elif name == "seed":
                check_seed(**{"evaluation.seed": value})
            elif isinstance(value, bool) or value < 1:
                raise ConfigError(f"evaluation.{name}: expected a whole number of at least 1, got {value!r}")


@dataclass(frozen=True)
class Experiment:
    """The objects that an experiment declares, ready to train or to evaluate."""

    model: "nn.Module"
    guide: "nn.Module"
    data: "EpisodeData"
    loss: "ELBO"
    stages: "list[Stage]"
    learning_rates: "LearningRates"
    evaluation: EvaluationSettings
    fields: Mapping[str, Any]

    @property
    def nearness(self) -> dict[str, Any]:
        """``cell_size`` and ``view_tolerance`` for measures: as asked for, or as the data says; None where neither."""
        sizes = {name: getattr(self.evaluation, name) for name in ("cell_size", "view_tolerance")}
        return {n: getattr(self.data, n, None) if size is None else size for n, size in sizes.items()}

    def held_out(self, device: Any = "cpu", num_episodes: int | None = None) -> "Episodes":
        """The test episodes that ``evaluation`` asks for, or another number of them.

        :raises ConfigError: they cannot fit into memory.
        """
        asked = self.evaluation
        number = num_episodes or asked.num_episodes
        check_episodes("evaluation.num_episodes", number, asked.num_observed + asked.num_predicted, self.data)
        return self.data.sample(
            number,
            num_observed=asked.num_observed,
            num_predicted=asked.num_predicted,
            seed=asked.seed,
            split="test",
            device=device,
        )


class Config:
    """A resolved experiment: every field has its value and every value has its type."""

    def __init__(self, parser: "ArgumentParser", values: "Namespace") -> None:
        self._parser, self._values = parser, values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def yaml(self) -> str:
        """The text of config.yaml."""
        return self._parser.dump(self._values, format="yaml", skip_unset=False)

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted name."""
        return _flatten(yaml.safe_load(self.yaml()))

    def build(self) -> Experiment:
        """Make the objects. Starting values depend on the field ``seed`` only.

        :raises ConfigError: a class does not accept its arguments, or the parts do not fit each other.
        :raises GTMPyroError: what the classes themselves raise, for instance of a folder of images.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self["seed"])
            made = _guarded("experiment", lambda: self._parser.instantiate(self._values))
            guide = _guarded("guide", lambda: made["guide"](made["model"]))
        _check_parts(made["model"], made["data"])
        built = ("model", "data", "loss", "stages", "learning_rates", "evaluation")
        rest = {name: made[name] for name in FIELDS if name not in (*built, "guide")}
        return Experiment(guide=guide, fields=rest, **{name: made[name] for name in built})


FIELDS = {
    "model": "the generative program",
    "guide": "the inference program, made with the model as its first argument",
    "data": "where episodes come from",
    "loss": "one of Pyro's losses, Trace_ELBO for instance",
    "initialisation": "how starting values are found, LoopClosure for instance (null: they are drawn at random)",
    "auxiliary": "an objective that is added to the loss, DisplacementRegression for instance (null: none)",
    "stages": "the curriculum: a list in YAML, or the name of a YAML file that holds one",
    "steps": "optimiser steps in all; the stages keep their shares (null: as declared in the stages)",
    "learning_rates": "of Adam, before a cosine decay to 0",
    "clip_norm": "largest norm of the gradient in nats a frame (null: no limit)",
    "max_restarts": "how often a run that is stuck after a stage may start again",
    "seed": "of everything random",
    "device": "cpu, cuda, cuda:1, ...",
    "precision": "of the networks in training: float32, or bfloat16, which is faster on a GPU",
    "num_threads": "threads that torch computes with (null: torch's own choice)",
    "checkpoint_every": "steps between checkpoints",
    "log_every": "steps between lines of metrics.jsonl",
    "evaluation": "what the trained model is measured on",
}


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
    if "stages" in given:  # jsonargparse would lay each new stage over the old one of the same number
        raw = {name: value for name, value in raw.items() if name != "stages"}
    # a class before its arguments, whatever their order on the command line
    words = [f"--{name}={given[name]}" for name in sorted(given, key=lambda name: name.count("."))]
    try:
        parser = make_parser(_data_types(given.get("data", given.get("data.class_path")), raw.get("data")))
        values = parser.parse_args([f"--config={yaml.safe_dump(raw)}", *words])
    except GTMPyroError:
        raise
    except Exception as error:
        raise ConfigError(describe(error)) from error
    missing = [part for part in ("model", "guide", "data", "stages") if not values[part]]
    if missing:
        raise ConfigError(f"{missing[0]}: expected in every experiment, got none")
    check_seed(seed=values["seed"])
    if values["clip_norm"] is not None and not values["clip_norm"] > 0:
        raise ConfigError(f"clip_norm: expected a number over 0 or null, got {values['clip_norm']}")
    if values["num_threads"] is not None:
        check_range("num_threads", values["num_threads"], 1, LARGEST_THREADS)
    for name in ("model", "guide", "data", "loss", "initialisation", "auxiliary"):
        _check_untyped(name, values[name], first=name == "guide")
    _make_paths_absolute(values["data"])
    return Config(parser, values)


def _data_types(*named: Any) -> Any:
    """Any class with the right members will do; to jsonargparse they are the classes that are named."""
    found = [import_class("data", data_path(value)) for value in named if value]
    return reduce(or_, found) if found else Any


def data_path(value: Any) -> str:
    """The import path of the class that a value of the field ``data`` names.

    :raises ConfigError: there is no such class.
    """
    node = parse_yaml("data", value) if isinstance(value, str) and value.startswith("{") else value
    name = node.get("class_path", node) if isinstance(node, dict) else node
    return class_path("data", str(name))


def make_parser(data_type: Any) -> "ArgumentParser":
    """The parser of an experiment's fields.

    :param data_type: the class of the data, or a union of classes.
    """
    from jsonargparse import ArgumentParser, get_loader, set_loader
    from jsonargparse.typing import NonNegativeInt, PositiveInt
    from pyro.infer import ELBO
    from torch import nn

    from gtm_pyro.networks.precision import Precision
    from gtm_pyro.training.stages import LearningRates, Stage

    # jsonargparse reports arguments that a new class does not share with the old one; that is what overrides are for
    logging.getLogger("jsonargparse").setLevel(logging.ERROR)
    set_loader(_LOADER, partial(load_with_names, get_loader("yaml")), (yaml.YAMLError,))
    parser = ArgumentParser(exit_on_error=False, parser_mode=_LOADER)
    types: dict[str, tuple[Any, Any]] = {
        "model": (nn.Module, None),
        "guide": (Callable[[nn.Module], nn.Module], None),
        "data": (data_type, None),
        "loss": (ELBO, {"class_path": "pyro.infer.Trace_ELBO"}),
        "initialisation": (Callable[..., Any] | None, {"class_path": "gtm_pyro.initialisation.Automatic"}),
        "auxiliary": (Callable[..., Any] | None, None),
        "stages": (list[Stage], None),
        "steps": (PositiveInt | None, None),
        "learning_rates": (LearningRates, LearningRates()),
        "clip_norm": (float | None, None),
        "max_restarts": (NonNegativeInt, 3),
        "seed": (NonNegativeInt, 0),
        "device": (str, "cpu"),
        "precision": (Precision, "float32"),
        "num_threads": (PositiveInt | None, None),
        "checkpoint_every": (PositiveInt, 200),
        "log_every": (PositiveInt, 20),
        "evaluation": (EvaluationSettings, EvaluationSettings()),
    }
    parser.add_argument("--config", action="config")
    for name, (kind, default) in types.items():
        # any other text that names a file, a device for instance, is no file to read
        action = parser.add_argument(f"--{name}", type=kind, default=default, sub_configs=name == "stages")
        # arguments without a type, of classes of a user's own, take what YAML makes of the text
        action.sub_add_kwargs = {"fail_untyped": False}
    return parser


def _check_untyped(name: str, node: Any, first: bool = False) -> None:
    """Whether every argument without a type and a default has a value: jsonargparse gives None to those that have none.

    :param first: the class's first argument is given by somebody else.
    :raises ConfigError: names the argument.
    """
    from jsonargparse import Namespace

    if not isinstance(node, Namespace) or "class_path" not in node:
        return
    given = node.get("init_args") or Namespace()
    for parameter in list(signature(import_class(name, node["class_path"])).parameters.values())[first:]:
        value, bare = given.get(parameter.name), parameter.annotation is parameter.default is parameter.empty
        if value is None and bare and parameter.kind in _NAMED:
            raise ConfigError(f"{name}: {node['class_path']} needs a value for {parameter.name}")
        _check_untyped(f"{name}.{parameter.name}", value)


def _make_paths_absolute(data: "Namespace") -> None:
    """A run folder must work from anywhere: paths in the data's arguments are kept whole."""
    for name, value in (data.get("init_args") or {}).items():
        if name in _PATHS and value == "":
            raise ConfigError(f"data.{name}: expected a name, got ''")
        # a word such as "grid" may name a folder by chance
        if isinstance(value, str) and (name in _PATHS or "/" in value) and Path(value).exists():
            data["init_args"][name] = str(Path(value).resolve())


def _check_parts(model: Any, data: Any) -> None:
    from gtm_pyro.poses.conventions import channels_last
    from gtm_pyro.tasks import EpisodeData

    if not isinstance(data, EpisodeData):
        members = "sample, action_names, action_dim and frame_shape"
        raise ConfigError(f"data: expected a class with {members}, got {type(data).__name__}")
    if channels_last(data.frame_shape):
        raise ConfigError(f"data.frame_shape: expected (channels, height, width), got {data.frame_shape}")
    for owner, name in (("transition", "action_dim"), ("encoder", "frame_shape"), ("decoder", "frame_shape")):
        mine = getattr(getattr(model, owner, None), name, None)
        theirs = getattr(data, name)
        if mine is not None and mine != theirs:
            raise ConfigError(f"model.{owner}.{name}: expected {theirs} as the data has it, got {mine}")


def _guarded(what: str, make: Callable[[], Any]) -> Any:
    """Turn the errors of constructors that are called in the wrong way into one line."""
    try:
        return make()
    except (GTMPyroError, OSError):
        raise
    except (TypeError, AttributeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{what}: could not be made: {type(error).__name__}: {describe(error)}") from error


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for name, inner in value.items() for k, v in _flatten(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}
