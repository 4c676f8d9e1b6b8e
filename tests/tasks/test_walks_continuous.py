"""Walks by real displacements: against a loop, against the grid, and with what disturbs them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from world_cases import MOVES, draw, five_errors, noise_images, poses_of, worlds_of

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.tasks.image_navigation import walks


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return noise_images(tmp_path_factory.mktemp("images"))


def test_continuous_frames_are_crops_at_whole_pixels_and_mixtures_between(images: str) -> None:
    grid, data = ImageNavigation(images), ImageNavigation(images, motion="continuous")
    episodes = grid.sample(4, num_observed=50, num_predicted=0, seed=0)
    worlds = worlds_of(episodes)
    moves = MOVES[episodes.actions.argmax(-1)]
    walk = data.walk(moves, worlds)
    assert torch.equal(walk.poses, poses_of(episodes)) and torch.equal(walk.frames, episodes.frames)
    corners = torch.cartesian_prod(torch.tensor([0.0, 8.0]), torch.tensor([0.0, 8.0]))
    for corner in corners:
        start = corner.expand(4, 2)
        x, y = (3 * corner).long().tolist()
        seen = data.walk(torch.zeros(4, 1, 2), worlds, start).frames[:, 0]
        assert torch.equal(seen, worlds[:, :, y : y + 8, x : x + 8])
    start = torch.tensor([[1.25, 7.9]] * 4)
    between = data.walk(torch.zeros(4, 1, 2), worlds, start).frames[:, 0].double().numpy()
    x, y = 3 * np.float64(np.float32(1.25)), 3 * np.float64(np.float32(7.9))
    across, down = x - 3, y - 23
    patch = worlds[:, :, 23:32, 3:12].double().numpy()
    mixed: np.ndarray = (1 - across) * patch[..., :8] + across * patch[..., 1:]
    assert np.allclose(between, (1 - down) * mixed[..., :8, :] + down * mixed[..., 1:, :], atol=1e-5)


def test_continuous_walks_equal_the_loop(images: str) -> None:
    data = ImageNavigation(images, motion="continuous")
    assert (data.action_dim, data.action_names) == (2, ("dx", "dy"))
    assert (ImageNavigation(images).action_dim, ImageNavigation.action_names) == (5, walks.ACTION_NAMES)
    episodes = data.sample(8, num_observed=200, num_predicted=50, seed=0)
    poses = poses_of(episodes)
    place = torch.full((8, 2), 4.0, dtype=torch.float64)
    for t in range(250):
        place = (place + episodes.actions[:, t].double()).clamp(0, 8)
        assert torch.allclose(poses[:, t].double(), place, atol=1e-6)
    assert poses.min() == 0 and poses.max() == 8 and not torch.equal(poses, poses.round())
    walk = data.walk(episodes.actions, worlds_of(episodes))
    assert torch.equal(walk.poses, poses) and torch.equal(walk.frames, episodes.frames)
    start = poses[:, -1]
    actions = data.random_actions(8, 90, seed=3, start=start)
    whole = data.walk(actions, worlds_of(episodes), start)
    chunks = [data.walk(actions[:, :40], worlds_of(episodes), start)]
    chunks.append(data.walk(actions[:, 40:], worlds_of(episodes), chunks[0].poses[:, -1]))
    assert torch.allclose(torch.cat([part.poses for part in chunks], 1), whole.poses, atol=1e-5)


def test_continuous_actions_are_drawn_as_said(images: str) -> None:
    """Four bounds of five standard errors: false alarm below 3e-6."""
    data = ImageNavigation(images, motion="continuous", mean_repeats=0.0)
    actions = data.random_actions(100, 400, seed=0).double()
    lengths = actions.norm(dim=-1).flatten()
    moving = lengths[lengths > 0]
    assert len(moving) / 40000 == pytest.approx(0.8, abs=five_errors(0.8, 40000))
    assert moving.min() >= 0.25 - 1e-6 and moving.max() <= 1 + 1e-6
    assert moving.mean().item() == pytest.approx(0.625, abs=5 * 0.75 / 12**0.5 / len(moving) ** 0.5)
    directions = actions.flatten(0, 1)[lengths > 0] / moving.unsqueeze(-1)
    assert directions.mean(0).tolist() == pytest.approx([0, 0], abs=5 * (0.5 / len(moving)) ** 0.5)
    kept = ImageNavigation(images, motion="continuous").random_actions(100, 400, seed=0)
    same = (kept[:, 1:] == kept[:, :-1]).all(-1).float().mean().item()
    # a run ends once in three steps, and in 1 of 25 the next one stays as the last did
    assert same == pytest.approx(1 - 0.96 / 3, abs=five_errors(0.32, 39900))


def steps_off_the_edge(episodes: Episodes) -> tuple[Tensor, Tensor]:
    """What was done less what was recorded, and the recorded actions, of observed steps that met no wall."""
    poses, tau = poses_of(episodes).double(), episodes.num_observed
    inside = ((poses > 0) & (poses < 8)).all(-1)[:, 1:tau]
    recorded = episodes.actions[:, 1:tau].double()
    return (poses[:, 1:tau] - poses[:, : tau - 1] - recorded)[inside], recorded[inside]


def test_a_bias_shifts_every_move_and_no_rest(images: str) -> None:
    bias = (0.05, -0.1)
    off, recorded = steps_off_the_edge(draw(images, motion="continuous", action_bias=bias))
    resting = (recorded == 0).all(-1)
    assert resting.any() and torch.allclose(off[resting], torch.zeros(2, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(off[~resting], torch.tensor(bias, dtype=torch.float64), atol=1e-5)


def test_action_noise_has_its_scale(images: str) -> None:
    """Means and deviations within five standard errors: false alarm below 3e-6. Steps whose end is at a wall are left
    out, which shifts what is left by less than 0.02 of the scale; the bounds allow for it."""
    episodes = draw(images, 100, 200, 10, motion="continuous", action_noise=0.05)
    off, _ = steps_off_the_edge(episodes)
    number = len(off)
    assert off.std(0).tolist() == pytest.approx([0.05, 0.05], abs=0.05 * (5 / (2 * number) ** 0.5 + 0.02))
    assert off.mean(0).tolist() == pytest.approx([0, 0], abs=0.05 * (5 / number**0.5 + 0.02))


def test_continuous_slips_have_their_rate(images: str) -> None:
    """Five standard errors, and 0.01 for the steps that end at a wall, which are left out and slip a little more or
    less often. An action of rest that slips to rest, 1 in 25, is not seen."""
    off, _ = steps_off_the_edge(draw(images, 100, 200, 10, motion="continuous", slip=0.2))
    seen = (off.norm(dim=-1) > 1e-4).double().mean().item()
    assert seen == pytest.approx(0.2 * 0.96, abs=five_errors(0.2, len(off)) + 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": torch.tensor([[0, 1]])}, r"actions: expected displacements .* got torch.int64 of shape \(1, 2\)"),
        ({"actions": torch.zeros(1, 2, 5)}, r"actions: expected displacements .* \(1, 2, 5\)"),
        ({"actions": torch.full((1, 1, 2), float("nan"))}, r"actions\[0, 0, 0\]: expected a finite number .* got nan"),
        ({"start": torch.tensor([[1.0, 8.5]])}, r"start\[0, 1\]: expected a number of cells from 0 to 8, got 8.5"),
        ({"start": torch.tensor([[float("nan"), 0.0]])}, r"start\[0, 0\]: .* got nan"),
    ],
)
def test_bad_continuous_walks(images: str, change: dict[str, Tensor], message: str) -> None:
    given = {"actions": torch.zeros(1, 2, 2), "worlds": torch.zeros(1, 3, 32, 32)} | change
    with pytest.raises(EpisodesError, match=message):
        ImageNavigation(images, motion="continuous").walk(**given)
