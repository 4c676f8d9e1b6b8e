"""Runs side by side: what differs in their settings, and what came of it."""

import csv
import io
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gtm_pyro.diagnostics.measures import MEASURES as DIAGNOSED
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.evaluation.style import png
from gtm_pyro.inference.capabilities import Capability
from gtm_pyro.report.page import data_uri
from gtm_pyro.report.settings import differences, labelled
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.json import plain, read_numbers
from gtm_pyro.storage.names import printable, quoted
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import read_run
from gtm_pyro.tasks.base import Measure, Truth, task_of_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINUTES = Measure("minutes", "minutes", "time in training", form=".1f", column="minutes", command="train --resume")
_MOST_SETTINGS = 8  # columns of a table that can be read


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs in one table.

    :param runs: their folders.
    :param settings: fields that differ between the runs, by name, one value a run; "-" where it has none.
    :param numbers: all that some run has, by name, one a run; None where the run does not have it yet, NaN where it is
        not defined for the run.
    :param columns: the numbers that a table has room for.
    """

    runs: tuple[str, ...]
    settings: dict[str, tuple[str, ...]]
    numbers: dict[str, tuple[float | None, ...]]
    columns: tuple[Measure, ...]

    @property
    def shown(self) -> list[str]:
        """The settings that a table has room for: those that all runs have, and first those of the same class."""

        def is_of_other_classes(name: str) -> bool:
            parts = name.split(".")
            return any(".".join(parts[:i]) in self.settings for i in range(1, len(parts)))

        common = [name for name, values in self.settings.items() if "-" not in values]
        return sorted(common, key=is_of_other_classes)[:_MOST_SETTINGS]

    def rows(self) -> list[list[str]]:
        """Headings, then one row a run; "-" for what is missing, "none" for what is not defined."""
        rows = [["run", *self.shown, *(column.column for column in self.columns)]]
        for i, run in enumerate(self.runs):
            values = [_written(self.numbers[column.name][i], column) for column in self.columns]
            rows.append([printable(run), *(printable(self.settings[name][i]) for name in self.shown), *values])
        return rows

    def hints(self) -> list[str]:
        """What the table leaves out, and for runs that lack numbers the commands that make them."""
        hidden = [name for name in self.settings if name not in self.shown]
        said = []
        if hidden:
            some = ", ".join(hidden[:3]) + (", ..." if len(hidden) > 3 else "")
            said.append(f"{len(hidden)} more settings differ ({some}); a .csv or .json holds all of them")
        if any(row[-len(self.columns) :].count("none") for row in self.rows()):
            said.append("none: not defined for this run")
        commands: dict[str, list[str]] = {}
        for i, run in enumerate(self.runs):
            lacking = {column.command for column in self.columns if self.numbers[column.name][i] is None}
            for command in sorted(lacking):
                commands.setdefault(command, []).append(run)
        for command, runs in commands.items():
            first = f" in {len(runs)} runs, for the first" if len(runs) > 1 else ""
            said.append(f"-: not known yet{first}: gtm-pyro {command} {quoted(runs[0])}")
        return said

    def text(self) -> str:
        """The table and the hints, for a terminal."""
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        words = 1 + len(self.shown)  # to the left, numbers to the right
        lines = [
            "  ".join(
                cell.ljust(width) if i < words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self.hints()])

    def csv(self) -> str:
        """One line a run, numbers in full, empty where one is missing."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["run", *self.settings, *self.numbers])
        for i, run in enumerate(self.runs):
            settings = [values[i] for values in self.settings.values()]
            numbers = [plain(values[i]) for values in self.numbers.values()]
            writer.writerow([run, *settings, *("" if number is None else number for number in numbers)])
        return printable(buffer.getvalue())

    def json(self) -> str:
        """A list of objects ``{"run", "settings", "numbers"}``."""
        content = [
            {
                "run": printable(run),
                "settings": {name: printable(values[i]) for name, values in self.settings.items()},
                "numbers": {name: values[i] for name, values in self.numbers.items()},
            }
            for i, run in enumerate(self.runs)
        ]
        return json.dumps(plain(content), indent=2) + "\n"

    def groups(self) -> dict[str, list[int]]:
        """Runs that differ in their seed only, by what sets them apart from the others."""
        fields = [name for name in self.settings if name != "seed"]
        members: dict[tuple[str, ...], list[int]] = {}
        for i, run in enumerate(self.runs):
            # runs without any difference are told apart by their names
            key = tuple(self.settings[name][i] for name in fields) if self.settings else (run,)
            members.setdefault(key, []).append(i)
        found: dict[str, list[int]] = {}
        for group in members.values():
            run = printable(self.runs[group[0]])
            words = [labelled(name, self.settings[name][group[0]]) for name in fields if name in self.shown]
            label = printable(", ".join(words)) or ("all seeds" if self.settings and len(members) == 1 else run)
            # what the label has no room for may be all that differs
            found[f"{label} ({run})" if label in found else label] = group
        return found

    def figure(self) -> "Figure":
        """One panel a number, one row a group, one dot a run, a bar at the mean of several."""
        from gtm_pyro.evaluation.style import PREDICTED, TRUE, canvas
        from gtm_pyro.evaluation.style import plain as plain_axes

        groups = self.groups()
        known = {name: [plain(value) for value in values] for name, values in self.numbers.items()}
        shown = [column for column in self.columns if any(v is not None for v in known[column.name])]
        columns = min(4, max(1, len(shown)))
        rows = -(-max(1, len(shown)) // columns)
        longest = max(len(label) for label in groups)
        size = (2.6 * columns + 0.07 * longest + 0.4, rows * (1.1 + 0.3 * len(groups)))
        figure, axes = canvas(rows, columns, size, sharey=True)
        for ax, column in zip(axes.flat, shown, strict=False):
            for y, members in enumerate(groups.values()):
                values = [v for v in (known[column.name][i] for i in members) if v is not None]
                ax.plot(values, [y] * len(values), "o", color=TRUE, alpha=0.6, markersize=5)
                if len(values) > 1:
                    ax.plot([np.mean(values)], [y], "|", color=PREDICTED, markersize=16, markeredgewidth=2)
            better = f"\n({column.better} is better)" if column.better else ""
            ax.set_title(column.column + better, fontsize=9)
            ax.locator_params(axis="x", nbins=4)
            plain_axes(ax)
        for ax in list(axes.flat)[len(shown) :]:
            ax.set_visible(False)
        axes[0, 0].set(yticks=range(len(groups)), yticklabels=list(groups), ylim=(len(groups) - 0.5, -0.5))
        return figure

    def html(self) -> str:
        """One self-contained page with the table and the figure."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("gtm_pyro.report", "templates"), autoescape=True,
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        head, *rows = self.rows()
        image = data_uri(png(self.figure()), "png")
        template = environment.get_template("compare.html.j2")
        return template.render(head=head, rows=rows, words=1 + len(self.shown), hints=self.hints(), image=image)

    def save(self, out: str | os.PathLike[str]) -> list[Path]:
        """Write what the suffix of ``out`` says: .png the figure, .csv or .json the table and the figure beside it,
        .html a page with both.

        :returns: the files written.
        :raises ConfigError: another suffix.
        :raises RunFolderError: a file cannot be written.
        """
        path = check_suffix(out)
        if path.suffix == ".html":
            return [write_result(path, printable(self.html()).encode())]
        written = []
        if path.suffix != ".png":
            text = self.csv() if path.suffix == ".csv" else self.json()
            written.append(write_result(path, text.encode()))
        return [*written, write_result(path.with_suffix(".png"), png(self.figure()))]


def check_suffix(out: str | os.PathLike[str]) -> Path:
    """The file that a comparison goes to.

    :raises ConfigError: it is of no kind that a comparison can be written as.
    """
    path = Path(out)
    if path.suffix not in (".html", ".png", ".csv", ".json"):
        raise ConfigError(f"--out: expected a file that ends in .html, .png, .csv or .json, got {str(out)!r}")
    return path


def compare(folders: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Read the settings and the numbers of runs, whichever they have; one that is given twice counts once.

    :raises ConfigError: fewer than two.
    :raises RunFolderError: one of them is no run folder, or its config or log is damaged.
    """
    runs = list({run.path.resolve(): run for run in map(RunFolder.open, reversed(folders))}.values())[::-1]
    if len(runs) < 2:
        got = f"{runs[0].path} {len(folders)} times" if len(folders) > 1 else len(folders)
        raise ConfigError(f"DIR: expected two run folders or more, got {got}")
    configs = [read_run(run.config) for run in runs]
    numbers = [{**read_numbers(run.evaluation), **_minutes(run)} for run in runs]
    tasks = [measure for config in configs for measure in task_of_config(config).measures]
    described = {measure.name: measure for measure in (*MEASURES, *tasks, *DIAGNOSED, MINUTES)}
    found = [*described, *dict.fromkeys(name for known in numbers for name in known if name not in described)]
    values = {name: tuple(_value(name, described.get(name), known) for known in numbers) for name in found}
    asked = {"diagnose", MINUTES.command} | ({"report"} if not any("elbo" in known for known in numbers) else set())
    columns = [m for m in described.values() if m.column and _is_column(m, values[m.name], asked)]
    # what nobody has is no number of theirs
    kept = {measure.name for measure in columns} | {name for known in numbers for name in known}
    return Comparison(
        tuple(str(run.path) for run in runs),
        differences(configs),
        {name: values[name] for name in found if name in kept},
        tuple(columns),
    )


def _minutes(run: RunFolder) -> dict[str, float]:
    seconds = [row["seconds"] for row in run.read_metrics() if isinstance(row.get("seconds"), int | float)]
    return {MINUTES.name: seconds[-1] / 60} if seconds else {}


def _value(name: str, measure: Measure | None, known: Mapping[str, float]) -> float | None:
    """A run's number; NaN where it has none for want of what it takes, None where it was not measured yet."""
    if name in known:
        return known[name]
    if measure is None or measure is MINUTES or "elbo" not in known:
        return None
    placed = any(name.startswith("localisation") for name in known)
    has_poses = placed or "visited_share" in known
    impossible = Truth.POSES in measure.needs and not has_poses
    impossible |= Capability.PATH in measure.needs and has_poses and not placed
    # what needs nothing is missing only where an earlier version measured
    return math.nan if impossible or (measure.command == "report" and measure.needs) else None


def _is_column(measure: Measure, values: Sequence[float | None], asked: Collection[str]) -> bool:
    """Whether some run has the number, or all could have it and were not asked yet.

    :param asked: commands whose numbers are shown as missing where no run has them.
    """
    if any(value is not None and not math.isnan(value) for value in values):
        return True
    return (
        measure.command in asked
        and all(value is None for value in values)
        and not {Truth.POSES, Truth.HEADINGS} & set(measure.needs)
    )


def _written(value: float | None, measure: Measure) -> str:
    if value is None:
        return "-"
    return "none" if math.isnan(value) else measure.written(value)
