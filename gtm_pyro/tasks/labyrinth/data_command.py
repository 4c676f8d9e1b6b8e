"""gtm-pyro data: episodes that take long to make are made in advance."""

import math
import sys
from argparse import Namespace
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from gtm_pyro.errors import ConfigError, did_you_mean
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.storage.limits import check_disk
from gtm_pyro.storage.names import quoted
from gtm_pyro.tasks.labyrinth import shards
from gtm_pyro.tasks.labyrinth.shards import SHARD_SIZE
from gtm_pyro.tasks.labyrinth.sources import SOURCES, Labyrinth


def fill_folder(arguments: Namespace) -> None:
    """Fill a folder with the shards of a source."""
    source = _source(arguments)
    store, name = source.store, arguments.source
    if store.folder is None:  # the ray-caster keeps none by itself
        own = shards.automatic_folder(store.recipe)
        arguments.out = str(own)
        source = _source(arguments)
        store = source.store
    places = [*store.places("train"), *store.places("test")]
    wanted = store.missing(whole=True)
    kept = len(places) - len(wanted)
    values = source.num_steps * (math.prod(source.frame_shape) + source.action_dim + 3 * 8)
    assert store.folder is not None
    check_disk("--episodes", len(wanted) * SHARD_SIZE, values, store.folder)
    filled = store.fill(wanted)
    if kept:
        print(f"{kept} of {len(places)} shards were there already and are kept", file=sys.stderr)
    total, done = len(places) * SHARD_SIZE, kept * SHARD_SIZE
    try:
        with tqdm(total=total, initial=done, unit="episode", mininterval=0, dynamic_ncols=True) as bar:
            for _ in filled:
                bar.update(SHARD_SIZE)
    except KeyboardInterrupt as stop:
        source.close()
        whole = len(places) - len(store.missing())
        where = f"{whole} of {len(places)} shards are in {store.folder}, the same command makes the rest"
        raise Interrupted(f"stopped; {where}", getattr(stop, "exit_status", 130) - 128) from None
    finally:
        source.close()
    counts = f"{source.num_episodes} episodes to train on and {source.num_test_episodes} to test on"
    print(f"{counts}, of {source.num_steps} steps: {store.folder}")
    cache = f" --data.cache {quoted(store.folder)}" if store.is_users else ""
    print(f"use them: gtm-pyro train {name}{cache}{_other_fields(arguments, source)}")


def _source(arguments: Namespace) -> Labyrinth:
    """The source that the words of the command describe.

    :raises ConfigError: an unknown name, or an argument that the source does not have.
    """
    name = arguments.source
    known = ", ".join(SOURCES)
    if name is None:
        raise ConfigError(f"data: expected one of {known}, got none")
    if name not in SOURCES:
        raise ConfigError(f"{name}: expected one of {known}{did_you_mean(name, SOURCES)}")
    fields: dict[str, Any] = {"num_episodes": arguments.episodes, "num_test_episodes": arguments.test_episodes}
    fields |= {"num_steps": arguments.steps}
    if arguments.steady:
        if name != "labyrinth-rotation":
            raise ConfigError(f"--steady: expected with labyrinth-rotation only, got {name}")
        fields["from_rest"] = False
    given = {field: value for field, value in fields.items() if value is not None}
    return SOURCES[name](
        engine=arguments.engine, seed=arguments.seed, cache=arguments.out, workers=arguments.workers, **given
    )


def _other_fields(arguments: Namespace, source: Labyrinth) -> str:
    """What must be said besides the folder, so that training asks for these shards and no others."""
    fields = {"engine": (arguments.engine, "raycaster"), "seed": (arguments.seed, 0)}
    words = [f" --data.{name} {value}" for name, (value, usual) in fields.items() if value != usual]
    # experiments ask for other numbers than the source's own
    words.append(f" --data.num_episodes {source.num_episodes}")
    if arguments.test_episodes is not None:
        words.append(f" --data.num_test_episodes {source.num_test_episodes}")
    if arguments.steps is not None:
        words.append(f" --data.num_steps {source.num_steps}")
    return "".join([*words, " --data.from_rest false" if arguments.steady else ""])
