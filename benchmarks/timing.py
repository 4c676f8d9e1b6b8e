"""What the benchmarks share."""

import argparse
import time
from collections.abc import Callable
from typing import Any


def best_seconds(work: Callable[[], Any], budget: float = 2.0) -> float:
    """The shortest of repeats that fill about ``budget`` seconds; once where one takes longer."""
    times: list[float] = []
    while not times or (sum(times) < budget and len(times) < 50):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def step_parser(description: str | None) -> argparse.ArgumentParser:
    """The flags of benchmarks of a training step."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser
