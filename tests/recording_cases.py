"""Recordings in the layouts of others.

An agent walks round a ring of 12 places: ``place[t] = place[t - 1] + action[t]``, and a frame's grey tells the place.
So a shift of actions by one step shows.
"""

import csv
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

PLACES, GREY, MOVES = 12, 20, 3


def walk(steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places and the actions that led there; the first one is any."""
    actions = np.random.default_rng(seed).integers(MOVES, size=steps)
    actions[:2] = 0, 2  # neither all alike nor the largest missing
    return np.r_[5, 5 + actions[1:].cumsum()] % PLACES, actions


def picture(places: np.ndarray, height: int = 6, width: int = 8) -> np.ndarray:
    return np.broadcast_to((places * GREY).astype(np.uint8)[:, None, None, None], (len(places), height, width, 3))


def npz(path: Path, lengths: Sequence[int], hot: bool = True, **change: Any) -> None:
    places, actions = (np.concatenate(parts) for parts in zip(*(walk(n, n) for n in lengths), strict=True))
    first = np.concatenate([np.arange(n) == 0 for n in lengths])
    taken: np.ndarray = np.eye(MOVES + 1, dtype=np.float32)[actions] * ~first[:, None] if hot else actions
    angle = 0.3 * places
    arrays = {
        "image": picture(places), "action": taken, "is_first": first, "reward": np.zeros(len(first)),
        "agent_pos": np.stack([places, places], 1), "agent_dir": np.stack([np.cos(angle), np.sin(angle)], 1),
    }  # fmt: skip
    np.savez(path, **{name: array for name, array in (arrays | change).items() if array is not None})


def hdf5(path: Path, lengths: Sequence[int], **change: Any) -> None:
    """As D4RL has it: what was taken at an observation, the last of an episode too."""
    parts = [walk(n + 1, n) for n in lengths]
    places = np.concatenate([places[:-1] for places, _ in parts])
    ends = np.concatenate([np.arange(n) == n - 1 for n in lengths])
    half = np.cumsum(ends) % 2 == 1
    arrays = {
        "observations": picture(places), "actions": np.concatenate([actions[1:] for _, actions in parts]),
        "terminals": ends & half, "timeouts": ends & ~half,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, array in (arrays | change).items():
            if array is not None:
                file[name] = array


def minari_set(root: Path, monkeypatch: pytest.MonkeyPatch, lengths: Sequence[int]) -> str:
    minari = pytest.importorskip("minari")
    from gymnasium.spaces import Box, Discrete
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    buffers = []
    for number, steps in enumerate(lengths):
        places, actions = walk(steps + 1, number)
        marks = np.zeros(steps, dtype=bool)
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=list(picture(places)),
                actions=list(actions[1:] + 1),
                rewards=[0.0] * steps,
                terminations=list(marks),
                truncations=list(marks),
                infos={},
            )  # fmt: skip
        )
    minari.create_dataset_from_buffers(
        "ring/walks-v0", buffers, observation_space=Box(0, 255, (6, 8, 3), np.uint8),
        action_space=Discrete(MOVES, start=1), jpeg_encoding=False,
    )  # fmt: skip
    return "ring/walks-v0"


def film(path: Path, frames: np.ndarray, times: Sequence[float]) -> None:
    """A lossless video whose frames are shown from these times on."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        codec = "ffv1" if path.suffix == ".mkv" else "mpeg4"
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def rows(path: Path, columns: dict[str, Sequence[Any]]) -> None:
    entries = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(entries)
        else:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
