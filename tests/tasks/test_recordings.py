"""What is imported: each layout's frames beside the actions that led to them, poses, and what cannot be carried.

A shift of actions by one step shows in the walks of ``recording_cases``.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recording_cases import GREY, MOVES, PLACES, film, hdf5, minari_set, npz, picture, rows, walk

from gtm_pyro.errors import ConfigError, EpisodesError, MissingDependencyError
from gtm_pyro.tasks import SavedEpisodes
from gtm_pyro.tasks.recordings import (
    Hdf5Recordings,
    Import,
    MinariRecordings,
    NpzRecordings,
    Recorded,
    Recordings,
    Reshaping,
    VideoRecordings,
)

SAME = Reshaping()


def imported(source: Recordings, folder: Path) -> SavedEpisodes:
    Import(source, folder).run(lambda number: None)
    return SavedEpisodes(str(folder), test_fraction=1)


def check_walks(data: SavedEpisodes, num_observed: int = 3, lossy: int = 0) -> None:
    """Every action of every window leads from the frame before it to its own."""
    drawn = data.sample(300, num_observed=num_observed, num_predicted=3, seed=0, split="test")
    grey = drawn.frames[:, :, 0].flatten(2).mean(-1) * 255
    places = (grey / GREY).round()
    assert (grey - places * GREY).abs().max() <= lossy + 1e-3
    moved = places.diff(dim=1) % PLACES
    assert (moved == drawn.actions.argmax(-1)[:, 1:]).all()


@pytest.mark.parametrize("hot", [True, False])
def test_files_of_world_models(tmp_path: Path, hot: bool) -> None:
    npz(tmp_path / "a.npz", [20, 9], hot)
    npz(tmp_path / "b.npz", [15], hot, is_first=None, reset=np.arange(15) == 0)
    data = imported(NpzRecordings([tmp_path / "a.npz", tmp_path / "b.npz"], SAME), tmp_path / "out")
    assert data.lengths["test"] == (20, 9, 15) and data.frame_shape == (3, 6, 8)
    assert data.num_actions == (MOVES + 1 if hot else MOVES), "vectors tell how many there are"
    assert data.pose_names == ("x", "y", "heading")
    check_walks(data)
    drawn = data.sample(9, num_observed=5, num_predicted=1, seed=0, split="test")
    assert drawn.poses is not None
    heading = drawn.poses[..., 2]
    assert np.allclose(np.angle(np.exp(1j * (0.3 * drawn.poses[..., 0] - heading).numpy())), 0, atol=1e-5)


def test_a_file_as_d4rl_has_it(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.hdf5", [14, 30, 8])
    data = imported(Hdf5Recordings(tmp_path / "a.hdf5", SAME), tmp_path / "out")
    assert (data.lengths["test"], data.num_actions, data.pose_names) == ((14, 30, 8), MOVES, None)
    check_walks(data)
    # images with the channels in front, one among several things that are observed
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        frames = file["observations"][:].transpose(0, 3, 1, 2)
        del file["observations"]
        file["observations/top"], file["observations/speed"] = frames, np.zeros(len(frames))
    with pytest.raises(EpisodesError, match=r"a\.hdf5: expected --key, which says where .* got speed, top"):
        Hdf5Recordings(tmp_path / "a.hdf5", SAME)
    check_walks(imported(Hdf5Recordings(tmp_path / "a.hdf5", SAME, "top"), tmp_path / "again"))


def test_continuous_actions_stay_numbers(tmp_path: Path) -> None:
    force = np.random.default_rng(0).normal(size=(22, 2))
    hdf5(tmp_path / "a.h5", [14, 8], actions=force)
    data = imported(Hdf5Recordings(tmp_path / "a.h5", SAME), tmp_path / "out")
    assert (data.num_actions, data.action_dim) == (None, 2)
    drawn = data.sample(50, num_observed=13, num_predicted=1, seed=0, split="test")
    assert np.allclose(drawn.actions[0, 1:], force[:13], atol=1e-6) and drawn.continuous_actions is True


@pytest.mark.filterwarnings("ignore")  # of Minari, on what a data set should say of itself
def test_a_minari_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = minari_set(tmp_path / "minari", monkeypatch, [14, 8])
    data = imported(MinariRecordings(name, SAME), tmp_path / "out")
    assert (data.lengths["test"], data.num_actions) == ((15, 9), MOVES), "the last observation is carried too"
    check_walks(data)
    folder = str(tmp_path / "minari" / name)
    check_walks(imported(MinariRecordings(folder, SAME), tmp_path / "again"))
    with pytest.raises(EpisodesError, match="ring/none-v0: expected a Minari data set"):
        MinariRecordings("ring/none-v0", SAME)


NAMES = ("a stay", "b step", "c leap")


def test_a_video_of_a_varying_rate_with_a_table(tmp_path: Path) -> None:
    """Three frames for most steps, one for some, in no regular time; names of actions; an odd size."""
    places, actions = walk(30)
    generator = np.random.default_rng(1)
    begins = np.cumsum(generator.uniform(0.08, 0.3, 30)).round(3)
    begins -= begins[0]
    counts = generator.choice([1, 3], 30)
    times = np.concatenate([t + 0.02 * np.arange(n) for t, n in zip(begins, counts, strict=True)])
    film(tmp_path / "walk.mkv", picture(np.repeat(places, counts), 7, 9), times)
    taken = [NAMES[a] for a in [*actions[1:], 0]]
    rows(tmp_path / "walk.csv", {"time": begins + 0.01, "action": taken, "x": places, "y": -places, "note": taken})
    data = imported(VideoRecordings([tmp_path / "walk.mkv"], SAME), tmp_path / "out")
    assert (data.frame_shape, data.num_actions, data.pose_names) == ((3, 7, 9), MOVES, ("x", "y"))
    check_walks(data)
    drawn = data.sample(1, num_observed=29, num_predicted=1, seed=0, split="test")
    assert drawn.poses is not None and drawn.poses[0, :, 0].tolist() == places.tolist()


def test_a_video_with_a_row_for_each_frame(tmp_path: Path) -> None:
    places, actions = walk(20)
    film(tmp_path / "a.mkv", picture(places), np.arange(20) / 10)
    rows(tmp_path / "log.jsonl", {"action": [int(a) for a in actions]})
    log = tmp_path / "log.jsonl"
    check_walks(imported(VideoRecordings([tmp_path / "a.mkv"], SAME, log=log, led=True), tmp_path / "out"))
    rows(log, {"frame": list(range(1, 20, 2)), "action": [int(a) for a in (actions[2::2] + actions[1:-1:2])] + [0]})
    every_other = VideoRecordings([tmp_path / "a.mkv"], SAME, log=log).episode(0)
    assert (every_other.frames[:, 0, 0, 0] // GREY == places[1::2]).all()
    rows(log, {"action": [0] * 21})
    with pytest.raises(EpisodesError, match=r"a\.mkv: expected as many actions as frames, got 21 actions and 20"):
        VideoRecordings([tmp_path / "a.mkv"], SAME, log=log).episode(0)
    rows(log, {"time": [0.0, 1.0, 2.5], "action": [0, 1, 2]})
    with pytest.raises(EpisodesError, match=r"a\.mkv, step 2: expected a frame at 2\.5 s, it ends at 1\.9"):
        VideoRecordings([tmp_path / "a.mkv"], SAME, log=log).episode(0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_video_is_turned_upright(tmp_path: Path, turns: int) -> None:
    """As telephones write them: pixels lie on their side, and the header says by how much."""
    upright = np.zeros((4, 32, 48, 3), np.uint8)
    upright[:, :16, :24] = 250  # the upper left quarter
    film(tmp_path / "a.mp4", np.rot90(upright, -turns, (1, 2)), np.arange(4) / 10)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    cos, sin = ((1, 0), (0, -1), (-1, 0), (0, 1))[turns]
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0]
    at = content.index(b"tkhd") + 4 + 40
    content[at : at + 32] = struct.pack(">8i", *(65536 * value for value in matrix))
    (tmp_path / "a.mp4").write_bytes(content)
    rows(tmp_path / "a.csv", {"action": [0, 1, 0, 1]})
    frames = VideoRecordings([tmp_path / "a.mp4"], SAME).episode(0).frames
    assert frames.shape == (4, 32, 48, 3)
    assert abs(frames.astype(int) - upright).mean() < 12
    small = VideoRecordings([tmp_path / "a.mp4"], Reshaping((2, 2), "square")).episode(0).frames
    assert small.shape == (4, 2, 2, 3) and (small.mean((0, 3)) > 90).tolist() == [[True, False], [False, False]]


# frames


def test_frames_are_cropped_and_averaged() -> None:
    frames = np.arange(2 * 6 * 8 * 1, dtype=np.uint8).reshape(2, 6, 8, 1)
    cut = Reshaping(crop=(1, 2, 4, 4))(frames)
    assert (cut == frames[:, 1:5, 2:6]).all()
    small = Reshaping((3, 3), "square")(frames)
    middle = frames[:, :, 1:7, 0].reshape(2, 3, 2, 3, 2).mean((2, 4))
    assert small.shape == (2, 3, 3, 1) and abs(small[..., 0] - middle).max() <= 0.5
    with pytest.raises(EpisodesError, match="expected frames of at least 9x8 for the crop, got 6x8"):
        Reshaping(crop=(1, 0, 8, 8))(frames)
    with pytest.raises(EpisodesError, match="at most 256 pixels a side, got 300x8"):
        Reshaping()(np.zeros((1, 300, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match="crop: expected square"):
        Reshaping(crop="round")


BAD: dict[str, Callable[[], dict[str, Any]]] = {
    r"episode 0, step 7: expected pixels from 0 to 1, got nan": lambda: {"image": spoilt(np.nan)},
    r"episode 0, step 7: expected pixels from 0 to 1, got 200": lambda: {"image": spoilt(200.0)},
    r"episode 0: expected frames of 1 or 3 channels, got 4 in \(12, 6, 8, 4\)": lambda: {
        "image": np.zeros((12, 6, 8, 4), np.uint8)
    },
    r"episode 0: expected as many actions as frames, got 12 actions and 11": lambda: {"image": picture(np.zeros(11))},
    r"episode 0, step 3: expected actions as finite numbers, got \[nan, 0.0\]": lambda: {
        "action": np.where(np.arange(24).reshape(12, 2) == 6, np.nan, 0.0)
    },
    r"episode 0, step 4: expected actions as whole numbers from 0, got -1": lambda: {
        "action": np.where(np.arange(12) == 4, -1, 0)
    },
    r"episode 0, step 2: expected a pose of finite numbers, got \[nan, 0.0": lambda: {
        "agent_pos": np.where(np.arange(24).reshape(12, 2) == 4, np.nan, 0.0)
    },
}


def spoilt(value: float) -> np.ndarray:
    frames = picture(np.zeros(12)).astype(np.float32)
    frames[7, 2, 3, 1] = value
    return frames


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_carried_is_named(tmp_path: Path, message: str) -> None:
    npz(tmp_path / "a.npz", [12], **BAD[message]())
    with pytest.raises(EpisodesError, match=message) as caught:
        imported(NpzRecordings([tmp_path / "a.npz"], SAME), tmp_path / "out")
    assert str(caught.value).startswith(str(tmp_path / "a.npz")) and "\n" not in str(caught.value)


def test_all_bad_episodes_are_named_together_and_the_others_written(tmp_path: Path) -> None:
    files = [tmp_path / f"{number:02}.npz" for number in range(30)]
    for number, path in enumerate(files):
        npz(path, [12], **({"image": spoilt(np.nan)} if number < 12 else {}))
    with pytest.raises(EpisodesError, match="^12 episodes cannot be carried, the first ten of which are: ") as caught:
        imported(NpzRecordings(files, SAME), tmp_path / "out")
    assert str(caught.value).count("expected pixels") == 10
    assert [path.name for path in (tmp_path / "out").glob("*.npz")] == ["episodes-00001.npz"]
    files[3].write_bytes(b"hello")
    npz(files[5], [12], action=None)
    with pytest.raises(
        EpisodesError, match=r"^2 files cannot be read: .*03\.npz: expected an NPZ file.*05\.npz: .*action"
    ):
        NpzRecordings(files, SAME)


class Counted:
    """Made-up recordings that count what is asked of them."""

    pose_names, num_actions = None, 2

    def __init__(self, number: int, seed: int = 0) -> None:
        self.number, self.recipe, self.asked = number, {"seed": seed}, list[int]()

    def __len__(self) -> int:
        return self.number

    def name(self, number: int) -> str:
        return f"episode {number}"

    def episode(self, number: int) -> Recorded:
        self.asked.append(number)
        if number == self.number + 1000:
            raise KeyboardInterrupt
        return Recorded(np.full((3, 6, 6, 3), number, np.uint8), np.asarray([0, 1, 1]))


def test_an_import_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Counted(40)
    episode = first.episode

    def killed(number: int) -> Recorded:
        if number == 35:
            raise KeyboardInterrupt
        return episode(number)

    monkeypatch.setattr(first, "episode", killed)
    with pytest.raises(KeyboardInterrupt):
        Import(first, tmp_path).run(lambda number: None)
    again = Counted(40)
    work = Import(again, tmp_path)
    assert work.num_kept == 32
    work.run(lambda number: None)
    assert again.asked == list(range(32, 40))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    none = Counted(40)
    Import(none, tmp_path).run(lambda number: None)
    assert none.asked == [] and stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    more = Counted(50)  # the last shard had 8 of its episodes, now it has 16
    Import(more, tmp_path).run(lambda number: None)
    assert more.asked == list(range(32, 50)) and len(SavedEpisodes(str(tmp_path)).lengths["train"]) == 40
    path = tmp_path / "episodes-00000.npz"
    path.write_bytes(path.read_bytes()[:-300])
    assert Import(Counted(50), tmp_path).missing == [0], "a damaged shard is made again"
    with pytest.raises(ConfigError, match="this one holds an import with seed 0, not 1"):
        Import(Counted(50, seed=1), tmp_path)
    recipe = (tmp_path / "import.json").read_bytes()
    (tmp_path / "import.json").unlink()
    with pytest.raises(ConfigError, match="it holds shards of no import"):
        Import(Counted(50), tmp_path)
    (tmp_path / "import.json").write_bytes(recipe)
    for shard in tmp_path.glob("*.npz"):
        shard.unlink()
    assert len(Import(Counted(50, seed=1), tmp_path).missing) == 4, "what has no shard yet is anybody's"


def test_a_missing_package_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'reading videos needs av: pip install "gtm-pyro\[video\]"'):
        VideoRecordings([tmp_path / "a.mp4"], SAME)
