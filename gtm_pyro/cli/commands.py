"""What each command of gtm-pyro does."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from gtm_pyro.cli.action_files import read_actions
from gtm_pyro.cli.data_import import import_episodes
from gtm_pyro.cli.inputs import (
    all_held_out,
    build,
    check_file,
    check_room,
    newest_step,
    one_run,
    other_folder,
    planned_run,
    report_folder,
    trained,
    with_measures,
)
from gtm_pyro.cli.localisation_inputs import localisation_inputs
from gtm_pyro.diagnostics import diagnose
from gtm_pyro.diagnostics.export import diagnosis_kept, save_diagnosis
from gtm_pyro.diagnostics.posterior import posterior, save_posterior
from gtm_pyro.errors import ConfigError, GTMPyroError
from gtm_pyro.evaluation.evaluation import Evaluation, evaluate
from gtm_pyro.evaluation.generation import generate
from gtm_pyro.evaluation.localisation import localise
from gtm_pyro.experiment import catalogue
from gtm_pyro.experiment.declared import Experiment
from gtm_pyro.experiment.files import experiments
from gtm_pyro.experiment.trust import foreign_classes
from gtm_pyro.inference.capabilities import has_heading
from gtm_pyro.inference.losses import FOR_ANY_PAIR
from gtm_pyro.report.comparison import check_suffix, compare
from gtm_pyro.report.figures import save_figures
from gtm_pyro.report.localisation_figure import save_localisation_figure
from gtm_pyro.report.page import summary, write_report
from gtm_pyro.report.video import check_video, save_video
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.storage.names import quoted
from gtm_pyro.storage.progress import phase
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.tasks import fill_folder
from gtm_pyro.tasks.base import task_of
from gtm_pyro.training.fitting import fit
from gtm_pyro.training.preflight import Rehearsal, rehearse


def train_command(arguments: Namespace) -> None:
    """Train, evaluate, report."""
    config, folder, resume = planned_run(arguments)
    experiment, device = build(config)
    rehearsed = _rehearsed(experiment, device)
    for line in experiment.notes:
        print(line)
    is_new = not folder.path.exists()
    if not resume:
        RunFolder.create(folder.path)
    try:
        with folder.held():
            write_result(folder.config, experiment.yaml().encode())
            _train(experiment, folder, device, resume, rehearsed)
    except GTMPyroError:
        if is_new:
            folder.remove_unused()
        raise


def _rehearsed(experiment: Experiment, device: torch.device) -> Rehearsal:
    """Everything that the training and the evaluation after it will do, once, before anything is written."""
    check_room(experiment)
    model, guide = (program.to(device) for program in (experiment.model, experiment.guide))
    return rehearse(
        model,
        guide,
        experiment.data,
        experiment.loss,
        experiment.stages,
        experiment.fields["seed"],
        device,
        experiment.fields["precision"],
        experiment.fields["auxiliary"],
        lambda model, guide: _evaluate(replace(experiment, model=model, guide=guide), device, rehearsal=True),
    )


def _train(experiment: Experiment, folder: RunFolder, device: torch.device, resume: bool, rehearsed: Rehearsal) -> None:
    fields = experiment.fields
    trust = " --trust" if foreign_classes(yaml.safe_load(experiment.yaml())) else ""
    go_on = f"gtm-pyro train --resume {quoted(folder.path)}{trust}"
    with _if_stopped(f"continue with {go_on}"):
        fit(
            experiment.model,
            experiment.guide,
            experiment.data,
            loss=experiment.loss,
            initialisation=fields["initialisation"],
            auxiliary=fields["auxiliary"],
            stages=experiment.stages,
            learning_rates=experiment.learning_rates,
            steps=fields["steps"],
            clip_norm=fields["clip_norm"],
            max_restarts=fields["max_restarts"],
            seed=fields["seed"],
            device=device,
            precision=fields["precision"],
            out=folder.path,
            checkpoint_every=fields["checkpoint_every"],
            log_every=fields["log_every"],
            resume=resume,
            rehearsed=rehearsed,
        )
    with _if_stopped(f"the training is complete; to make the report: {go_on}"):
        _finish(experiment, folder, device)


def evaluate_command(arguments: Namespace) -> None:
    """Measure a run."""
    folder, apart = one_run(arguments, "evaluate"), report_folder(arguments)
    check_file("--out", arguments.out)
    overrides = all_held_out(folder, arguments.overrides)
    experiment, device = trained(folder, overrides)
    check_room(experiment)
    evaluation = _evaluate(experiment, device)
    own = not any(name.split(".")[0] in ("data", "evaluation", "guide") for name in overrides)
    out = arguments.out or (str(folder.evaluation) if own else None)
    if out == str(folder.evaluation):
        with diagnosis_kept(folder, newest_step(folder)):
            evaluation.save(out)
    elif out:
        evaluation.save(out)
    if apart is not None:
        _report(evaluation, experiment, apart, device)
    _show(evaluation, experiment, " and ".join(filter(None, [out, str(apart.report) if apart else None])))


def diagnose_command(arguments: Namespace) -> None:
    """Tell when the posterior of a run can be trusted."""
    folder = one_run(arguments, "diagnose")
    checks = arguments.checks.split(",") if arguments.checks is not None else None
    overrides = all_held_out(folder, arguments.overrides)
    other = other_folder(arguments)
    experiment, device = trained(folder, overrides)
    with phase("looking whether the posterior can be trusted"):
        diagnosis = diagnose(
            experiment.model,
            experiment.guide,
            experiment.held_out(device),
            seed=experiment.evaluation.seed,
            checks=checks,
            num_draws=arguments.draws,
            num_simulations=arguments.simulations,
            **experiment.nearness,
        )
    for name, value in diagnosis.numbers.items():
        print(f"{name:<42} {value:.4g}")
    for check, sentence in diagnosis.advice.items():
        print(f"{check}: {sentence}")
    own = not any(name.split(".")[0] in ("data", "guide") for name in overrides)
    if other is not None:
        save_diagnosis(diagnosis, other, newest_step(folder))
        print(f"written: {arguments.out}")
    elif own:
        with folder.held():
            save_diagnosis(diagnosis, folder, newest_step(folder))
            print(f"written: {write_report(folder)}")


def localise_command(arguments: Namespace) -> None:
    """Find agents that were put anywhere on a map."""
    folder, other = one_run(arguments, "localise"), other_folder(arguments)
    walks = localisation_inputs(folder, arguments)
    with phase("finding the agents"):
        result = localise(
            walks.model, walks.guide, walks.first, walks.second,
            mapper=walks.mapper, kidnapped=walks.kidnapped, cell_size=walks.cell_size, seed=arguments.seed,
        )  # fmt: skip
    for name, value in result.metrics.items():
        print(f"{name:<36} {value:.4g}")
    out = other or folder
    with nullcontext() if other else folder.held():
        paths = [out.path / "localisation.json", out.path / "localisation.png"]
        result.save(paths[0], settings=walks.settings, step=newest_step(folder))
        save_localisation_figure(result, paths[1])
    print(f"written: {' and '.join(str(path) for path in paths)}")


def compare_command(arguments: Namespace) -> None:
    """Runs side by side."""
    check_file("--out", check_suffix(arguments.out) if arguments.out else None)
    comparison = compare(arguments.folders)
    paths = comparison.save(arguments.out or "compare.png")
    print(comparison.text())
    print(f"written: {' and '.join(str(path) for path in paths)}")


def generate_command(arguments: Namespace) -> None:
    """Imagine further steps."""
    folder = one_run(arguments, "generate")
    check_file("--out", arguments.out)
    check_file("--video", arguments.video)
    if arguments.video:
        check_video(arguments.video)
    if arguments.split not in ("train", "test"):
        raise ConfigError(f"--split: expected train or test, got {arguments.split!r}")
    experiment, device = trained(folder, all_held_out(folder, arguments.overrides))
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
    if arguments.video:
        print(f"film: {save_video(generated, arguments.video, has_heading(model))}")
    if generated.retrieval_accuracy is not None:
        print(
            f"{generated.visited_share:.1%} of them at places visited before, where the right memory was read in "
            f"{generated.retrieval_accuracy:.2%} (squared error a pixel {generated.mse_visited:.5f})"
        )


def report_command(arguments: Namespace) -> None:
    """Evaluate again and draw everything again."""
    folder = one_run(arguments, "report")
    experiment, device = trained(folder, arguments.overrides)
    _finish(experiment, folder, device)


def data_command(arguments: Namespace) -> None:
    """Make episodes in advance."""
    fill_folder(arguments)


def data_import_command(arguments: Namespace) -> None:
    """Import episodes of others."""
    import_episodes(arguments)


def list_command(arguments: Namespace) -> None:
    """Print what there is."""
    print("experiments\n" + _table(experiments()))
    for family in catalogue.FAMILIES:
        # what cannot be evaluated on held-out episodes cannot be trained from here
        found = {n: cls for n, cls in catalogue.classes(family).items() if getattr(cls, "amortised", True)}
        if family == "losses":  # Pyro's own documentation tells what they are
            print(f"\n{family}, from pyro.infer\n  {', '.join(n for n, cls in found.items() if cls in FOR_ANY_PAIR)}")
        else:
            print(f"\n{family}\n" + _table({name: catalogue.summary(cls) for name, cls in found.items()}))


def _evaluate(experiment: Experiment, device: torch.device, rehearsal: bool = False) -> Evaluation:
    """
    :param rehearsal: one episode will do.
    """
    model: Any = experiment.model
    guide: Any = experiment.guide
    episodes, seed = experiment.held_out(device, 1 if rehearsal else None), experiment.evaluation.seed
    few: dict[str, Any] = {"iwae_particles": 0} if rehearsal else {}
    with phase("rehearsing the evaluation" if rehearsal else "evaluating"):
        return with_measures(evaluate(model, guide, episodes, seed=seed, **few, **experiment.nearness), experiment)


def _finish(experiment: Experiment, folder: RunFolder, device: torch.device) -> None:
    """Everything in a run folder that is made from a trained model."""
    evaluation = _evaluate(experiment, device)
    _report(evaluation, experiment, folder, device)
    _show(evaluation, experiment, str(folder.report))


def _report(evaluation: Evaluation, experiment: Experiment, folder: RunFolder, device: torch.device) -> None:
    """The files of an evaluation, whether or not the folder is the run's own."""
    model: Any = experiment.model
    guide: Any = experiment.guide
    asked, names = experiment.evaluation, experiment.data.action_names
    few = evaluation.episodes[: asked.posterior_episodes].to(device)
    with phase("drawing from the posterior"):
        tree = posterior(model, guide, few, asked.posterior_samples, seed=asked.seed, action_names=names)
    with diagnosis_kept(folder, newest_step(folder)):
        evaluation.save(folder.evaluation)
        save_posterior(tree, folder.posterior)
    evaluation.save_by_horizon(folder.path / "evaluation_by_horizon.npz")
    transition = getattr(experiment.model, "transition", None)
    if isinstance(transition, nn.Module):
        transition.to("cpu")
    task = task_of(experiment.data)
    with phase("drawing figures"):
        save_figures(
            evaluation,
            folder.figures,
            task=task,
            ground=task.ground(experiment.data, evaluation, seed=asked.seed, episode=0),
            transition=transition,
            training=folder.read_metrics(),
            action_names=names,
        )
    write_report(folder, task)


def _show(evaluation: Evaluation, experiment: Experiment, out: str | None) -> None:
    for name, value in evaluation.metrics.items():
        print(f"{name:<34} {value:.6g}")
    for sentence in summary(evaluation.metrics, task_of(experiment.data)):
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
