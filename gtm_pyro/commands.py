"""What each command of gtm-pyro does."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gtm_pyro import catalogue, checkpoints
from gtm_pyro.action_files import read_actions
from gtm_pyro.atomic import write_result
from gtm_pyro.catalogue import import_class
from gtm_pyro.config import Config, Experiment, experiments, read_experiment, read_run, resolve
from gtm_pyro.diagnostics import posterior, save_posterior
from gtm_pyro.errors import ConfigError, GTMPyroError, RunFolderError
from gtm_pyro.evaluation import Evaluation, evaluate
from gtm_pyro.figures import save_figures
from gtm_pyro.fitting import first_line, fit, resolve_device
from gtm_pyro.generation import generate
from gtm_pyro.interrupts import Interrupted
from gtm_pyro.report import summary, write_report
from gtm_pyro.run_folder import RunFolder

# what may change when a run goes on: where it computes and how often it writes, not what it computes
_MAY_CHANGE = ("device", "num_threads", "checkpoint_every", "log_every", "evaluation")

# what evaluation asks for besides Pyro's programs
_MODEL_METHODS = ("remember", "imagine", "encoder", "decoder")


def train_command(arguments: Namespace) -> None:
    """Train, evaluate, report."""
    config, folder, resume = _planned_run(arguments)
    experiment, device = _build(config)
    _rehearse_evaluation(experiment, device)
    if not resume:
        RunFolder.create(folder.path)
    with folder.held():
        write_result(folder.config, config.yaml().encode())
        _train(experiment, folder, device, resume)


def _train(experiment: Experiment, folder: RunFolder, device: torch.device, resume: bool) -> None:
    fields = experiment.fields
    go_on = f"gtm-pyro train --resume {folder.path}"
    with _if_stopped(f"continue with {go_on}"):
        fit(
            experiment.model,
            experiment.guide,
            experiment.data,
            loss=experiment.loss,
            stages=experiment.stages,
            learning_rates=experiment.learning_rates,
            steps=fields["steps"],
            clip_norm=fields["clip_norm"],
            max_restarts=fields["max_restarts"],
            seed=fields["seed"],
            device=device,
            out=folder.path,
            checkpoint_every=fields["checkpoint_every"],
            log_every=fields["log_every"],
            resume=resume,
        )
    with _if_stopped(f"the training is complete, {go_on} makes the report"):
        _finish(experiment, folder, device)


def evaluate_command(arguments: Namespace) -> None:
    """Measure a run."""
    folder = _one_run(arguments, "evaluate")
    overrides = _all_held_out(folder, arguments.overrides)
    experiment, device = _trained(folder, overrides)
    _check_can_be_evaluated(experiment)
    evaluation = _evaluate(experiment, device)
    own = not any(name.split(".")[0] in ("data", "evaluation") for name in overrides)
    out = arguments.out or (str(folder.evaluation) if own else None)
    if out:
        evaluation.save(out)
    _show(evaluation, out)


def generate_command(arguments: Namespace) -> None:
    """Imagine further steps."""
    folder = _one_run(arguments, "generate")
    if arguments.split not in ("train", "test"):
        raise ConfigError(f"--split: expected train or test, got {arguments.split!r}")
    experiment, device = _trained(folder, _all_held_out(folder, arguments.overrides))
    _check_can_be_evaluated(experiment)
    actions = read_actions(arguments.actions, experiment.data) if arguments.actions else None
    steps = arguments.steps or (1000 if actions is None else len(actions))
    if actions is not None and len(actions) < steps:
        raise ConfigError(f"--steps: expected at most the {len(actions)} actions of {arguments.actions}, got {steps}")
    model: Any = experiment.model
    guide: Any = experiment.guide
    generated = generate(
        model,
        guide,
        experiment.data,
        steps=steps,
        num_observed=arguments.num_observed or experiment.evaluation.num_observed,
        actions=actions,
        seed=arguments.seed,
        split=arguments.split,
        pixels=arguments.pixels,
        device=device,
    )
    out = Path(arguments.out or folder.path / "generated.npz")
    generated.save(out)
    print(f"{len(generated.frames)} steps after {len(generated.observed_frames)} remembered ones: {out}")
    if generated.retrieval_accuracy is not None:
        print(
            f"{generated.visited_share:.1%} of them at places visited before, where the right memory was read in "
            f"{generated.retrieval_accuracy:.2%} (squared error a pixel {generated.mse_visited:.5f})"
        )


def report_command(arguments: Namespace) -> None:
    """Evaluate again and draw everything again."""
    folder = _one_run(arguments, "report")
    experiment, device = _trained(folder, arguments.overrides)
    _check_can_be_evaluated(experiment)
    _finish(experiment, folder, device)


def list_command(arguments: Namespace) -> None:
    """Print what there is."""
    print("experiments\n" + _table(experiments()))
    for family in catalogue.FAMILIES:
        found = catalogue.classes(family)
        if family == "losses":  # Pyro's own documentation tells what they are
            print(f"\n{family}, from pyro.infer\n  {', '.join(found)}")
        else:
            print(f"\n{family}\n" + _table({name: catalogue.summary(cls) for name, cls in found.items()}))


def _planned_run(arguments: Namespace) -> tuple[Config, RunFolder, bool]:
    """The config and the folder of a training, and whether it is resumed."""
    name, overrides = arguments.experiment, arguments.overrides
    if arguments.resume is None:
        if name is None:
            raise ConfigError(f"experiment: expected {' or '.join(experiments())} or a YAML file, got none")
        config = resolve(read_experiment(name), overrides)
        folder = RunFolder(Path(arguments.out or Path("runs") / Path(name).stem))
        _refuse_used(folder)
        return config, folder, False
    where = {path for path in (arguments.resume, arguments.out) if path}
    if len(where) != 1:
        got = "none" if not where else " and ".join(sorted(where))
        raise ConfigError(f"--resume: expected one run folder, got {got}")
    folder = RunFolder.open(where.pop())
    stored = read_run(folder.config)
    if name is None:
        refused = [field for field in overrides if field.split(".")[0] not in _MAY_CHANGE]
        if refused:
            allowed = ", ".join(_MAY_CHANGE)
            raise ConfigError(f"--{refused[0]}: a resumed run keeps its settings; only {allowed} may change")
        return resolve(stored, overrides), folder, True
    config = resolve(read_experiment(name), overrides)
    _check_same_settings(config, resolve(stored), folder)
    return config, folder, True


def _refuse_used(folder: RunFolder) -> None:
    """Look before anything is made: a name typed twice costs no time. ``RunFolder.create`` has the last word."""
    if folder.path.is_dir() and folder.contents():
        raise RunFolderError(
            f"{folder.path}: expected a new or empty folder, this one is in use; "
            f"gtm-pyro train --resume {folder.path} continues the run in it"
        )


def _check_same_settings(asked: Config, stored: Config, folder: RunFolder) -> None:
    mine, theirs = asked.flat(), stored.flat()
    for field in {**mine, **theirs}:
        if field.split(".")[0] not in _MAY_CHANGE and mine.get(field) != theirs.get(field):
            raise RunFolderError(
                f"{folder.path}: its run has other settings: {field} is {theirs.get(field)!r}, not {mine.get(field)!r}"
            )


def _one_run(arguments: Namespace, command: str) -> RunFolder:
    if arguments.folder is None:
        raise ConfigError(f"DIR: expected a run folder, got none; usage: gtm-pyro {command} DIR")
    return RunFolder.open(arguments.folder)


def _all_held_out(folder: RunFolder, overrides: Mapping[str, str]) -> dict[str, str]:
    """With another source of episodes, all that it has is held out: none of it was trained on."""
    result = dict(overrides)
    if {"data", "data.class_path", "data.images", "data.directory"} & result.keys():
        data = resolve(read_run(folder.config), overrides)["data"]
        if "test_fraction" in signature(import_class("data", data["class_path"])).parameters:
            result.setdefault("data.test_fraction", "1.0")
    return result


def _trained(folder: RunFolder, overrides: Mapping[str, str]) -> tuple[Experiment, torch.device]:
    experiment, device = _build(resolve(read_run(folder.config), overrides))
    checkpoints.restore(folder.path, experiment.model, experiment.guide)
    for program in (experiment.model, experiment.guide):
        program.to(device)
    return experiment, device


def _build(config: Config) -> tuple[Experiment, torch.device]:
    device = resolve_device(config["device"])
    if config["num_threads"] is not None:
        torch.set_num_threads(config["num_threads"])
    return config.build(), device


def _check_can_be_evaluated(experiment: Experiment) -> None:
    for what, program, names in (("model", experiment.model, _MODEL_METHODS), ("guide", experiment.guide, ("path",))):
        missing = [name for name in names if not hasattr(program, name)]
        if missing:
            raise ConfigError(f"{what}: evaluation needs {missing[0]}, which {type(program).__name__} does not have")


def _rehearse_evaluation(experiment: Experiment, device: torch.device) -> None:
    """Evaluate once on one episode: what evaluation cannot work with is told before hours of training, not after.

    :raises ConfigError: says why.
    """
    _check_can_be_evaluated(experiment)
    try:
        # copies, for a program may make parameters on its first call
        model, guide = (program.to(device) for program in deepcopy((experiment.model, experiment.guide)))
        seed, episode = experiment.evaluation.seed, experiment.held_out(device, num_episodes=1)
        evaluate(model, guide, episode, seed=seed, iwae_particles=0)  # type: ignore[arg-type]
    except (GTMPyroError, ValueError, RuntimeError) as error:
        raise ConfigError(f"evaluation: {first_line(error)}") from error


def _evaluate(experiment: Experiment, device: torch.device) -> Evaluation:
    model: Any = experiment.model
    guide: Any = experiment.guide
    return evaluate(model, guide, experiment.held_out(device), seed=experiment.evaluation.seed)


def _finish(experiment: Experiment, folder: RunFolder, device: torch.device) -> None:
    """Everything in a run folder that is made from a trained model."""
    evaluation = _evaluate(experiment, device)
    evaluation.save(folder.evaluation)
    evaluation.save_by_horizon(folder.path / "evaluation_by_horizon.npz")
    model: Any = experiment.model
    guide: Any = experiment.guide
    asked, names = experiment.evaluation, experiment.data.action_names
    few = evaluation.episodes[: asked.posterior_episodes].to(device)
    tree = posterior(model, guide, few, asked.posterior_samples, seed=asked.seed, action_names=names)
    save_posterior(tree, folder.posterior)
    transition = getattr(experiment.model, "transition", None)
    if isinstance(transition, nn.Module):
        transition.to("cpu")
    save_figures(evaluation, folder.figures, transition=transition, training=folder.read_metrics(), action_names=names)
    write_report(folder)
    _show(evaluation, str(folder.report))


def _show(evaluation: Evaluation, out: str | None) -> None:
    for name, value in evaluation.metrics.items():
        print(f"{name:<30} {value:.6g}")
    for sentence in summary({k: v for k, v in evaluation.metrics.items() if v == v}):
        print(sentence)
    if out:
        print(f"written: {out}")


def _table(rows: Mapping[str, str]) -> str:
    width = max((len(name) for name in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows.items())


@contextmanager
def _if_stopped(advice: str) -> Iterator[None]:
    """Add to the message of a Ctrl-C or a SIGTERM what to do next."""
    try:
        yield
    except KeyboardInterrupt as stop:
        where = str(stop).partition(";")[0] or "stopped"
        raise Interrupted(f"{where}; {advice}", getattr(stop, "exit_status", 130) - 128) from None
