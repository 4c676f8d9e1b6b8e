"""The images that are walked on: the photographs that come with the library, and folders of one's own."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from world_cases import save_images

from gtm_pyro.errors import ConfigError, ImagesError
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.tasks.image_navigation.images import MINIMUM_CONTRAST, average_squares, photographs


def test_photographs_are_split_by_file_and_have_contrast():
    data = ImageNavigation()
    assert not set(photographs("train")) & set(photographs("test"))
    assert data.worlds("train").shape == (6 * 256, 3, 32, 32)
    assert data.worlds("test").shape == (2 * 256, 3, 32, 32)
    for split in ("train", "test"):
        contrast = (data.worlds(split).double() / 255).var((2, 3), correction=0).mean(1).sqrt()
        assert contrast.min() >= MINIMUM_CONTRAST - 1e-6


def test_squares_are_averaged_over_their_area():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 60, 3)).astype(np.uint8)
    cuts = average_squares(pixels, np.array([3, 10]), np.array([5, 0]), np.array([40, 57]), 8)
    exact = pixels[3:43, 5:45].reshape(8, 5, 8, 5, 3).mean((1, 3))
    assert np.abs(cuts[0] - exact).max() <= 0.5
    # 57 = 8 * 7 + 1: the last part is 8 pixels long, the others 7.
    assert cuts[1, 7, 0, 2] == round(pixels[10 + 49 : 10 + 57, 0:7, 2].mean())


def test_a_folder_gives_centred_squares_split_by_file(tmp_path):
    pictures = save_images(tmp_path, 8)
    (tmp_path / "README.txt").write_text("not an image, and not taken for one")
    (tmp_path / ".hidden.png").write_text("neither is this")
    data = ImageNavigation(str(tmp_path))
    assert len(data.worlds("train")) == 6 and len(data.worlds("test")) == 2
    side, rows, left = 40, 40 * np.arange(33) // 32, 5
    first = pictures[0][:, left : left + side]
    expected = np.add.reduceat(np.add.reduceat(first, rows[:-1], 0, dtype=np.int64), rows[:-1], 1)
    areas = np.diff(rows)[:, None] * np.diff(rows)[None]
    expected = ((expected + areas[..., None] // 2) // areas[..., None]).transpose(2, 0, 1)
    every = torch.cat([data.worlds("train"), data.worlds("test")]).numpy()
    assert len(np.unique(every, axis=0)) == 8 and sum(np.array_equal(world, expected) for world in every) == 1
    assert torch.equal(data.worlds("test"), ImageNavigation(str(tmp_path)).worlds("test"))
    # Of the 28 splits of 8 files, ten seeds give more than one.
    splits = {ImageNavigation(str(tmp_path), image_seed=seed).worlds("test").numpy().tobytes() for seed in range(10)}
    assert len(splits) > 1


def test_the_split_of_a_folder_leaves_one_on_each_side(tmp_path):
    save_images(tmp_path, 3)
    for fraction, tests in ((0.01, 1), (0.99, 2), (0.34, 1), (1.0, 3)):
        assert len(ImageNavigation(str(tmp_path), test_fraction=fraction).worlds("test")) == tests
    everything = ImageNavigation(str(tmp_path), test_fraction=1.0)
    assert everything.sample(2, num_observed=2, num_predicted=1, seed=0, split="test").batch_size == 2
    with pytest.raises(ConfigError, match="split: expected 'test'"):
        everything.sample(2, num_observed=2, num_predicted=1, seed=0)


def test_folders_below_and_every_kind_of_image(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "below").mkdir()
    grey = rng.integers(0, 256, (32, 32)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "below" / "grey.PNG")
    Image.fromarray(rng.integers(0, 256, (32, 32, 4)).astype(np.uint8), "RGBA").save(tmp_path / "rgba.png")
    palette = Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(tmp_path / "photo.jpeg")
    Image.fromarray(grey > 99).save(tmp_path / "bits.gif")
    worlds = ImageNavigation(str(tmp_path), test_fraction=1.0).worlds("test")
    assert worlds.shape == (5, 3, 32, 32)
    assert torch.equal(worlds[0], torch.from_numpy(grey).expand(3, 32, 32))


def test_several_cuts_of_a_folders_images(tmp_path):
    rng = np.random.default_rng(0)
    half = np.zeros((150, 300, 3), np.uint8)
    half[:, 200:] = rng.integers(0, 256, (150, 100, 3))
    Image.fromarray(half).save(tmp_path / "half.png")
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    worlds = ImageNavigation(str(tmp_path), test_fraction=1.0, cuts_per_image=20).worlds("test")
    assert worlds.shape == (40, 3, 32, 32)
    assert (worlds[:20] == 90).all()  # nothing better is to be had there
    assert ((worlds[20:].double() / 255).var((2, 3), correction=0).mean(1).sqrt() >= MINIMUM_CONTRAST - 1e-6).all()


def test_pictures_that_are_not_read_are_named(tmp_path, caplog):
    save_images(tmp_path, 3)
    ImageNavigation(str(tmp_path))
    assert not caplog.records
    for name in ("drawing.SVG", "photo.heic", "notes.txt", ".hidden.svg"):
        (tmp_path / name).write_text("of another kind")
    assert len(ImageNavigation(str(tmp_path), test_fraction=1.0).worlds("test")) == 3
    left_out = [record.getMessage() for record in caplog.records]
    assert left_out == [
        f"images: {tmp_path}/drawing.SVG and 1 more are left out, for pictures of that kind are not read"
    ]


def test_of_an_animated_image_the_first_picture_is_taken_and_said_so(tmp_path, caplog):
    rng = np.random.default_rng(0)
    grey = [Image.fromarray(rng.integers(0, 256, (32, 32)).astype(np.uint8)) for _ in range(3)]
    grey[0].save(tmp_path / "still.gif")
    grey[1].save(tmp_path / "moving.gif", save_all=True, append_images=[grey[2]])
    worlds = ImageNavigation(str(tmp_path), test_fraction=1.0).worlds("test")
    assert torch.equal(worlds[0], torch.from_numpy(np.array(grey[1])).expand(3, 32, 32))
    assert [record.getMessage() for record in caplog.records] == [
        f"images: {tmp_path}/moving.gif is of several pictures, of which the first alone is taken"
    ]


def nothing(folder: Path) -> None:
    pass


def a_text_file_named_png(folder: Path) -> None:
    save_images(folder, 2)
    (folder / "text.png").write_text("hello")


def a_truncated_image(folder: Path) -> None:
    save_images(folder, 3)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])


def a_truncated_photo(folder: Path) -> None:
    save_images(folder, 2)
    Image.open(folder / "0.png").save(folder / "2.jpg")
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:1500])


def an_empty_file(folder: Path) -> None:
    save_images(folder, 2)
    (folder / "2.jpg").touch()


def only_text(folder: Path) -> None:
    (folder / "README.txt").write_text("hello")


def one_image(folder: Path) -> None:
    save_images(folder, 1)


def a_small_image(folder: Path) -> None:
    save_images(folder, 3, size=(31, 50))


def sixteen_bits(folder: Path) -> None:
    save_images(folder, 2)
    Image.fromarray(np.full((40, 40), 40000, np.uint16)).save(folder / "2.png")


def a_dangling_link(folder: Path) -> None:
    save_images(folder, 2)
    (folder / "2.png").symlink_to(folder / "gone.png")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (nothing, "it is empty"),
        (only_text, "none of its 1 files has an image's suffix"),
        (a_text_file_named_png, "text.png cannot be read as an image .*no known image format"),
        (a_truncated_image, "1.png cannot be read as an image"),
        (a_truncated_photo, "2.jpg cannot be read as an image .*truncated"),
        (an_empty_file, "2.jpg cannot be read as an image"),
        (a_dangling_link, "2.png cannot be read as an image .*No such file"),
        (one_image, "expected at least two images .* got 0.png alone"),
        (a_small_image, "0.png: expected at least 32x32 pixels, got 50x31"),
        (sixteen_bits, "2.png: expected 8 bits a channel, got mode I"),
    ],
)
def test_bad_folders_give_one_clear_line(tmp_path, fill, message):
    fill(tmp_path)
    with pytest.raises(ImagesError, match=message) as caught:
        ImageNavigation(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ImagesError, match="there is nothing"):
        ImageNavigation(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    with pytest.raises(ImagesError, match="got a file"):
        ImageNavigation(str(tmp_path / "file"))


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    save_images(tmp_path, 2)
    scandir = os.scandir

    # The super-user may read every folder, so a refusal must be played.
    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImagesError, match=r"locked cannot be read \(Permission denied\)"):
        ImageNavigation(str(tmp_path))
