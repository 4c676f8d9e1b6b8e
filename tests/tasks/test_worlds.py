"""Worlds where dead reckoning fails: what was recorded, what was done, what was seen, each against a known answer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from world_cases import FIELDS, MOVES, digest, draw, five_errors, noise_images, poses_of, views, worlds_of

from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import read_experiment
from gtm_pyro.tasks import ImageNavigation, SavedEpisodes, Split
from gtm_pyro.tasks.image_navigation import walks
from gtm_pyro.tasks.image_navigation.disturbances import other_cells


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return noise_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(
    ("walls", "train", "test", "walked"),
    [
        (True, "a43900d30ff8e105", "dcf232081a48afb3", "776da6a19d331de7"),
        (False, "ecbade91ac33daf7", "4be9b4a1c14b5e47", "0b992286072213c1"),
    ],
)
def test_undisturbed_episodes_are_those_of_the_first_release(
    images: str, walls: bool, train: str, test: str, walked: str
) -> None:
    data = ImageNavigation(images, augment=True, walls=walls)
    expected: dict[Split, str] = {"train": train, "test": test}
    for split, known in expected.items():
        episodes = data.sample(4, num_observed=40, num_predicted=20, seed=3, split=split)
        assert digest(*(getattr(episodes, name) for name in FIELDS)) == known
    start = torch.tensor([[0.0, 0.0], [8.0, 8.0], [3.0, 4.0], [5.0, 0.0]])
    actions = data.random_actions(4, 50, seed=2, start=start)
    assert digest(actions, *data.walk(actions, worlds_of(episodes), start)) == walked


def executed(episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """The recorded actions, those done, and whether the step began off the edge, where the two can be compared."""
    poses = poses_of(episodes)
    moves = poses[:, 1:] - poses[:, :-1]
    done = (moves.unsqueeze(-2) == MOVES).all(-1).float().argmax(-1)
    inside = ((poses[:, :-1] > 0) & (poses[:, :-1] < 8)).all(-1)
    return episodes.actions[:, 1:].argmax(-1), done, inside


@pytest.mark.parametrize("walls", [True, False])
def test_slips_have_their_rate_and_go_to_each_other_action(images: str, walls: bool) -> None:
    """Five bounds of five standard errors each: false alarm below 3e-6 a case."""
    episodes = draw(images, 200, 256, 0, slip=0.1, walls=walls)
    recorded, done, inside = executed(episodes)
    offsets = ((done - recorded) % 5)[inside]
    slipped = offsets[offsets > 0]
    number = len(slipped)
    assert number / len(offsets) == pytest.approx(0.1, abs=five_errors(0.1, len(offsets)))
    shares = torch.bincount(slipped, minlength=5)[1:] / number
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=five_errors(0.25, number))


@pytest.mark.parametrize("fields", [{}, {"walls": False}, {"motion": "continuous"}])
def test_what_is_predicted_follows_the_actions(images: str, fields: dict[str, Any]) -> None:
    rough: dict[str, Any] = {"action_noise": 0.2, "action_bias": (0.1, 0.0)} if fields.get("motion") else {}
    data = ImageNavigation(images, slip=0.5, kidnap=0.4, start="random", **fields, **rough)
    episodes = data.sample(8, num_observed=20, num_predicted=50, seed=1)
    poses = poses_of(episodes)
    walk = data.walk(episodes.predicted_actions, worlds_of(episodes), poses[:, 19])
    assert torch.allclose(walk.poses, poses[:, 20:], atol=1e-5)
    assert torch.allclose(walk.frames, episodes.predicted_frames, atol=1e-4)
    if data.walls:
        assert not torch.equal(data.walk(episodes.observed_actions, worlds_of(episodes)).poses, poses[:, :20])


def test_a_slip_changes_neither_the_images_nor_what_is_intended(images: str) -> None:
    plain = draw(images)
    disturbances: list[dict[str, Any]] = [{"slip": 0.3}, {"start": "random"}, {"kidnap": 0.5}]
    disturbances += [{"frame_noise": 0.1}, {"occlusion": 0.5}]
    for fields in disturbances:
        other = draw(images, **fields)
        same = torch.ones(80, dtype=torch.bool)
        same[32] = "kidnap" not in fields
        assert torch.equal(worlds_of(other), worlds_of(plain)), fields
        assert torch.equal(other.actions[:, same], plain.actions[:, same]), fields
        assert not torch.equal(other.frames, plain.frames), fields
        assert torch.equal(poses_of(other), poses_of(plain)) == bool(fields.keys() & {"frame_noise", "occlusion"})


def test_a_walk_that_never_slips_turns_back_like_any_other() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (2, 3, 9):
        drawn = walks.draw_actions(20, 150, 2.0, generator)
        start = torch.randint(size, (20, 2), generator=generator)
        intended, positions = walks.slipping_walk(start, drawn, torch.zeros_like(drawn), size)
        expected = walks.folded_positions(start, walks.displacements()[drawn], size)
        assert torch.equal(positions, expected) and torch.equal(intended, walks.actions_between(start, expected))


def test_without_walls_intended_moves_stay_inside_and_slips_outwards_move_nothing() -> None:
    generator, moves = torch.Generator().manual_seed(0), walks.displacements().tolist()
    drawn = walks.draw_actions(20, 200, 2.0, generator)
    offsets = torch.randint(-4, 5, drawn.shape, generator=generator).clamp(0)
    start = torch.randint(4, (20, 2), generator=generator)
    intended, positions = walks.slipping_walk(start, drawn, offsets, 4)
    blocked = 0
    for episode, (x, y) in enumerate(start.tolist()):
        rows = zip(*(values[episode].tolist() for values in (drawn, intended, offsets, positions)), strict=True)
        for a, meant, offset, reached in rows:
            # only the direction may turn: up or down, left or right
            assert meant // 2 == a // 2
            dx, dy = moves[meant]
            assert 0 <= x + dx < 4 and 0 <= y + dy < 4
            dx, dy = moves[(meant + offset) % 5]
            if 0 <= x + dx < 4 and 0 <= y + dy < 4:
                x, y = x + dx, y + dy
            else:
                blocked += 1
            assert reached == [x, y]
    assert blocked > 100


def test_a_random_start_is_uniform(images: str) -> None:
    """Chi-squared test at 1e-6."""
    poses = poses_of(draw(images, 4050, 1, 0, start="random"))[:, 0]
    counts = torch.bincount((poses @ torch.tensor([1.0, 9.0])).long(), minlength=81)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6
    assert not torch.equal(poses[:50], poses_of(draw(images, 4050, 1, 0, start="random", seed=1))[:50, 0])


def test_other_cells_are_uniform_over_the_others() -> None:
    """Chi-squared test at 1e-6, over the 24 other cells of 25."""
    place = torch.tensor([3.3, 0.9], dtype=torch.float64).expand(4800, 2)
    drawn = other_cells(place, 5, torch.Generator().manual_seed(0))
    counts = torch.bincount((drawn @ torch.tensor([1.0, 5.0], dtype=torch.float64)).long(), minlength=25)
    assert counts[8] == 0
    assert stats.chisquare(counts[torch.arange(25) != 8].numpy()).pvalue > 1e-6


@pytest.mark.parametrize(
    ("kidnap", "observed", "step"),
    [(0.5, 64, 32), (0.001, 64, 1), (0.999, 64, 63), (0.5, 2, 1), (0.5, 1, None), (None, 64, None), (0.25, 10, 2)],
)
def test_the_step_of_a_kidnap(images: str, kidnap: float | None, observed: int, step: int | None) -> None:
    assert ImageNavigation(images, kidnap=kidnap).kidnap_step(observed) == step


@pytest.mark.parametrize("fields", [{}, {"walls": False}, {"motion": "continuous"}])
def test_a_kidnap_moves_the_agent_without_an_action(images: str, fields: dict[str, Any]) -> None:
    data = ImageNavigation(images, kidnap=0.5, slip=0.1, **fields)
    episodes = data.sample(200, num_observed=20, num_predicted=5, seed=0)
    poses, step = poses_of(episodes), data.kidnap_step(20)
    assert step == 10
    recorded = episodes.actions[:, step]
    assert (recorded == 0).all() if "motion" in fields else (recorded[:, walks.STAY] == 1).all()
    jumps = (poses[:, 1:] - poses[:, :-1]).abs().amax(-1)
    # a cell farther than one step: 72 of 80 at least, so 100 of 200 jumps or fewer are never seen
    assert (jumps[:, step - 1] >= 0.5).all() and (jumps[:, step - 1] > 1).sum() > 100
    assert torch.equal(poses[:, step], poses[:, step].round())
    jumps[:, step - 1] = 0
    assert jumps.max() <= 1 + 1e-5


def test_frame_noise_has_its_scale(images: str) -> None:
    clean, noisy = draw(images), draw(images, frame_noise=0.05)
    inner = (clean.frames > 0.3) & (clean.frames < 0.7)  # six deviations from being clamped
    noise = (noisy.frames - clean.frames)[inner].double()
    assert noise.std().item() == pytest.approx(0.05, rel=5 / (2 * len(noise)) ** 0.5)
    assert noise.mean().item() == pytest.approx(0, abs=5 * 0.05 / len(noise) ** 0.5)
    assert noisy.frames.min() == 0 and noisy.frames.max() == 1
    assert torch.equal(noisy.frames, draw(images, frame_noise=0.05).frames)


def test_a_share_of_the_frames_is_occluded(images: str) -> None:
    """No pixel of an image is exactly grey, 127.5 / 255."""
    clean, occluded = draw(images, 64), draw(images, 64, occlusion=0.3)
    changed = (occluded.frames != clean.frames).any(2)
    hit = changed.any(-1).any(-1)
    assert hit.double().mean().item() == pytest.approx(0.3, abs=five_errors(0.3, hit.numel()))
    grey = changed[hit]
    assert (grey.sum((1, 2)) == 16).all() and (occluded.frames == 0.5).sum() == 3 * 16 * len(grey)
    rows, columns = grey.any(2), grey.any(1)
    assert (rows.sum(1) == 4).all() and (columns.sum(1) == 4).all()
    # the 25 places: the first rows are uniform over 5
    counts = torch.bincount(rows.float().argmax(1), minlength=5)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6
    walk = ImageNavigation(images, occlusion=1.0, frame_noise=0.1).walk(clean.actions, worlds_of(clean))
    assert torch.equal(walk.frames, clean.frames)


@pytest.mark.parametrize(("repeats", "places"), [(0, 1), (1, 2), (3, 4)])
def test_repeated_patches_look_alike(images: str, repeats: int, places: int) -> None:
    episodes = draw(images, 16, repeats=repeats)
    assert torch.equal(episodes.actions, draw(images, 16).actions)
    seen = views(worlds_of(episodes))
    alike = (seen[:, :, None] == seen[:, None]).all(-1)
    # nine cells at each place look like one cell at each of the others; all else looks like itself alone
    assert (alike.sum((1, 2)) == 81 + 9 * places * (places - 1)).all()
    _, first, second = alike.nonzero().unbind(1)
    apart = torch.maximum((first % 9 - second % 9).abs(), (first // 9 - second // 9).abs())[first != second]
    assert not len(apart) or apart.min() >= 5
    data = ImageNavigation(images, repeats=repeats)
    walk = data.walk(episodes.actions, worlds_of(episodes))
    assert torch.equal(walk.frames, episodes.frames)
    if repeats == 1:
        sources = {tuple(row.nonzero()[0].tolist()) for row in alike & ~torch.eye(81, dtype=torch.bool)}
        assert len(sources) > 1
        assert torch.equal(worlds_of(episodes), worlds_of(draw(images, 16, repeats=1)))


def test_a_known_world_is_visited_again(images: str) -> None:
    data = ImageNavigation(images, start="random", slip=0.2, repeats=1, frame_noise=0.1)
    known = data.sample(16, num_observed=32, num_predicted=0, seed=0)
    again = data.revisit(worlds_of(known), num_observed=40, num_predicted=8, seed=0)
    same = data.revisit(worlds_of(known), num_observed=40, num_predicted=8, seed=0)
    other = data.revisit(worlds_of(known), num_observed=40, num_predicted=8, seed=1)
    assert (again.num_observed, again.num_steps) == (40, 48)
    assert torch.equal(worlds_of(again), worlds_of(known))
    assert all(torch.equal(getattr(again, name), getattr(same, name)) for name in FIELDS)
    assert not torch.equal(again.actions, other.actions) and not torch.equal(again.actions[:, :32], known.actions)
    assert not torch.equal(poses_of(again)[:, 0], poses_of(known)[:, 0])
    plain = ImageNavigation(images)
    again = plain.revisit(worlds_of(known).double(), num_observed=40, seed=0)
    walk = plain.walk(again.actions, worlds_of(again))
    assert again.num_predicted == 0 and again.frames.dtype == torch.float64
    assert torch.equal(walk.poses, poses_of(again)) and torch.equal(walk.frames, again.frames)
    with pytest.raises(EpisodesError, match=r"worlds: expected \(16, 3, 32, 32\), got \(16, 3, 20, 32\)"):
        data.revisit(worlds_of(known)[:, :, :20], num_observed=2, seed=0)
    with pytest.raises(EpisodesError, match=r"worlds: .* got \(12, 3, 32, 32\) of torch.uint8"):
        data.revisit(
            ImageNavigation(images, test_fraction=1.0).worlds("test").repeat(2, 1, 1, 1)[:12], num_observed=2, seed=0
        )
    with pytest.raises(ConfigError, match="num_observed: .* got 0"):
        data.revisit(worlds_of(known), num_observed=0, seed=0)


def test_disturbed_episodes_are_saved_and_read_like_any_other(images: str, tmp_path: Path) -> None:
    episodes = draw(images, 4, 20, 0, motion="continuous", slip=0.1, kidnap=0.5, frame_noise=0.1, occlusion=0.5)
    save_shards(episodes, tmp_path)
    saved = SavedEpisodes(str(tmp_path), test_fraction=1.0)
    again = saved.sample(1, num_observed=20, num_predicted=0, seed=0, split="test")
    number = int((poses_of(episodes) == poses_of(again)).flatten(1).all(1).nonzero()[0])
    assert saved.action_dim == 2
    assert all(torch.equal(getattr(again, name)[0], getattr(episodes, name)[number]) for name in FIELDS)


def built(images: str, **fields: str) -> Any:
    overrides = {f"data.{name}": value for name, value in fields.items()}
    return resolve(read_experiment("image-navigation"), {"data.images": images} | overrides).build()


def test_the_command_line_reaches_every_disturbance(images: str) -> None:
    data = built(images, slip="0.1", start="random", kidnap="0.5", frame_noise="0.1", occlusion="0.2", repeats="1").data
    assert (data.slip, data.start, data.kidnap, data.repeats) == (0.1, "random", 0.5, 1)
    assert (data.frame_noise, data.occlusion, data.motion) == (0.1, 0.2, "grid")
    config = {"data.motion": "continuous", "data.action_noise": "0.1", "data.action_bias": "[0.1, 0]"}
    values = resolve(read_experiment("image-navigation"), config | {"model.transition.action_dim": "2"})
    episodes = values.build().data.sample(1, num_observed=3, num_predicted=0, seed=0)
    assert episodes.action_dim == 2 and list(values.flat()["data.init_args.action_bias"]) == [0.1, 0.0]
    with pytest.raises(ConfigError, match="model.transition.action_dim: expected 2 as the data has it, got 5"):
        resolve(read_experiment("image-navigation"), config | {"model.transition.action_dim": "5"}).build()
    assert built(images, motion="continuous").model.transition.action_dim == 2
    with pytest.raises(ConfigError, match="start"):
        built(images, start="corner")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slip": 1.0}, "slip: expected at least 0 and below 1, got 1.0"),
        ({"slip": -0.1}, "slip: expected at least 0 and below 1, got -0.1"),
        ({"slip": True}, "slip: expected a finite number, got True"),
        ({"start": "corner"}, "start: expected 'centre' or 'random', got 'corner'"),
        ({"kidnap": 0.0}, "kidnap: expected between 0 and 1, or none, got 0.0"),
        ({"kidnap": 1.0}, "kidnap: .* got 1.0"),
        ({"motion": "smooth"}, "motion: expected 'grid' or 'continuous', got 'smooth'"),
        ({"motion": "continuous", "walls": False}, "walls: expected true with motion='continuous', got false"),
        ({"action_noise": 0.1}, "action_noise: expected none with motion='grid', got 0.1; use motion='continuous'"),
        ({"action_bias": (0.0, 0.1)}, r"action_bias: expected none with motion='grid', got \(0.0, 0.1\)"),
        ({"action_noise": -1.0}, "action_noise: expected a number of at least 0, got -1.0"),
        ({"action_bias": (0.1,)}, r"action_bias: expected two numbers .* got \(0.1,\)"),
        ({"action_bias": (0.0, float("nan"))}, r"action_bias\[1\]: expected a finite number, got nan"),
        ({"frame_noise": float("inf")}, "frame_noise: expected a finite number, got inf"),
        ({"frame_noise": -0.1}, "frame_noise: .* got -0.1"),
        ({"occlusion": 1.1}, "occlusion: expected from 0 to 1, got 1.1"),
        ({"repeats": -1}, "repeats: expected a whole number of at least 0, got -1"),
        (
            {"repeats": 4},
            "repeats: expected at most 3, for the image has room for 4 separate patches of 14 pixels, got 4",
        ),
        ({"repeats": 1, "positions": 7}, "repeats: expected at most 0, .* got 1; more positions make more room"),
        ({"repeats": 1, "positions": 2}, "repeats: expected at most 0, .* room for 0"),
    ],
)
def test_disturbances_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageNavigation(**fields)
