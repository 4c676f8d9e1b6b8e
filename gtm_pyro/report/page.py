"""One self-contained page about a run: what was run, what came out, in numbers and figures."""

import base64
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from gtm_pyro.diagnostics.advice import advise, of_check
from gtm_pyro.diagnostics.export import DIAGNOSED_STEP
from gtm_pyro.errors import RunFolderError
from gtm_pyro.evaluation.map_verdict import doubt
from gtm_pyro.evaluation.measures import DESCRIBED
from gtm_pyro.report.words import CHECKS
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.json import finite, read_numbers
from gtm_pyro.storage.names import printable
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import read_run
from gtm_pyro.tasks.base import Task, Words, general_task, task_of_config

Metrics = Mapping[str, float | None]


def write_report(folder: str | os.PathLike[str] | RunFolder, task: Task | None = None) -> Path:
    """Write ``report.html`` of a run folder from what lies in it; images are inlined, nothing is loaded from elsewhere.

    What is missing (no evaluation yet, a figure that the data has no room for) is left out and said so. An
    evaluation.json that cannot be read counts as none, and the log tells.

    :param task: of the run's episodes; by default the one of the class that its config.yaml names.
    :returns: the page's path.
    :raises RunFolderError: the folder is missing or holds no run, a file is damaged, or the page cannot be written.
    """
    import jinja2

    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    config = read_run(run.config) if run.config.is_file() else {}
    known = read_numbers(run.evaluation)
    words = (task or task_of_config(config)).words(known)
    rows = run.read_metrics()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gtm_pyro.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    drawn = [(caption, run.figures / caption.file) for caption in words.captions]
    page = environment.get_template("report.html.j2").render(
        title=run.path.resolve().name,
        version=version("gtm-pyro"),
        summary=_said(known, words),
        bars=_error_bars(known, words),
        measures=_table(known, words),
        bars_note=words.bars_note,
        training=_training_facts(rows),
        checks=_checks(known, run, config),
        figures=[(caption, _inlined(path)) for caption, path in drawn if path.is_file()],
        config=_read_text(run.config) if run.config.is_file() else "",
    )
    return write_result(run.report, printable(page).encode())


def summary(metrics: Metrics, task: Task | None = None) -> list[str]:
    """What the numbers say, in sentences; those that need a number that is not there are left out.

    :param task: of the episodes; by default the general one.
    """
    known = finite(metrics)
    return _said(known, (task or general_task()).words(known))


def _said(known: Mapping[str, float], words: Words) -> list[str]:
    said = []
    if known.keys() >= {"num_episodes", "num_observed", "num_predicted"}:
        seen, more = f"{known['num_observed']:.0f}", f"{known['num_predicted']:.0f}"
        what = f"memorised {seen} frames and predicted the next {more} from actions alone"
        if "mse" not in known:
            what = f"saw {seen} frames and then {more}, which were scored; it cannot imagine frames from actions alone"
        said.append(f"On {known['num_episodes']:.0f} held-out episodes the model {what}.")
    doubted = doubt(known)
    return said + ([] if doubted is None else [doubted]) + list(words.sentences)


def _error_bars(known: Mapping[str, float], words: Words) -> list[tuple[str, str, float, str]]:
    """Label, number, length in percent, and a colour class, for the errors that are compared; none for one alone."""
    found = [(bar.label, known[bar.name], bar.colour) for bar in words.bars if bar.name in known]
    longest = max((value for _, value, _ in found), default=0.0) or 1.0
    bars = [(label, _number(value), 100 * value / longest, colour) for label, value, colour in found]
    return bars if len(bars) > 1 else []


def _table(known: Mapping[str, float], words: Words) -> list[tuple[str, str, str, str]]:
    """Label, value, which way is better, and meaning; then the numbers that this version does not describe."""
    rows: list[tuple[str, str, str, str]] = []
    for measure in words.measures:
        if measure.name in known:
            label, meaning = (text.format_map(words.terms) for text in (measure.label, measure.meaning))
            unit = f" ({measure.unit})" if measure.unit else ""
            rows.append((label + unit, measure.written(known[measure.name]), measure.better, meaning))
    described = {measure.name for measure in words.measures}
    checked = {name for check in CHECKS for name in of_check(check, known)} | {DIAGNOSED_STEP}
    # what the task left out of its words says nothing
    others = [name for name in known if name not in described | checked and name not in DESCRIBED]
    return rows + [(name, _number(known[name]), "", "not described by this version") for name in others]


class _Checked(NamedTuple):
    """What the page says of one check."""

    title: str
    advice: str
    figure: str
    caption: str
    numbers: list[tuple[str, str]]


def _guide(config: Mapping[str, Any]) -> str:
    """The class of the run's guide; none where the run does not say."""
    guide = config.get("guide")
    path = guide.get("class_path") if isinstance(guide, dict) else guide
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def _checks(metrics: Metrics, run: RunFolder, config: Mapping[str, Any]) -> list[_Checked]:
    """The checks that gtm-pyro diagnose has made."""
    made = {name: numbers for name in CHECKS if (numbers := of_check(name, metrics))}
    guide, found = _guide(config) if made else "", []
    for name, numbers in made.items():
        figure = CHECKS[name]
        path = run.figures / figure.file
        image = _inlined(path) if path.is_file() else ""
        shown = [(label, _number(value)) for label, value in numbers.items()]
        found.append(_Checked(figure.title, advise(name, metrics, guide), image, figure.caption, shown))
    return found


def _training_facts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not rows:
        return []
    last = rows[-1]
    facts = [("optimiser steps", f"{last['step']}")] if "step" in last else []
    if isinstance(last.get("seconds"), int | float):
        facts.append(("time in training", f"{last['seconds'] / 60:.1f} minutes"))
    for key, label in (("restarts", "restarts, for being stuck"), ("loss", "last logged loss (nats a frame)")):
        if isinstance(last.get(key), int | float):
            facts.append((label, _number(last[key])))
    return facts


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: expected a readable text file ({error})") from error


def data_uri(content: bytes, kind: str) -> str:
    """An image to be inlined in a page.

    :param kind: png or gif.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _inlined(path: Path) -> str:
    try:
        return data_uri(path.read_bytes(), path.suffix[1:])
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror})") from error
