"""The command line, gtm-pyro: its help, its errors and its exit statuses. The work is in ``gtm_pyro.cli.commands``."""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from gtm_pyro import __version__
from gtm_pyro.cli.help import (
    COMPARE,
    DATA_IMPORT,
    DIAGNOSE,
    EVALUATE,
    FIRST_RUN,
    GENERATE,
    LIST,
    LOCALISE,
    PURPOSE,
    REPORT,
    TRAIN,
)
from gtm_pyro.errors import ConfigError, GTMPyroError, did_you_mean
from gtm_pyro.experiment.schema import FIELDS
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.storage.limits import LARGEST_DRAWS, LARGEST_EPISODES, LARGEST_SEED, LARGEST_WORKERS
from gtm_pyro.storage.names import streams_that_show_every_name
from gtm_pyro.tasks import help

BAD_INPUT = 2

_MACHINE = ("device", "num_threads")
_TRUST = "import what the run's config.yaml names of other packages than gtm_pyro and Pyro; importing a module runs it"
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory")


class _Parser(argparse.ArgumentParser):
    """Help as it is written; a mistake is a ConfigError, which ``main`` tells in one line."""

    def __init__(self, **keywords: Any) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30, width=120)
        super().__init__(formatter_class=layout, allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument ").replace("expected one argument", "expected a value"))


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def whole(text: str) -> int:
        # Python reads no number of thousands of digits
        if text.isdecimal() and len(text) < 100 and least <= int(text) and (most is None or int(text) <= most):
            return int(text)
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, got {text!r}")

    return whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"expected a number over 0, got {text!r}")


