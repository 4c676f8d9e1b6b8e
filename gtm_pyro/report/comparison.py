"""Runs side by side: what differs in their settings, and what came of it."""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gtm_pyro.errors import ConfigError
from gtm_pyro.report.page import data_uri, read_evaluation
from gtm_pyro.report.style import png
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.json import plain
from gtm_pyro.storage.names import printable, quoted
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINUTES = "minutes"


class Column(NamedTuple):
    """A number of evaluation.json: its heading, its format, the command that makes it, and what must be defined for
    it to be."""

    name: str
    heading: str
    form: str
    command: str = "report"
    always: bool = True
    needs: str = ""


COLUMNS = (
    Column("elbo", "ELBO", ".2f"),
    Column("iwae", "IWAE", ".2f"),
    Column("localisation_rmse", "localisation", ".3f"),
    Column("localisation_rmse_tracked_end", "tracked end", ".3f", always=False),
    Column("localisation_rmse_memorised_path", "memorised path", ".3f", always=False),
    Column("retrieval_accuracy", "retrieval", ".4f"),
    Column("khat_median", "k-hat", ".2f", "diagnose"),
    Column("khat_share_above_0.7", "k-hat > 0.7", ".2f", "diagnose"),
    Column("coverage_90", "coverage 90%", ".2f", "diagnose", always=False, needs="localisation_rmse"),
    Column(MINUTES, "minutes", ".1f", "train --resume"),
)

_MOST_SETTINGS = 8  # columns of a table that can be read
# how often a run writes and what it keeps is no difference between runs
_IGNORED = ("checkpoint_every", "log_every", "evaluation.posterior_episodes", "evaluation.posterior_samples")
_LONG = 24


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs in one table.

    :param runs: their folders.
    :param settings: fields that differ between the runs, by name, one value a run; "-" where it has none.
    :param numbers: by name in ``COLUMNS``, one a run; None where the run does not have it yet, NaN where it is not
        defined for the run.
    """

    runs: tuple[str, ...]
    settings: dict[str, tuple[str, ...]]
    numbers: dict[str, tuple[float | None, ...]]

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
        columns = [column for column in COLUMNS if column.name in self.numbers]
        rows = [["run", *self.shown, *(column.heading for column in columns)]]
        for i, run in enumerate(self.runs):
            values = [_written(self.numbers[column.name][i], column.form) for column in columns]
            rows.append([printable(run), *(printable(self.settings[name][i]) for name in self.shown), *values])
        return rows

    def hints(self) -> list[str]:
        """What the table leaves out, and for runs that lack numbers the commands that make them."""
        hidden = [name for name in self.settings if name not in self.shown]
        said = []
        if hidden:
            some = ", ".join(hidden[:3]) + (", ..." if len(hidden) > 3 else "")
            said.append(f"{len(hidden)} more settings differ ({some}); a .csv or .json holds all of them")
        if any(value is not None and math.isnan(value) for values in self.numbers.values() for value in values):
            said.append("none: not defined for this run")
        commands: dict[str, list[str]] = {}
        for i, run in enumerate(self.runs):
            lacking = {c.command for c in COLUMNS if c.name in self.numbers and self.numbers[c.name][i] is None}
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
            words = [_labelled(name, self.settings[name][group[0]]) for name in fields if name in self.shown]
            label = printable(", ".join(words)) or ("all seeds" if self.settings and len(members) == 1 else run)
            # what the label has no room for may be all that differs
            found[f"{label} ({run})" if label in found else label] = group
        return found

    def figure(self) -> "Figure":
        """One panel a number, one row a group, one dot a run, a bar at the mean of several."""
        from gtm_pyro.report.style import PREDICTED, TRUE, canvas
        from gtm_pyro.report.style import plain as plain_axes

        groups = self.groups()
        known = {name: [plain(value) for value in values] for name, values in self.numbers.items()}
        shown = [c for c in COLUMNS if any(v is not None for v in known.get(c.name, ()))]
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
            ax.set_title(column.heading, fontsize=10)
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
    """Read the settings and the numbers of runs; one that is given twice counts once.

    :raises ConfigError: fewer than two.
    :raises RunFolderError: one of them is no run folder, or a file in it is damaged.
    """
    runs = list({run.path.resolve(): run for run in map(RunFolder.open, reversed(folders))}.values())[::-1]
    if len(runs) < 2:
        got = f"{runs[0].path} {len(folders)} times" if len(folders) > 1 else len(folders)
        raise ConfigError(f"DIR: expected two run folders or more, got {got}")
    numbers: list[dict[str, float | None]] = []
    for run in runs:
        seconds = [row["seconds"] for row in run.read_metrics() if isinstance(row.get("seconds"), int | float)]
        measured = read_evaluation(run.evaluation).items()
        # evaluation.json has null for what is not defined
        known = {name: math.nan if value is None else value for name, value in measured}
        impossible = [c.name for c in COLUMNS if math.isnan(known.get(c.needs, 0.0))]
        known = dict.fromkeys(impossible, math.nan) | known
        numbers.append({**known, MINUTES: seconds[-1] / 60 if seconds else None})
    shown = [c.name for c in COLUMNS if _is_column(c, [n.get(c.name) for n in numbers])]
    return Comparison(
        tuple(str(run.path) for run in runs),
        _differences([_flat(read_run(run.config)) for run in runs]),
        {name: tuple(n.get(name) for n in numbers) for name in shown},
    )


def _differences(configs: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [_short(config[name]) if name in config else "-" for config in configs]
        if len(set(values)) > 1 and name not in _IGNORED:
            found[name] = tuple(_lettered(values) if max(map(len, values)) > _LONG else values)
    # what one compares for stands first
    first = [name for name in ("model", "data", "guide", "loss", "seed") if name in found]
    return {name: found[name] for name in (*first, *(name for name in found if name not in first))}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every value by its dotted name, as one would type it on the command line."""
    if isinstance(value, dict) and value:
        inside = {"class_path": name, "init_args": name}
        parts = [_flat(inner, inside.get(key, f"{name}.{key}".lstrip("."))) for key, inner in value.items()]
        return {k: v for part in parts for k, v in part.items() if v != {}}
    return {name: value}


def _short(value: Any) -> str:
    """A class by its own name, other values as they are."""
    text = str(value)
    return text.rpartition(".")[2] if isinstance(value, str) and text.replace(".", "").isidentifier() else text


def _lettered(values: list[str]) -> list[str]:
    """A curriculum, or anything else too long for a column: A, B, ... in the order of appearance."""
    order = list(dict.fromkeys(values))
    return [chr(ord("A") + order.index(value)) if len(order) <= 26 else str(order.index(value)) for value in values]


def _labelled(name: str, value: str) -> str:
    return value if name in ("guide", "loss", "model", "data") else f"{name.rpartition('.')[2]} {value}"


def _written(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return "none" if math.isnan(value) else f"{value:{form}}"


def _is_column(column: Column, values: Sequence[float | None]) -> bool:
    """Whether some run has the number, or could have it."""
    if any(value is not None and not math.isnan(value) for value in values):
        return True
    return column.always and None in values
