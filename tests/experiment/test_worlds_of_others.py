"""Experiments on recordings of environments by other people: each resolves, trains and is evaluated, on a few steps."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from gtm_pyro.cli import main
from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import experiments, read_experiment

SIDES = {
    "minigrid-four-rooms": 28,
    "minigrid-simple-crossing": 28,
    "miniworld-four-rooms": 32,
    "miniworld-one-room": 32,
}


def recorded(folder: Path, side: int) -> Path:
    """Agents that turn by quarters and move, with poses, in frames of noise."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(3, (5, 200), generator=generator)
    heading = (torch.tensor([1.0, -1.0, 0.0])[actions] * torch.pi / 2).cumsum(1)
    step = torch.stack([heading.cos(), heading.sin()], -1) * (actions == 2).unsqueeze(-1)
    poses = torch.cat([step.cumsum(1), heading.unsqueeze(-1)], -1)
    frames = torch.randint(256, (5, 200, 3, side, side), dtype=torch.uint8, generator=generator)
    names = ("x", "y", "heading")
    save_shards(Episodes(frames, actions, num_observed=200, poses=poses, pose_names=names), folder, shard_size=4)
    return folder


@pytest.mark.parametrize("name", SIDES)
def test_an_experiment_survives_its_own_yaml(name: str, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "recordings", SIDES[name])
    config = resolve(read_experiment(name), {"data.directory": str(folder)})
    again = resolve(yaml.safe_load(config.yaml()))
    assert again.yaml() == config.yaml() and not again.settled().notes
    assert experiments()[name], f"{name}: expected a first line that says what it is"


# the others differ in their recordings alone
@pytest.mark.parametrize("name", ["minigrid-four-rooms", "miniworld-one-room"])
def test_an_experiment_trains_and_is_measured(name: str, tmp_path: Path) -> None:
    folder, out = recorded(tmp_path / "recordings", SIDES[name]), tmp_path / "run"
    words = ["train", name, "--data.directory", str(folder), "--out", str(out), "--steps", "3"]
    words += ["--initialisation", "null", "--evaluation.num_episodes", "1", "--evaluation.posterior_samples", "2"]
    assert main(words) == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert {"cell_accuracy", "heading_accuracy", "position_error_last", "position_error_predicted"} <= told.keys()
    assert (out / "figures" / "map.png").is_file() and (out / "figures" / "last_frames.png").is_file()


@pytest.mark.parametrize("name", SIDES)
def test_an_experiment_says_how_it_is_recorded(name: str) -> None:
    """The comment's command is the page's, word for word."""
    root = Path(__file__).parents[2]
    comment = [line[1:].strip() for line in (root / "experiments" / f"{name}.yaml").read_text().splitlines()[1:3]]
    command = " ".join(line.rstrip("\\").strip() for line in comment)
    assert command.startswith("gtm-pyro data import ") and command.endswith(f"--out recordings/{name}")
    page = (root / "docs" / "worlds.md").read_text(encoding="utf-8").replace("\\\n", " ")
    assert " ".join(command.split()) in " ".join(page.split())