def make_parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the whole, for its help, and one for each command."""
    top = _Parser(prog="gtm-pyro", usage="gtm-pyro COMMAND ...", description=PURPOSE, epilog=FIRST_RUN)
    top.add_argument("--version", action="version", version=f"gtm_pyro {__version__}", help="tell the version")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, usage: str, summary: str, text: str, *fields: str) -> argparse.ArgumentParser:
        description, _, epilog = text.partition("\n\n")
        line = f"gtm-pyro {name} {usage}".strip()
        parser = commands.add_parser(name, help=summary, usage=line, description=description, epilog=epilog)
        parser.set_defaults(fields=fields)
        group = parser.add_argument_group("fields of the experiment, replaced; dots lead to fields within them")
        for field in fields:
            group.add_argument(f"--{field}", metavar="VALUE", default=argparse.SUPPRESS, help=FIELDS[field])
        if usage.startswith("DIR") and not usage.startswith("DIR DIR"):
            parser.add_argument("folder", metavar="DIR", nargs="?", help="a run folder")
            parser.add_argument("--trust", action="store_true", help=_TRUST)
        return parser

    usage = "EXPERIMENT [--out DIR] [--FIELD VALUE ...], or train --resume DIR"
    add = command("train", usage, "train a model, evaluate it and write a report", TRAIN, *FIELDS).add_argument
    text = "a name (gtm-pyro list shows them) or a YAML file, such as the config.yaml of an earlier run"
    add("experiment", metavar="EXPERIMENT", nargs="?", help=text)
    add("--out", metavar="DIR", help="the run folder, new or empty (default: runs/EXPERIMENT)")
    text = """continue the run in DIR, or in --out, from its newest checkpoint; on a CPU, with the same number of
        threads, it ends in the same parameters as a run that was never stopped"""
    add("--resume", metavar="DIR", nargs="?", const="", help=text)
    add("--trust", action="store_true", help=_TRUST)

    usage = "DIR [--data.images DIR2] [--out FILE.json] [--report DIR3]"
    text = "measure a trained run, also on images of your own"
    add = command("evaluate", usage, text, EVALUATE, "data", "evaluation", "guide", *_MACHINE).add_argument
    text = """where the numbers go (default: DIR/evaluation.json; with other fields than the run's own the numbers are
        shown, and written only with --out)"""
    add("--out", metavar="FILE.json", help=text)
    text = "write numbers, figures, posterior.nc and a page into this folder, which is not the run's"
    add("--report", metavar="DIR3", help=text)

    usage = "DIR [--checks NAME,...] [--guide GUIDE] [--out DIR2]"
    fields = ("data", "evaluation", "guide", *_MACHINE)
    add = command("diagnose", usage, "tell when a run's posterior can be trusted", DIAGNOSE, *fields).add_argument
    add("--checks", metavar="NAME,...", help="which ones (default: all that the data has what it takes for)")
    add("--draws", metavar="N", type=_whole(100, LARGEST_DRAWS), default=200, help="of the path (default: %(default)s)")
    text = "episodes for sbc (default: %(default)s)"
    add("--simulations", metavar="N", type=_whole(40, LARGEST_DRAWS), default=100, help=text)
    add("--out", metavar="DIR2", help="write into this folder, leave the run alone")

    usage, text = "DIR [--kidnap] [--slip P] [--guide GUIDE] [--out DIR2]", "find an agent put anywhere on a map"
    add = command("localise", usage, text, LOCALISE, "data", "guide", *_MACHINE).add_argument
    add("--num_episodes", metavar="N", type=_whole(1), default=64, help="worlds (default: %(default)s)")
    text = "steps of the first walk, which makes the map (default: %(default)s)"
    add("--memorised_steps", metavar="N", type=_whole(1), default=256, help=text)
    text = "frames of the second walk before the agent must be found (default: %(default)s)"
    add("--observed_steps", metavar="N", type=_whole(1), default=64, help=text)
    text = "put the agent elsewhere after these, and give it 32 frames to recover"
    add("--kidnap", action="store_true", help=text)
    text = "actions fail with this probability on the second walk, and the model is told (default: as in the run)"
    add("--slip", metavar="P", help=text)
    text = "side of a cell in pose units (default: as in the run's evaluation, as the data says, or read off the poses)"
    add("--cell_size", metavar="X", type=_positive, help=text)
    text = "particles; short for --guide.num_hypotheses (default: 64, or what a --guide has)"
    add("--num_hypotheses", metavar="N", type=_whole(1), help=text)
    text = "of the worlds and both walks (default: %(default)s)"
    add("--seed", metavar="N", type=_whole(0, LARGEST_SEED), default=0, help=text)
    text = "where the worlds are from, test or train (default: %(default)s)"
    add("--split", metavar="SPLIT", default="test", help=text)
    add("--out", metavar="DIR2", help="write into this folder, leave the run alone")

    add = command("compare", "DIR DIR ... [--out FILE]", "several runs in one table and figure", COMPARE).add_argument
    add("folders", metavar="DIR", nargs="*", help="run folders")
    text = "ends in .html, .png, .csv or .json (default: compare.png, and the table is shown)"
    add("--out", metavar="FILE", help=text)

    usage, text = "DIR [--steps N] [--out FILE.npz] [--video FILE]", "imagine further steps from actions alone"
    add = command("generate", usage, text, GENERATE, "data", *_MACHINE).add_argument
    text = "imagined steps (default: as many as the actions, otherwise 1000)"
    add("--steps", metavar="N", type=_whole(1), help=text)
    add("--out", metavar="FILE.npz", help="where they go (default: DIR/generated.npz)")
    text = "a film of them too, .gif or .mp4 (MP4 needs gtm-pyro[video])"
    add("--video", metavar="FILE", help=text)
    add("--actions", metavar="FILE", help="actions to follow (default: a random walk)")
    text = "steps that are remembered (default: as in the run's evaluation)"
    add("--num_observed", metavar="N", type=_whole(1), help=text)
    text = "of the episode, the walk and the noise (default: %(default)s)"
    add("--seed", metavar="N", type=_whole(0, LARGEST_SEED), default=0, help=text)
    text = "where the episode is from, test or train (default: %(default)s)"
    add("--split", metavar="SPLIT", default="test", help=text)
    text = "frames as uint8, 0 to 255, or float32, [0, 1] at four times the size (default: %(default)s)"
    add("--pixels", metavar="TYPE", default="uint8", help=text)

    command("report", "DIR", "draw the figures and the page of a run again", REPORT, *_MACHINE)
    usage, text = "NAME [--episodes N] [--engine vizdoom] [--out DIR]", help.DATA_PURPOSE
    add = command("data", usage, text, help.DATA).add_argument
    add("source", metavar="NAME", nargs="?", help=help.DATA_NAMES)
    text = "to train on (default: what the source has; a shard of 32 is always whole)"
    add("--episodes", metavar="N", type=_whole(1, LARGEST_EPISODES), help=text)
    text = "to test on (default: what the source has)"
    add("--test_episodes", metavar="N", type=_whole(1, LARGEST_EPISODES), help=text)
    add("--steps", metavar="N", type=_whole(1), help="frames of an episode (default: what the source has)")
    add("--engine", metavar="NAME", default="raycaster", help="raycaster or vizdoom (default: %(default)s)")
    add("--seed", metavar="N", type=_whole(0, LARGEST_SEED), default=0, help=help.DATA_SEED)
    add("--steady", action="store_true", help=help.DATA_STEADY)
    add("--out", metavar="DIR", help="where the shards go (default: a folder of the user's caches)")
    text = "processes that make them; 0 is this one (default: %(default)s)"
    add("--workers", metavar="N", type=_whole(0, LARGEST_WORKERS), default=1, help=text)

    usage, text = "SOURCE --out DIR", "import episodes of an environment, a data set, files or videos"
    add = command("data import", usage, text, DATA_IMPORT).add_argument
    text = "a Gymnasium id, an NPZ or HDF5 file, a video, a folder of such files, or a Minari data set"
    add("source", metavar="SOURCE", nargs="?", help=text)
    add("--out", metavar="DIR", help="where the shards go")
    add("--kind", metavar="KIND", help="gymnasium, npz, hdf5, minari or video (default: as SOURCE looks)")
    text = "of frames, averaged to it: a side, or HEIGHTxWIDTH (default: as they are)"
    add("--size", metavar="SIZE", help=text)
    text = "before that: square, the largest one in the middle, or TOP,LEFT,HEIGHT,WIDTH"
    add("--crop", metavar="CROP", help=text)
    add("--key", metavar="NAME", help="hdf5, minari: where in the observations images are")
    text = "video: its actions (default: the CSV or JSONL file beside it that has its name)"
    add("--actions", metavar="FILE", help=text)
    text = "video: the action of a row led to its frame (default: it was taken there)"
    add("--led", action="store_true", help=text)
    add("--episodes", metavar="N", type=_whole(1, LARGEST_EPISODES), help="gymnasium: how many (default: 100)")
    add("--steps", metavar="N", type=_whole(2), help="gymnasium: frames of an episode, at most (default: 200)")
    add("--seed", metavar="N", type=_whole(0, LARGEST_SEED), help="gymnasium: of all episodes (default: 0)")
    text = "gymnasium: a class by its path, as MODULE.CLASS(NAME=VALUE); once more for the next one; none for none"
    add("--wrapper", metavar="CLASS", action="append", help=text)
    text = "gymnasium: made with an action space and a generator (default: random actions, with repeats)"
    add("--policy", metavar="CLASS", help=text)
    text = "gymnasium: tells where the agent is (default: known for MiniGrid and MiniWorld)"
    add("--poses", metavar="CLASS", help=text)
    text = "gymnasium: the actions that are chosen, and numbered anew (default: all; of MiniGrid 0,1,2)"
    add("--only", metavar="N,...", help=text)
    text = "gymnasium: play on without a reset where an episode ends, as at a goal (default: a shorter episode)"
    add("--past_the_end", action="store_true", help=text)

    command("list", "", "the experiments, and the classes that can be named in them", LIST)
    return top, commands.choices


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    :param words: those after ``gtm-pyro``.
    :return: the exit status.
    """
    with streams_that_show_every_name():
        return _main(words)


