"""From the words of a command to a config, a run folder, and programs that are ready to use."""

import math
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path

import torch

from gtm_pyro.errors import ConfigError, RunFolderError
from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.measures import measured
from gtm_pyro.experiment.catalogue import import_class
from gtm_pyro.experiment.config import Config, resolve
from gtm_pyro.experiment.declared import Experiment
from gtm_pyro.experiment.files import experiments, read_experiment
from gtm_pyro.experiment.schema import data_path
from gtm_pyro.experiment.trust import check_trusted
from gtm_pyro.storage import checkpoints
from gtm_pyro.storage.limits import check_episodes, check_memory
from gtm_pyro.storage.names import quoted
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import Raw, read_run
from gtm_pyro.tasks.base import task_of
from gtm_pyro.training.fitting import resolve_device

# what may change when a run goes on: where it computes and how often it writes, not what it computes
_MAY_CHANGE = ("device", "num_threads", "checkpoint_every", "log_every", "evaluation")


def planned_run(arguments: Namespace) -> tuple[Config, RunFolder, bool]:
    """The config and the folder of a training, and whether it is resumed."""
    name, overrides = arguments.experiment, arguments.overrides
    if arguments.resume is None:
        if name is None:
            raise ConfigError(f"experiment: expected {' or '.join(experiments())} or a YAML file, got none")
        raw = read_experiment(name)
        if (Path(name).parent / "checkpoint").is_dir():  # the config of a run
            check_trusted(Path(name), raw, overrides, arguments.trust)
        config = resolve(raw, overrides)
        folder = RunFolder(Path(arguments.out or Path("runs") / Path(name).stem))
        _refuse_used(folder)
        return config, folder, False
    where = {path for path in (arguments.resume, arguments.out) if path}
    if len(where) != 1:
        got = "none" if not where else " and ".join(sorted(where))
        raise ConfigError(f"--resume: expected one run folder, got {got}")
    folder = RunFolder.open(where.pop())
    stored = read_run(folder.config)
    check_trusted(folder.config, stored, overrides, arguments.trust)
    if name is None:
        refused = [field for field in overrides if field.split(".")[0] not in _MAY_CHANGE]
        if refused:
            allowed = ", ".join(_MAY_CHANGE)
            raise ConfigError(f"--{refused[0]}: a resumed run keeps its settings; only {allowed} may change")
        return resolve(stored, overrides), folder, True
    config = resolve(read_experiment(name), overrides).settled()
    _check_same_settings(config, resolve(stored), folder)
    return config, folder, True


def _refuse_used(folder: RunFolder) -> None:
    """Look before anything is made: a name typed twice costs no time. ``RunFolder.create`` has the last word."""
    if folder.path.is_dir() and folder.contents():
        raise RunFolderError(
            f"{folder.path}: expected a new or empty folder, this one is in use; "
            f"to continue the run in it: gtm-pyro train --resume {quoted(folder.path)}"
        )


def _check_same_settings(asked: Config, stored: Config, folder: RunFolder) -> None:
    mine, theirs = asked.flat(), stored.flat()
    for field in {**mine, **theirs}:
        if field.split(".")[0] not in _MAY_CHANGE and mine.get(field) != theirs.get(field):
            raise RunFolderError(
                f"{folder.path}: its run has other settings: {field} is {theirs.get(field)!r}, not {mine.get(field)!r}"
            )


def one_run(arguments: Namespace, command: str) -> RunFolder:
    """The run folder that a command was given.

    :raises ConfigError: its config names classes of other packages that the command does not.
    """
    if arguments.folder is None:
        raise ConfigError(f"DIR: expected a run folder, got none; usage: gtm-pyro {command} DIR")
    folder = RunFolder.open(arguments.folder)
    check_trusted(folder.config, read_run(folder.config), arguments.overrides, arguments.trust)
    return folder


def check_file(option: str, name: str | os.PathLike[str] | None) -> None:
    """Raise ConfigError if a file that will be written is a folder."""
    if name is not None and Path(name).is_dir():
        raise ConfigError(f"{option}: expected a file, {name} is a folder")


