"""Films of generations: what is in them, and what is refused."""

import importlib.util
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from gtm_pyro.errors import ConfigError, MissingDependencyError, RunFolderError
from gtm_pyro.evaluation.generation import Generated
from gtm_pyro.report.video import check_video, save_video


def generated(steps: int, state_dim: int = 3, channels: int = 3, true: bool = True, dtype: str = "uint8") -> Generated:
    """The imagined frames grow brighter, the true ones darker; the agent walks to the east."""
    bright = np.linspace(0, 1, steps)[:, None, None, None] * np.ones((channels, 8, 8))
    shown = [
        frames.astype(np.float32) if dtype == "float32" else np.uint8(255 * frames) for frames in (bright, 1 - bright)
    ]
    states = np.zeros((5 + steps, state_dim), np.float32)
    states[:, 0] = np.arange(5 + steps)
    return Generated(
        frames=shown[0], states=states[5:], actions=np.zeros((steps, 2)), entries=np.zeros(steps, int),
        observed_frames=shown[0][:5], observed_states=states[:5], observed_actions=np.zeros((5, 2)),
        true_frames=shown[1] if true else None,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["film.gif", "film.MP4"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_film_shows_imagined_and_true_frames_and_where_the_agent_is(tmp_path: Path, name: str, dtype: str) -> None:
    path = save_video(generated(12, dtype=dtype), tmp_path / "new" / name, heading=True)
    options = {"plugin": "pyav"} if name.endswith("MP4") else {}
    film = iio.imread(path, **options)[..., :3].astype(int)
    assert film.shape == (12, 368, 516, 3)
    imagined, true = film[:, 50:170, 360:470].mean((1, 2, 3)), film[:, 222:340, 360:470].mean((1, 2, 3))
    # codecs round
    assert np.abs(imagined - np.linspace(0, 255, 12)).max() < 8 and np.abs(true - imagined[::-1]).max() < 8
    # the agent's colour is red before blue, and its place moves to the right
    reddish = film[:, 30:340, 15:330, 0] - film[:, 30:340, 15:330, 2] > 100
    columns = [np.flatnonzero(picture.any(0)) for picture in reddish]
    ahead = [int(found.max()) for found in columns]
    assert all(len(found) for found in columns) and ahead == sorted(ahead) and ahead[-1] > ahead[0] + 100
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.parametrize(("state_dim", "channels"), [(1, 1), (2, 3), (3, 4)])
def test_states_and_frames_of_other_sizes_are_shown(tmp_path: Path, state_dim: int, channels: int) -> None:
    path = save_video(generated(3, state_dim, channels, true=False), tmp_path / "film.gif")
    film = iio.imread(path)[..., :3].astype(int)
    assert film.shape == (3, 368, 516, 3) and film[2, 50:170, 360:470].min() > 250
    assert np.abs(film[:, 200:] - film[:1, 200:])[..., 340:, :].max() == 0  # nothing where true frames would be


def test_a_gif_of_many_steps_leaves_some_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtm_pyro.report.video._GIF_PICTURES", 10)
    assert iio.improps(save_video(generated(24, true=False), tmp_path / "film.gif")).shape[0] == 8


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"video: expected a name that ends in .gif or .mp4, got .*film.avi$"):
        save_video(generated(2), tmp_path / "film.avi")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="film.gif: could not be written"):
        save_video(generated(2), tmp_path / "file" / "film.gif")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_video("film.gif")
    with pytest.raises(MissingDependencyError, match=r'pip install "gtm-pyro\[video\]", or choose .gif$'):
        check_video("film.mp4")