def _main(words: Sequence[str] | None) -> int:
    rest = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in rest
    rest = [word for word in rest if word != "--debug"]
    try:
        with _sigterm_interrupts():
            return _run(rest)
    except SystemExit as done:  # of argparse, after --help
        return int(done.code or 0)
    except (GTMPyroError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_of_memory(error):
            raise
        if isinstance(error, BrokenPipeError):  # the reader of our output, head for instance, had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        if debug:
            traceback.print_exc()
        _say(f"error: {_one_line(error)}")
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        _say(str(stop) or "interrupted")
        return stop.exit_status if isinstance(stop, Interrupted) else 128 + signal.SIGINT


def _run(words: list[str]) -> int:
    top, parsers = make_parsers()
    if not words:
        top.print_help()
        return BAD_INPUT
    pair = " ".join(words[:2])
    name = pair if pair in parsers else words[0]
    if name.startswith("-"):
        top.parse_args(words)
    if name not in parsers:
        raise ConfigError(f"{name}: expected one of {', '.join(parsers)}{did_you_mean(name, parsers)}")
    arguments = _parse(parsers[name], words[len(name.split()) :])
    # classes of the user's own are looked for where the command runs, after the installed packages
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())

    from gtm_pyro.cli import commands
    from gtm_pyro.storage.progress import progress_shown

    with progress_shown():
        getattr(commands, f"{name.replace(' ', '_')}_command")(arguments)
    return 0


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The words of a command; ``overrides`` holds those that are fields, as text by dotted name."""
    fields = parser.get_default("fields")
    for name in {word.partition("=")[0] for word in words}:
        # argparse has no options with an open end
        if name.startswith("--") and "." in name and name[2:].partition(".")[0] in fields:
            parser.add_argument(name, dest=name[2:], default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    # unlike parse_args, takes an EXPERIMENT that follows the options
    arguments, rest = parser.parse_known_intermixed_args(words)
    unknown = [word.partition("=")[0] for word in rest if word.startswith("-")]
    if unknown:
        known = {"help", "debug", *fields, *vars(arguments)} - {"experiment", "folder", "fields"}
        guess = did_you_mean(unknown[0].removeprefix("--").partition(".")[0], known)
        raise ConfigError(f"{unknown[0]}: no such option{guess.replace('mean ', 'mean --')}")
    if rest:
        raise ConfigError(f"{rest[0]}: not expected here; {' '.join(parser.format_usage().split())}")
    _refuse_empty_names(arguments)
    arguments.overrides = {name: text for name, text in vars(arguments).items() if name.partition(".")[0] in fields}
    return arguments


def _refuse_empty_names(arguments: argparse.Namespace) -> None:
    """An empty name, of a variable of the shell that is not set for instance, would mean the working folder."""
    for option in ("out", "report", "video", "actions"):
        if getattr(arguments, option, None) == "":
            raise ConfigError(f"--{option}: expected a name, got ''")
    for name in (getattr(arguments, "folder", None), *getattr(arguments, "folders", ())):
        if name == "":
            raise ConfigError("DIR: expected the name of a run folder, got ''")


def _one_line(error: BaseException) -> str:
    if _is_of_memory(error):
        return f"out of memory ({str(error).strip().splitlines()[0]}); smaller numbers need less"
    if isinstance(error, OSError) and not isinstance(error, GTMPyroError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error).partition("Trace Shapes:")[0]  # Pyro adds a table of shapes to what a program raises
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__


def _is_of_memory(error: BaseException) -> bool:
    """torch's are RuntimeErrors."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _say(text: str) -> None:
    print(f"gtm-pyro: {text}", file=sys.stderr)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a command like Ctrl-C does, so that files are closed and temporary ones removed."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted("stopped", signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
