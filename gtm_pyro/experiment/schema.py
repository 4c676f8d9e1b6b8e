"""The fields of an experiment, and the parser that knows their types."""

import logging
from collections.abc import Callable
from functools import partial, reduce
from inspect import Parameter, signature
from operator import or_
from typing import TYPE_CHECKING, Any

import yaml

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.catalogue import class_path, import_class
from gtm_pyro.experiment.declared import EvaluationSettings
from gtm_pyro.storage.names import load_with_names
from gtm_pyro.storage.yaml import parse_yaml

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_LOADER = "gtm-pyro"
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)

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


def data_types(*named: Any) -> Any:
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


def check_untyped(name: str, node: Any, first: bool = False) -> None:
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
        check_untyped(f"{name}.{parameter.name}", value)
