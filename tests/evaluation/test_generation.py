"""Long rollouts, and files of actions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gtm_pyro.cli.action_files import read_actions
from gtm_pyro.episodes import save_shards
from gtm_pyro.errors import ConfigError, EpisodesError, RunFolderError
from gtm_pyro.evaluation.generation import Generated, generate
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation, SavedEpisodes
from gtm_pyro.transitions import Translation


@pytest.fixture(scope="module")
def data() -> ImageNavigation:
    return ImageNavigation(walls=False, cuts_per_image=2)


@pytest.fixture(scope="module")
def model() -> GTMSM:
    """Knows the true dynamics of a world without walls: retrieval must be perfect."""
    torch.manual_seed(0)
    model = GTMSM(Translation(action_dim=5, scale=1e-9), initial_scale=1e-9)
    with torch.no_grad():
        model.transition.displacement.copy_(torch.tensor([[0.0, 0, -1, 1, 0], [-1, 1, 0, 0, 0]]))
    return model


def made(model: GTMSM, data: Any, **keywords: Any) -> Generated:
    return generate(model, DeadReckoning(model), data, **{"steps": 50, "num_observed": 60, **keywords})


def test_the_true_dynamics_retrieve_the_right_places(model: GTMSM, data: ImageNavigation) -> None:
    result = made(model, data, steps=3000, chunk_size=700)
    assert result.retrieval_accuracy == 1.0
    assert result.poses is not None and result.visited_share is not None and 0 < result.visited_share < 1
    np.testing.assert_allclose(result.states, result.poses - 4, atol=1e-3)  # the walk starts at cell (4, 4)


def test_the_length_of_a_chunk_does_not_matter(model: GTMSM, data: ImageNavigation) -> None:
    """But for noise, which is next to nothing here; and no call of the model is longer than a chunk."""
    lengths = []
    imagine = model.imagine

    def watched(start: Any, memory: Any, actions: Any, sample: bool = False, past: Any = None) -> Any:
        lengths.append(actions.shape[1])
        return imagine(start, memory, actions, sample, past)

    whole = made(model, data)
    object.__setattr__(model, "imagine", watched)
    try:
        parts = made(model, data, chunk_size=7)
    finally:
        object.__delattr__(model, "imagine")
    assert lengths == [7] * 7 + [1]
    np.testing.assert_allclose(whole.states, parts.states, atol=1e-4)
    # entries written in one cell are equally near, so which of them is the heaviest is open
    for name in ("frames", "actions", "true_frames", "poses", "visited", "retrieved"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name), err_msg=name)


def test_repeatable_and_without_side_effects(model: GTMSM, data: ImageNavigation) -> None:
    state = torch.get_rng_state()
    first, second, other = made(model, data, seed=1), made(model, data, seed=1), made(model, data, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first.frames, second.frames)
    assert not np.array_equal(first.actions, other.actions)


def test_data_without_a_world(model: GTMSM, data: ImageNavigation, tmp_path: Path) -> None:
    """Recorded episodes: random actions are those of other episodes, and the truth is not known."""
    episodes = data.sample(4, num_observed=40, num_predicted=40, seed=0)
    save_shards(episodes, tmp_path)
    result = made(model, SavedEpisodes(str(tmp_path), test_fraction=1.0), num_observed=30, steps=100)
    assert result.frames.shape == (100, 3, 8, 8) and result.actions.shape == (100, 5)
    assert (result.actions.sum(1) == 1).all()
    assert result.true_frames is None and result.retrieval_accuracy is None and result.mse_visited is None
    assert result.observed_poses is not None
    result.save(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert "poses" not in arrays.files and "observed_poses" in arrays.files


def test_pixels(model: GTMSM, data: ImageNavigation) -> None:
    whole, exact = made(model, data), made(model, data, pixels="float32")
    assert whole.frames.dtype == np.uint8 and exact.frames.dtype == np.float32
    assert np.abs(whole.frames / 255 - exact.frames.clip(0, 1)).max() <= 0.5 / 255 + 1e-6
    assert exact.mse_visited is not None and whole.mse_visited == pytest.approx(exact.mse_visited, rel=0.05)


def test_wrong_arguments(model: GTMSM, data: ImageNavigation) -> None:
    for keywords, error, message in (
        ({"steps": 0}, ConfigError, "steps: expected a whole number of at least 1, got 0"),
        ({"num_observed": 0}, ConfigError, "num_observed: expected a whole number of at least 1, got 0"),
        ({"pixels": "int"}, ConfigError, "pixels: expected uint8 or float32, got 'int'"),
        ({"actions": torch.zeros(50, 4)}, EpisodesError, r"actions: expected \(50, 5\), got \(50, 4\)"),
        ({"actions": torch.zeros(49, 5)}, EpisodesError, r"actions: expected \(50, 5\), got \(49, 5\)"),
        ({"actions": torch.full((50, 5), torch.nan)}, EpisodesError, r"actions\[0, 0\]: expected a finite value, got"),
    ):
        with pytest.raises(error, match=message):
            made(model, data, **keywords)


def test_saving_is_all_or_nothing(model: GTMSM, data: ImageNavigation, tmp_path: Path, monkeypatch: Any) -> None:
    result = made(model, data)
    out = tmp_path / "out.npz"
    result.save(out)
    before = out.read_bytes()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(RunFolderError, match="could not be written .No space left on device"):
        result.save(out)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_actions_in_every_form(data: ImageNavigation, tmp_path: Path) -> None:
    expected = torch.eye(5)[[0, 3, 4]]
    (tmp_path / "names.txt").write_text("up\nright\n\nstay\n")
    (tmp_path / "numbers.csv").write_text("0\n3\n4\n")
    (tmp_path / "vectors.csv").write_text("1,0,0,0,0\n0,0,0,1,0\n0,0,0,0,1\n")
    np.save(tmp_path / "numbers.npy", np.array([0, 3, 4], dtype=np.uint8))
    np.save(tmp_path / "column.npy", np.array([[0.0], [3.0], [4.0]]))
    np.savez(tmp_path / "only.npz", walk=expected.numpy())
    np.savez(tmp_path / "named.npz", frames=np.zeros(3), actions=expected.numpy())
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 7
    for path in paths:
        assert torch.equal(read_actions(path, data), expected), path.name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("up\nsideways\n", "line 2: expected one of up, down, left, right, stay, or numbers, got 'sideways'"),
        ("0\n5\n", r"action 1: expected a whole number from 0 to 4, got 5.0"),
        ("0\n1.5\n", r"action 1: expected a whole number from 0 to 4, got 1.5"),
        ("1 0 0\n0 1 0\n", r"expected \(steps,\) or \(steps, 5\), got \(2, 3\)"),
        ("1 0 0\n0 1\n", "line 2: expected 3 numbers, got 2"),
        ("", "expected numbers, got float64 of shape"),
        (b"\xff\xfe\x00", "got a file of another kind"),
    ],
)
def test_wrong_text(data: ImageNavigation, tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "actions.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(EpisodesError, match=message):
        read_actions(path, data)


def test_wrong_arrays(data: ImageNavigation, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array(["up"]))
    with pytest.raises(EpisodesError, match="expected numbers, got <U2"):
        read_actions(path, data)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(EpisodesError, match="expected a whole NPY or NPZ file"):
        read_actions(path, data)
    np.savez(tmp_path / "b.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(EpisodesError, match="expected an array actions, got a, b"):
        read_actions(tmp_path / "b.npz", data)
    with pytest.raises(EpisodesError, match="No such file"):
        read_actions(tmp_path / "none.npy", data)
