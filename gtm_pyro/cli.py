"""The command line, gtm-pyro: its help, its errors and its exit statuses. The work is in `gtm_pyro.commands`."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from gtm_pyro.arguments import Command, parse
from gtm_pyro.catalogue import did_you_mean
from gtm_pyro.config import FIELDS
from gtm_pyro.errors import ConfigError, GTMPyroError
from gtm_pyro.interrupts import Interrupted

BAD_INPUT = 2

HELP = """usage: gtm-pyro COMMAND ...

Generative temporal models with memory: train, measure and use them.

  train EXPERIMENT     train a model, evaluate it and write a report
  evaluate DIR         measure a trained run, also on images of your own
  generate DIR         imagine any number of further steps from actions alone
  report DIR           draw the figures and the page of a run again
  list                 the experiments, and the classes that can be named in them

a first run (a few minutes on two cores), and what to look at afterwards:
  gtm-pyro train image-navigation --out runs/first
  open runs/first/report.html

gtm-pyro COMMAND --help tells more. Exit status: 0 done, 2 bad input or a run that cannot go on (one line says why),
130 or 143 stopped by Ctrl-C or SIGTERM; a training that was stopped, even by force, continues with --resume.
--debug, anywhere, also shows where an error came from; --version tells the version.
"""

_TRAIN = """
Train a model on an experiment, then evaluate it on held-out episodes and write a report.

  EXPERIMENT             a name (gtm-pyro list shows them) or a YAML file, such as the config.yaml of an earlier run
  --out DIR              the run folder, new or empty (default: runs/EXPERIMENT)
  --resume [DIR]         continue the run in DIR, or in --out, from its newest checkpoint; on a CPU it ends in the same
                         parameters as a run that was never stopped
  --FIELD VALUE          replace a field of the experiment; dots lead to fields within it

fields:
{fields}

examples:
  gtm-pyro train image-navigation --seed 3 --steps 2000 --checkpoint_every 200 --out runs/a --device cpu
  gtm-pyro train image-navigation --data.images ~/photos --out runs/mine      images of your own
  gtm-pyro train image-navigation --data.walls false --out runs/open
  gtm-pyro train image-navigation --data.walls false --model.transition Translation --learning_rates.by_prefix {{}}
  gtm-pyro train image-navigation --model.memory.num_neighbors 10 --stages.0.steps 500 --out runs/b
  gtm-pyro train image-navigation --loss RenyiELBO --loss.num_particles 4 --out runs/c
  gtm-pyro train image-navigation --guide my_guides.MyGuide --guide.width 64 --out runs/d
  gtm-pyro train runs/a/config.yaml --seed 4 --out runs/e                     the same again with another seed
  gtm-pyro train --resume runs/a

A class is named in short where the library has it (--guide DeadReckoning), otherwise by its import path, looked for in
the current folder too. A guide is made with the model as its first argument. Every name and type is checked before
any work begins.

A run folder holds config.yaml (every field with its value), metrics.jsonl, checkpoint/, evaluation.json,
evaluation_by_horizon.npz, posterior.nc (opens with ArviZ), figures/ and report.html.
"""

_EVALUATE = """
Measure a trained run on held-out episodes: the first steps are memorised, the rest is predicted from actions alone.

  DIR                    a run folder
  --out FILE.json        where the numbers go (default: DIR/evaluation.json; with other fields than the run's own the
                         numbers are shown, and written only with --out)
  --data.images DIR2     on a folder of images of your own: every image in it is held out
  --data.FIELD VALUE, --evaluation.FIELD VALUE, --device NAME, --num_threads N

examples:
  gtm-pyro evaluate runs/a
  gtm-pyro evaluate runs/a --data.images ~/photos --out photos.json
  gtm-pyro evaluate runs/a --evaluation.num_predicted 2000 --evaluation.num_episodes 8 --out long.json
"""

_GENERATE = """
Let a trained model remember the first steps of a held-out episode and imagine what comes after, from actions alone.
The length is limited by nothing but the disk: memory grows only with what is written.

  DIR                    a run folder
  --steps N              imagined steps (default: as many as the actions, otherwise 1000)
  --out FILE.npz         where they go (default: DIR/generated.npz)
  --actions FILE         actions to follow, one a line: a name (up), a number from 0, or a vector; or an .npy or .npz
                         file of numbers (steps,) or vectors (steps, action_dim). Default: a random walk
  --num_observed N       steps that are remembered (default: as in the run's evaluation)
  --seed N               of the episode, the walk and the noise (default: 0)
  --split test|train     where the episode is from (default: test)
  --pixels uint8|float32 type of the frames: 0 to 255, or [0, 1] at four times the size (default: uint8)
  --data.FIELD VALUE, --device NAME, --num_threads N

The file holds frames (steps, C, H, W), states, actions, entries (which memory was read); the remembered steps as
observed_frames, observed_states, observed_actions, observed_poses; and, where the data knows the true world,
true_frames, poses, visited and retrieved. The share of steps that read the right memory is shown.

examples:
  gtm-pyro generate runs/a --steps 10000 --out rollout.npz
  gtm-pyro generate runs/a --actions actions.txt --data.images ~/photos --out mine.npz
"""

_REPORT = """
Evaluate a trained run again, and draw its figures and its page: DIR/figures/ and DIR/report.html.

  DIR                    a run folder
  --device NAME, --num_threads N

example:
  gtm-pyro report runs/a
"""

_LIST = """
The experiments, and the classes that can be named in them, with a line on each. Classes of your own are named by their
import path and need no registration.
"""

_MACHINE = ("device", "num_threads")

COMMANDS = {
    "train": Command(
        "train EXPERIMENT [--out DIR] [--FIELD VALUE ...], or train --resume DIR",
        _TRAIN.format(fields="\n".join(f"  --{name:<20} {text}" for name, text in FIELDS.items())),
        options=("out",),
        optional=("resume",),
        fields=tuple(FIELDS),
    ),
    "evaluate": Command(
        "evaluate DIR [--data.images DIR2] [--out FILE.json]",
        _EVALUATE,
        options=("out",),
        fields=("data", "evaluation", *_MACHINE),
    ),
    "generate": Command(
        "generate DIR [--steps N] [--out FILE.npz] [--actions FILE]",
        _GENERATE,
        options=("steps", "out", "actions", "num_observed", "seed", "split", "pixels"),
        fields=("data", *_MACHINE),
    ),
    "report": Command("report DIR", _REPORT, fields=_MACHINE),
    "list": Command("list", _LIST, positionals=0),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; `words` are those after "gtm-pyro". Returns the exit status."""
    rest = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in rest
    rest = [word for word in rest if word != "--debug"]
    try:
        with _sigterm_interrupts():
            return _run(rest)
    except (GTMPyroError, OSError) as error:
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
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else BAD_INPUT
    name = words[0]
    if name == "--version":
        from gtm_pyro import __version__

        print(f"gtm_pyro {__version__}")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"{name}: expected one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    command = COMMANDS[name]
    if "-h" in words or "--help" in words:
        print(f"usage: gtm-pyro {command.usage}\n{command.text}", end="")
        return 0
    arguments = parse(words[1:], command)
    # classes of the user's own are looked for where the command runs, after the installed packages
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())

    from gtm_pyro import commands

    run = getattr(commands, f"{name}_command")
    run(arguments)
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, GTMPyroError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error).partition("Trace Shapes:")[0]  # Pyro adds a table of shapes to what a program raises
    return " ".join(text.split()) or type(error).__name__


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


if __name__ == "__main__":
    sys.exit(main())
