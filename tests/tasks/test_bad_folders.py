"""Bad files of one folder are named together: the first ten, and how many."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.errors import EpisodesError, ImagesError
from gtm_pyro.tasks import ImageNavigation, SavedEpisodes


def test_images(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / f"good-{number}.png")
    (tmp_path / "bad-00.png").write_text("no image")
    with pytest.raises(ImagesError, match="^images: .*bad-00.png cannot be read as an image .its content"):
        ImageNavigation(images=str(tmp_path))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "bad-01.png")
    with pytest.raises(ImagesError) as caught:
        ImageNavigation(images=str(tmp_path))
    said = str(caught.value)
    assert said.startswith("2 files cannot be used: images: ") and "bad-00.png" in said and "got 4x4" in said
    for number in range(2, 14):
        (tmp_path / f"bad-{number:02d}.png").write_text("no image")
    with pytest.raises(ImagesError) as caught:
        ImageNavigation(images=str(tmp_path))
    said = str(caught.value)
    assert said.startswith("14 files cannot be used; the first 10 are: ")
    assert said.count(".png") == 10 and "\n" not in said


def test_shards(tmp_path: Path) -> None:
    actions = torch.eye(3)[torch.randint(3, (8, 9))]
    paths = save_shards(Episodes(torch.rand(8, 9, 3, 8, 8), actions, 9), tmp_path, shard_size=2)
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    frames = np.load(paths[2])["frames"]
    np.savez(paths[2], frames=frames)
    with pytest.raises(EpisodesError) as caught:
        SavedEpisodes(str(tmp_path))
    said = str(caught.value)
    assert said.startswith(f"2 files cannot be used: {paths[0]}: expected an NPZ shard, got a file that is cut short")
    assert f"{paths[2]}: expected an array actions" in said
