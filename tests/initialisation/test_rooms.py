"""Walls of a room, from frames and actions alone."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from command_cases import SMALL

from gtm_pyro.cli import main
from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.alignment import best_similarity, root_mean_square
from gtm_pyro.initialisation import LoopClosure
from gtm_pyro.initialisation.translation import _room
from gtm_pyro.localisation.starts import unrolled
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import SlidingTranslation

BATCH, STEPS = 32, 128


def walks(**settings: Any) -> Episodes:
    return ImageNavigation(**settings).sample(BATCH, num_observed=STEPS, num_predicted=8, seed=1)


def started(seen: Episodes, initial_scale: float = 1e-3, **settings: Any) -> SlidingTranslation:
    torch.manual_seed(0)
    transition = SlidingTranslation(seen.actions.shape[-1], **settings)
    LoopClosure()(GTMSM(transition, initial_scale=initial_scale), seen)
    return transition.requires_grad_(False)


def sides(transition: SlidingTranslation, seen: Episodes) -> list[float]:
    """Of the room, in cells: a move of the longest action is one."""
    cells = transition.moves(seen.actions).norm(dim=-1).max()
    if seen.actions.shape[-1] == 2:
        cells = cells / seen.actions.norm(dim=-1).max()
    both = transition.offsets[:2] + transition.offsets[2:]
    return (both / cells).tolist()


def test_real_moves_are_cut_short_where_the_walls_are() -> None:
    seen = walks(motion="continuous")
    transition = started(seen)
    assert sides(transition, seen) == pytest.approx([8, 8], abs=0.5)
    assert float(transition.slip) == 0
    held_out = ImageNavigation(motion="continuous").sample(32, num_observed=256, num_predicted=0, seed=2, split="test")
    path = unrolled(transition, torch.zeros(32, 1, 2), held_out.actions).squeeze(1)
    assert held_out.poses is not None
    align = best_similarity(path, held_out.poses)
    assert root_mean_square(align(path) - held_out.poses) < 0.5  # cells
    transition.open_walls()
    free = unrolled(transition, torch.zeros(32, 1, 2), held_out.actions).squeeze(1)
    assert root_mean_square(best_similarity(free, held_out.poses)(free) - held_out.poses) > 1


@pytest.mark.parametrize("positions", [6, 9])
def test_a_room_is_found_though_nobody_says_where_episodes_begin(positions: int) -> None:
    seen = walks(start="random", positions=positions)
    transition = started(seen, initial_scale=2.0)
    assert sides(transition, seen) == pytest.approx([positions - 1] * 2, abs=0.1)
    # coordinates are the room's: its middle is the origin
    assert torch.allclose(transition.offsets[:2], transition.offsets[2:])


def test_walls_of_a_known_start_are_where_they_are_from_there() -> None:
    """Episodes that all begin in one corner, of a room that is turned in the state space."""
    data, steps = ImageNavigation(), 96
    images = data.worlds("train")[:16].float() / 255
    actions = data.random_actions(16, steps, seed=0)
    actions[:, 0] = torch.eye(5)[4]
    walk = data.walk(actions, images, start=torch.tensor([[1, 7]]).expand(16, -1))
    seen = Episodes(walk.frames, actions, steps - 1, walk.poses)
    transition = started(seen)
    path = unrolled(transition, torch.zeros(16, 1, 2), actions).squeeze(1)
    align = best_similarity(path, walk.poses)
    assert root_mean_square(align(path) - walk.poses) < 0.05
    far = sorted((transition.offsets / transition.moves(actions).norm(dim=-1).max()).tolist())
    assert far == pytest.approx([1, 1, 7, 7], abs=0.1)


def test_without_walls_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        transition = started(walks(walls=False))
    assert "no starting values for the walls" in caplog.text
    assert float(transition.offsets.min()) > 1e3


@pytest.mark.parametrize("steps", [2, 20])
def test_nothing_seen_is_no_wall(steps: int) -> None:
    """An agent that stands still, or has no loop to tell how far it moves: no path contradicts anything."""
    frames = torch.rand(4, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(4, steps, 3, 8, 8)
    seen = Episodes(frames, torch.eye(5)[torch.full((4, steps), 4)], steps - 1)
    assert float(started(seen).offsets.min()) > 1e3
    transition = SlidingTranslation(5).requires_grad_(False)
    torch.nn.init.zeros_(transition.displacement)
    _room(transition, GTMSM(transition), seen)
    assert float(transition.offsets.min()) > 1e3


def test_walls_are_looked_for_in_the_plane(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        transition = started(walks(), state_dim=3)
    assert "they are looked for in 2 dimensions, the transition has 3" in caplog.text
    assert float(transition.offsets.min()) > 1e3


def test_the_unit_of_actions_and_frames_does_not_matter() -> None:
    seen = walks(motion="continuous")
    other = Episodes(seen.frames, 40 * seen.actions, seen.num_observed)
    one, two = (started(episodes) for episodes in (seen, other))
    for name in ("displacement", "normals", "offsets"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=1e-3, rtol=1e-3)
    assert math.isfinite(float(one.offsets.sum()))


@pytest.mark.parametrize("name", ["image-navigation-continuous", "image-navigation-random-start"])
def test_the_experiments_with_rooms_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", name, "--out", "run", *SMALL]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["localisation_rmse"] >= 0
