"""gtm-pyro data import: episodes of others become shards to train on."""

import ast
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.catalogue import import_class
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.storage.names import quoted
from gtm_pyro.tasks.recordings import (
    GymnasiumRecordings,
    Hdf5Recordings,
    Import,
    MinariRecordings,
    Named,
    NpzRecordings,
    Recordings,
    Reshaping,
    VideoRecordings,
)
from gtm_pyro.tasks.recordings.base import need
from gtm_pyro.tasks.recordings.video import VIDEOS

_HDF5 = (".hdf5", ".h5", ".hdf")
# the options that only some kinds of sources have
_OPTIONS = {
    "gymnasium": ("episodes", "steps", "seed", "wrapper", "policy", "poses", "only", "past_the_end"),
    "npz": (),
    "hdf5": ("key",),
    "minari": ("key",),
    "video": ("actions", "led"),
}


def import_episodes(arguments: Namespace) -> None:
    """Import the episodes that the words of the command describe.

    :raises ConfigError: no such source, or an option that it does not have.
    """
    if arguments.source is None:
        raise ConfigError("data import: expected a Gymnasium id, a file, a folder or a Minari data set, got none")
    if arguments.out is None:
        raise ConfigError("--out: expected a folder for the shards, got none")
    source = _source(arguments)
    if not len(source):
        raise ConfigError(f"{arguments.source}: expected at least one episode, got none")
    work = Import(source, Path(arguments.out))
    kept, total = work.num_kept, len(source)
    if work.missing:
        try:
            with tqdm(total=total, initial=kept, unit="episode", dynamic_ncols=True) as bar:
                work.run(bar.update)
        except KeyboardInterrupt as stop:
            there = Import(source, work.folder).num_kept
            where = f"{there} of {total} episodes are in {work.folder}, the same command imports the rest"
            raise Interrupted(f"stopped; {where}", getattr(stop, "exit_status", 130) - 128) from None
    else:
        print("they are there already, nothing was imported")
    print(f"{total} episode{'s' * (total != 1)}: {work.folder}")
    print(f"use them: gtm-pyro train own-episodes --data.directory {quoted(work.folder)}")


def _source(arguments: Namespace) -> Recordings:
    text = arguments.source
    kind = arguments.kind or _kind(text)
    if kind not in _OPTIONS:
        raise ConfigError(f"--kind: expected one of {', '.join(_OPTIONS)}, got {kind}")
    for other, options in _OPTIONS.items():
        for option in options:
            if getattr(arguments, option) and option not in _OPTIONS[kind]:
                raise ConfigError(f"--{option}: expected for {other} only, got it for {kind}")
    reshape = Reshaping(_size(arguments.size), _crop(arguments.crop))
    if kind == "gymnasium":
        return _environment(arguments, reshape)
    if kind == "npz":
        return NpzRecordings(_files(text, (".npz",)), reshape)
    if kind == "hdf5":
        return Hdf5Recordings(Path(text), reshape, arguments.key)
    if kind == "minari":
        need("minari", "minari", "reading a Minari data set")
        return MinariRecordings(text, reshape, arguments.key)
    files = _files(text, VIDEOS)
    log = None if arguments.actions is None else Path(arguments.actions)
    if log is not None and len(files) > 1:
        raise ConfigError(f"--actions: expected with one video, got {len(files)} of them")
    return VideoRecordings(files, reshape, log=log, led=bool(arguments.led))


def _kind(text: str) -> str:
    """What a source seems to be.

    :raises ConfigError: nothing that is known.
    """
    path = Path(text)
    if path.is_dir():
        if (path / "data" / "metadata.json").is_file():
            return "minari"
        kinds = {"npz": (".npz",), "video": VIDEOS}
        for kind, suffixes in kinds.items():
            if any(entry.suffix.lower() in suffixes for entry in path.iterdir()):
                return kind
        raise ConfigError(
            f"{text}: expected a folder of NPZ files, of videos or of a Minari data set, got none of them"
        )
    suffix = path.suffix.lower()
    kind = "npz" if suffix == ".npz" else "hdf5" if suffix in _HDF5 else "video" if suffix in VIDEOS else ""
    if kind:
        if not path.is_file():
            raise ConfigError(f"{text}: expected a file, there is nothing")
        return kind
    # Minari's end in a name in small letters, as in minigrid/BabyAI-Pickup/optimal-v0
    if re.fullmatch(r"(\S+/)?[a-z0-9-]+-v\d+", text) and "/" in text:
        return "minari"
    if re.fullmatch(r"\S+-v\d+", text):
        return "gymnasium"
    raise ConfigError(
        f"{text}: expected a Gymnasium id (MiniGrid-FourRooms-v0), an NPZ or HDF5 file, a video, a folder of them or a "
        "Minari data set; --kind says which it is"
    )


def _files(text: str, suffixes: Sequence[str]) -> list[Path]:
    path = Path(text)
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise ConfigError(f"{text}: expected files that end in {', '.join(suffixes)}, got none")
    return found


def _environment(arguments: Namespace, reshape: Reshaping) -> Recordings:
    given = {"num_episodes": arguments.episodes, "num_steps": arguments.steps, "seed": arguments.seed}
    named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if arguments.wrapper:
        named["wrappers"] = [_named("--wrapper", text) for text in arguments.wrapper if text != "none"]
    for name in ("policy", "poses"):
        if getattr(arguments, name):
            named[name] = _named(f"--{name}", getattr(arguments, name))
    if arguments.only:
        named["actions"] = _whole_numbers("--only", arguments.only)
    return GymnasiumRecordings(arguments.source, reshape, past_the_end=arguments.past_the_end, **named)


def _named(option: str, text: str) -> Named:
    """A class by its import path, with keywords in brackets where it takes some: ``module.Class(width=8)``.

    :raises ConfigError: nothing that can be read so, or no such class.
    """
    path, bracket, inner = text.partition("(")
    keywords: dict[str, Any] = {}
    if bracket:
        try:
            call = ast.parse(f"f({inner}", mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError
            keywords = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        except (SyntaxError, ValueError):
            raise ConfigError(f"{option}: expected module.Class or module.Class(name=value), got {text}") from None
    if "." not in path:
        raise ConfigError(f"{option}: expected the import path of a class, module.Class, got {text}")
    make: Callable[..., Any] = import_class(option, path)
    return Named(text, partial(make, **keywords) if keywords else make)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = _whole_numbers("--size", text.replace("x", ","))
    if len(sides) not in (1, 2):
        raise ConfigError(f"--size: expected a side, or HEIGHTxWIDTH, got {text}")
    return sides[0], sides[-1]


def _crop(text: str | None) -> str | tuple[int, ...] | None:
    return text if text is None or text.isalpha() else tuple(_whole_numbers("--crop", text))


def _whole_numbers(option: str, text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and len(word) < 10 for word in words):
        raise ConfigError(f"{option}: expected whole numbers, got {text}")
    return [int(word) for word in words]