def other_folder(arguments: Namespace) -> RunFolder | None:
    """The folder that results go into in place of the run's own; None if that is it.

    :raises ConfigError: it is a file.
    """
    if not arguments.out:
        return None
    if Path(arguments.out).is_file():
        raise ConfigError(f"--out: expected a folder, {arguments.out} is a file")
    return RunFolder(Path(arguments.out))


def report_folder(arguments: Namespace) -> RunFolder | None:
    """The folder that a report beside the run's own goes into, if one is asked for.

    :raises ConfigError: it is a file, or holds a run.
    """
    if not arguments.report:
        return None
    folder = RunFolder(Path(arguments.report))
    if folder.path.is_file():
        raise ConfigError(f"--report: expected a folder, {arguments.report} is a file")
    if folder.config.exists() or folder.checkpoints.exists():
        raise ConfigError(
            f"--report: expected a folder without a run, {arguments.report} holds one; gtm-pyro report DIR draws a "
            "run's own figures"
        )
    return folder


def all_held_out(folder: RunFolder, overrides: Mapping[str, str]) -> dict[str, str]:
    """With another source of episodes, all that it has is held out: none of it was trained on."""
    result = dict(overrides)
    if {"data", "data.class_path", "data.images", "data.directory"} & result.keys():
        data = resolve(stored(folder, overrides), overrides)["data"]
        if "test_fraction" in signature(import_class("data", data["class_path"])).parameters:
            result.setdefault("data.test_fraction", "1.0")
    return result


def stored(folder: RunFolder, overrides: Mapping[str, str]) -> Raw:
    """What the config of a run says, as far as it holds for the data that is asked for.

    A config names every argument. Another class of data takes over what it has too and somebody chose: what the old
    class has by default, the length of its episodes for instance, is not, and a cache holds its episodes alone.
    """
    raw = read_run(folder.config)
    data, asked = raw.get("data"), overrides.get("data.class_path", overrides.get("data"))
    if asked is None or not isinstance(data, dict):
        return raw
    old, new = (import_class("data", data_path(value)) for value in (data, asked))
    if new is old:
        return raw
    usual, taken = signature(old).parameters, signature(new).parameters.keys() - {"cache"}
    arguments = (data.get("init_args") or {}).items()
    chosen = {k: v for k, v in arguments if k in taken and not (k in usual and usual[k].default == v)}
    return raw | {"data": {"class_path": data_path(asked), "init_args": chosen}}


def trained(folder: RunFolder, overrides: Mapping[str, str]) -> tuple[Experiment, torch.device]:
    """What the config of a run declares, with its newest parameters, and the device that they are on."""
    experiment, device = build(resolve(stored(folder, overrides), overrides), training=False)
    for line in experiment.notes:
        print(line)
    checkpoints.restore(folder.path, experiment.model, experiment.guide)
    for program in (experiment.model, experiment.guide):
        program.to(device)
    return experiment, device


def newest_step(folder: RunFolder) -> int:
    """How many optimiser steps the newest parameters of a run have seen; 0 where it has none."""
    checkpoint = checkpoints.load_latest(folder.checkpoints)
    return 0 if checkpoint is None else checkpoint.step


def build(config: Config, training: bool = True) -> tuple[Experiment, torch.device]:
    """The objects that a config declares, and the device to compute on."""
    device = resolve_device(config["device"])
    if config["num_threads"] is not None:
        torch.set_num_threads(config["num_threads"])
    return config.build(training), device


def check_room(experiment: Experiment) -> None:
    """Whether memory has room for what evaluation draws.

    :raises ConfigError: it has not.
    """
    asked, data = experiment.evaluation, experiment.data
    check_episodes("evaluation.num_episodes", asked.num_episodes, asked.num_observed + asked.num_predicted, data)
    drawn = min(asked.posterior_episodes, asked.num_episodes) * asked.num_predicted
    check_memory("evaluation.posterior_samples", asked.posterior_samples, 4 * drawn * math.prod(data.frame_shape))


def with_measures(evaluation: Evaluation, experiment: Experiment) -> Evaluation:
    """Add what the task of the data alone can measure."""
    task = task_of(experiment.data)
    metrics, by_horizon = task.measure(experiment.data, evaluation, seed=experiment.evaluation.seed)
    metrics = measured(evaluation.metrics | metrics, task.measures)
    return replace(evaluation, metrics=metrics, by_horizon=evaluation.by_horizon | by_horizon)
