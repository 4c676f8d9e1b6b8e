"""One self-contained page about a run: what was run, what came out, in numbers and figures."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gtm_pyro import __version__
from gtm_pyro.diagnostics.advice import advise, of_check
from gtm_pyro.errors import RunFolderError
from gtm_pyro.evaluation.map_verdict import doubt
from gtm_pyro.report.words import CHECKS, percent
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.names import printable
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import read_run
from gtm_pyro.tasks.labyrinth.words import (
    bars_note_of,
    bars_of,
    correlation_in_words,
    figures_of,
    has_views,
    measures_of,
    sentences,
)

Metrics = Mapping[str, float | None]


def write_report(folder: str | os.PathLike[str] | RunFolder) -> Path:
    """Write ``report.html`` of a run folder from what lies in it; images are inlined, nothing is loaded from elsewhere.

    What is missing (no evaluation yet, a figure that the data has no room for) is left out and said so.

    :returns: the page's path.
    :raises RunFolderError: the folder is missing or holds no run, a file is damaged, or the page cannot be written.
    """
    import jinja2

    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    metrics = read_evaluation(run.evaluation)
    rows = run.read_metrics()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gtm_pyro.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    drawn = [(figure, run.figures / figure.file) for figure in figures_of(metrics)]
    page = environment.get_template("report.html.j2").render(
        title=run.path.resolve().name,
        version=__version__,
        summary=summary(metrics),
        bars=_error_bars(metrics),
        measures=[(label, _value(metrics, name), meaning) for name, label, meaning in measures_of(metrics)],
        bars_note=bars_note_of(metrics),
        training=_training_facts(rows),
        checks=_checks(metrics, run),
        figures=[(figure, _inlined(path)) for figure, path in drawn if path.is_file()],
        config=_read_text(run.config) if run.config.is_file() else "",
    )
    return write_result(run.report, printable(page).encode())


def summary(metrics: Metrics) -> list[str]:
    """What the numbers say, in sentences; those that need a number that is not defined are left out."""
    known = {name: value for name, value in metrics.items() if value is not None and not math.isnan(value)}
    said = []
    if known.keys() >= {"num_episodes", "num_observed", "num_predicted"}:
        said.append(
            f"On {known['num_episodes']:.0f} held-out episodes the model memorised {known['num_observed']:.0f} frames "
            f"and predicted the next {known['num_predicted']:.0f} from actions alone."
        )
    doubted = doubt(known)
    said += [] if doubted is None else [doubted]
    if has_views(known):
        return said + sentences(known)
    if "retrieval_accuracy" in known:
        right = percent(known["retrieval_accuracy"])
        last = known.get("retrieval_accuracy_last_32")
        late = "" if last is None else f" ({percent(last)} over the last 32)"
        said.append(f"At places it had visited, it read the right memory in {right} of the steps{late}.")
    if known.keys() >= {"mse_visited", "reconstruction_mse", "mean_frame_mse"} and known["reconstruction_mse"] > 0:
        floors = known["mse_visited"] / known["reconstruction_mse"]
        share = percent(known["mse_visited"] / known["mean_frame_mse"])
        said.append(
            f"Its error there is {floors:.2f} times the floor that its decoder sets, and {share} of the mean frame's."
        )
    if "localisation_rmse" in known:
        off = known["localisation_rmse"] / known.get("cell_size", 1.0)
        said.append(f"Inferred positions are off by {off:.3f} cells after the best affine fit.")
    return said


def _error_bars(metrics: Metrics) -> list[tuple[str, str, float, str]]:
    """Label, number, length in percent, and a colour class, for the errors of visited and of new places."""
    wanted = [
        ("reconstruction_mse", "floor: encoded and decoded", "floor"),
        ("mse_visited", "predicted, visited places", "predicted"),
        ("mse_unvisited", "predicted, new places", "new"),
        ("mean_frame_mse", "mean memorised frame", "mean"),
    ]
    if metrics.get("mse_visited") is None:
        wanted = [
            ("reconstruction_mse_all", "floor: encoded and decoded", "floor"),
            ("mse", "predicted", "predicted"),
            ("mean_frame_mse_all", "mean memorised frame", "mean"),
        ]
    if has_views(metrics):
        wanted = bars_of(metrics)
    values = [(label, metrics.get(name), colour) for name, label, colour in wanted]
    known = [(label, value, colour) for label, value, colour in values if value is not None]
    longest = max((value for _, value, _ in known), default=0.0) or 1.0
    return [(label, _number(value), 100 * value / longest, colour) for label, value, colour in known]


class _Checked(NamedTuple):
    """What the page says of one check."""

    title: str
    advice: str
    figure: str
    caption: str
    numbers: list[tuple[str, str]]


def _guide(config: Path) -> str:
    """The class of the run's guide; none where the run does not say."""
    guide = read_run(config).get("guide") if config.is_file() else None
    path = guide.get("class_path") if isinstance(guide, dict) else guide
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def _checks(metrics: Metrics, run: RunFolder) -> list[_Checked]:
    """The checks that gtm-pyro diagnose has made."""
    made = {name: numbers for name in CHECKS if (numbers := of_check(name, metrics))}
    guide, found = _guide(run.config) if made else "", []
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


def _value(metrics: Metrics, name: str) -> str:
    value = metrics[name]
    return correlation_in_words(value) if name == "heading_correlation" and value is not None else _number(value)


def _number(value: float | None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: expected a readable text file ({error})") from error


def read_evaluation(path: Path) -> dict[str, float | None]:
    """The numbers of an evaluation.json; none where there is no file.

    :raises RunFolderError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        numbers = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}: expected JSON, got {error.msg} in line {error.lineno}") from error
    if not isinstance(numbers, dict) or not all(type(value) in (int, float, type(None)) for value in numbers.values()):
        raise RunFolderError(f"{path}: expected an object of numbers and nulls")
    return numbers


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
