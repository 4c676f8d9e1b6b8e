"""How fast labyrinths are seen: frames a second of the Doom engine and of the ray-caster.

python benchmarks/labyrinth_frames.py [--engines vizdoom] [--maps 2000] [--json FILE]

Whole episodes are played, policies and moves included; drawing the labyrinths and starting the engine are not timed
with them. One engine, on one thread, the best of several repeats. CPU seconds are those of this process and of the
engine's (Linux), which take turns: on one idle core, frames a second are frames a CPU second. With --maps, the Doom
engine also loads so many maps one after the other, and the memory of its processes is told on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import best_seconds

from gtm_pyro.errors import MissingDependencyError
from gtm_pyro.tasks.labyrinth import recording
from gtm_pyro.tasks.labyrinth.doom import DoomEngine
from gtm_pyro.tasks.labyrinth.maps import room
from gtm_pyro.tasks.labyrinth.motion import WALK_ACTIONS
from gtm_pyro.tasks.labyrinth.raycaster import RayCaster
from gtm_pyro.tasks.labyrinth.recording import Recording, Task
from gtm_pyro.tasks.labyrinth.tasks import rooms_task, rotation_task, walk_task

TASKS: dict[str, Callable[[np.random.SeedSequence], Task]] = {
    "rotation": rotation_task,
    "walk": walk_task,
    "rooms": rooms_task,
}


def drawn(kind: str, options: argparse.Namespace) -> list[Task]:
    """Fresh ones: a policy is good for one episode."""
    return [TASKS[kind](np.random.SeedSequence([options.seed, number])) for number in range(options.episodes)]


def rates(
    play: Callable[[Sequence[Task]], list[Recording]], tasks: Sequence[Task], session: int | None = None
) -> tuple[float, float]:
    """Frames a second, and frames a CPU second of this process and those of a session."""
    start, cpu = time.perf_counter(), cpu_seconds(session)
    frames = sum(len(recorded.frames) for recorded in play(tasks))
    return frames / (time.perf_counter() - start), frames / (cpu_seconds(session) - cpu)


def pids_of(session: int) -> list[int]:
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [number for number in numbers if os.path.exists(f"/proc/{number}") and os.getsid(number) == session]


def cpu_seconds(session: int | None) -> float:
    seconds = time.process_time()
    for pid in pids_of(session) if session is not None else []:
        # user and system time, the 14th and 15th of its values
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure_doom(kind: str, options: argparse.Namespace) -> dict[str, float]:
    found, starts, loads, steps = [], [], [], []
    for _ in range(options.repeats):
        tasks = drawn(kind, options)
        begin = time.perf_counter()
        with DoomEngine([task.world for task in tasks]) as engine:
            starts.append(time.perf_counter() - begin)
            found.append(rates(engine.record, tasks, engine.pid))
            loads.append(best_seconds(partial(engine.reset, tasks[0].world, tasks[0].start), budget=0.2))
            steps.append(best_seconds(partial(engine.step, WALK_ACTIONS[0]), budget=0.5))
    return {
        "frames_per_second": max(wall for wall, _ in found),
        "frames_per_cpu_second": max(cpu for _, cpu in found),
        "step_seconds": min(steps),
        "load_seconds": min(loads),
        "start_seconds": min(starts),
    }


def measure_raycaster(kind: str, options: argparse.Namespace) -> dict[str, float]:
    found = [rates(recording.record, drawn(kind, options)) for _ in range(options.repeats)]
    tasks = drawn(kind, options)
    poses = torch.from_numpy(np.stack([recording.simulate(task)[1] for task in tasks]))
    caster = RayCaster([task.world for task in tasks])
    renders = []
    for _ in range(options.repeats):
        cpu = time.process_time()
        caster.render(poses)
        renders.append(poses[..., 0].numel() / (time.process_time() - cpu))
    return {
        "frames_per_second": max(wall for wall, _ in found),
        "frames_per_cpu_second": max(cpu for _, cpu in found),
        "rendered_per_cpu_second": max(renders),
    }


def megabytes(pid: int) -> float:
    """Of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def load_many(count: int, seed: int) -> dict[str, Any]:
    """Memory in MB of the engine's processes and of this one, and open descriptors of this one, after so many maps."""
    worlds = [room(np.random.default_rng([seed, number])) for number in range(count)]
    rows: dict[str, Any] = {}
    with DoomEngine(worlds) as engine:
        pids = pids_of(engine.pid)
        marks = sorted({min(100, count), count // 4, count // 2, count})
        for number, world in enumerate(worlds, 1):
            engine.reset(world, (1.0, 1.0, 0.0))
            if number in marks:
                rows[str(number)] = {
                    "engine_mb": sum(map(megabytes, pids)),
                    "python_mb": megabytes(os.getpid()),
                    "descriptors": len(os.listdir("/proc/self/fd")),
                }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=("vizdoom", "raycaster"), default=("vizdoom", "raycaster"))
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--maps", type=int, default=0, help="load so many maps in one Doom engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)

    report: dict[str, Any] = {}
    measures = {"vizdoom": measure_doom, "raycaster": measure_raycaster}
    for name in options.engines:
        for kind in options.tasks:
            try:
                figures = measures[name](kind, options)
            except MissingDependencyError as missing:
                print(f"{name}: skipped: {missing}")
                break
            report[f"{name} {kind}"] = figures
            print(
                f"{name:<11}{kind:<10}" + "  ".join(f"{key} {value:,.4g}" for key, value in figures.items()), flush=True
            )
    if options.maps:
        report["maps"] = load_many(options.maps, options.seed)
        for number, row in report["maps"].items():
            print(f"after {number} maps: " + "  ".join(f"{key} {value:.0f}" for key, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
