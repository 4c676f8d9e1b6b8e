"""Worlds as WAD files, read back without an engine."""

import io
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gtm_pyro.errors import ConfigError
from gtm_pyro.tasks.labyrinth import wad
from gtm_pyro.tasks.labyrinth.maps import room, rooms
from gtm_pyro.tasks.labyrinth.textures import PALETTE
from gtm_pyro.tasks.labyrinth.wad import build_wad, map_name
from gtm_pyro.tasks.labyrinth.world import UNITS, World

Lumps = list[tuple[str, bytes]]
Block = dict[str, str]


def lumps_of(content: bytes) -> Lumps:
    kind, number, place = struct.unpack_from("<4sII", content)
    assert kind == b"PWAD" and place + 16 * number == len(content)
    rows = [struct.unpack_from("<II8s", content, place + 16 * i) for i in range(number)]
    return [(name.rstrip(b"\0").decode(), content[start : start + size]) for start, size, name in rows]


def blocks_of(text: bytes, kind: str) -> list[Block]:
    """The blocks of a text map, key to value."""
    found = re.findall(rf"\b{kind}\s*{{([^}}]*)}}", text.decode())
    return [dict(re.findall(r'(\w+)="?([^;"]*)"?;', block)) for block in found]


def text_maps(lumps: Lumps) -> list[bytes]:
    return [content for name, content in lumps if name == "TEXTMAP"]


def lines_of(text: bytes) -> list[tuple[np.ndarray, np.ndarray, Block, Block | None]]:
    """Two ends in cells and the sides of every line."""
    vertices = [np.array([float(v["x"]), float(v["y"])]) / UNITS for v in blocks_of(text, "vertex")]
    sides = blocks_of(text, "sidedef")
    return [
        (
            vertices[int(line["v1"])],
            vertices[int(line["v2"])],
            sides[int(line["sidefront"])],
            sides[int(line["sideback"])] if "sideback" in line else None,
        )
        for line in blocks_of(text, "linedef")
    ]


def some_worlds() -> list[World]:
    return [draw(np.random.default_rng(seed)) for seed in range(8) for draw in (room, rooms)]


def test_lines_enclose_every_rectangle_but_its_pillars():
    worlds = some_worlds()
    assert sum(len(world.pillars) for world in worlds) > 3
    for world, text in zip(worlds, text_maps(lumps_of(build_wad(worlds))), strict=True):
        area = np.zeros(len(world.floors))
        for start, end, front, back in lines_of(text):
            # clockwise about the sector in front, counter-clockwise about the one behind
            half = (start[0] * end[1] - start[1] * end[0]) / 2
            area[int(front["sector"])] -= half
            if back is not None:
                area[int(back["sector"])] += half
        left, bottom, right, top = world.floors.T
        expected = (right - left) * (top - bottom)
        for x1, y1, x2, y2 in world.pillars:
            inside = (left <= x1) & (x2 <= right) & (bottom <= y1) & (y2 <= top)
            expected[inside] -= (x2 - x1) * (y2 - y1)
        np.testing.assert_allclose(area, expected, atol=1e-9)


def test_lines_meet_at_vertices_only():
    for text in text_maps(lumps_of(build_wad(some_worlds()))):
        points = np.array([[float(v["x"]), float(v["y"])] for v in blocks_of(text, "vertex")]) / UNITS
        assert len(np.unique(points, axis=0)) == len(points)
        for start, end, _, _ in lines_of(text):
            low, high = np.minimum(start, end), np.maximum(start, end)
            assert (high - low).max() > 0
            assert ((points >= low) & (points <= high)).all(1).sum() == 2


def test_textures_begin_where_walls_begin():
    worlds = some_worlds()
    lumps = lumps_of(build_wad(worlds))
    flats = dict(lumps)
    for world, text in zip(worlds, text_maps(lumps), strict=True):
        seen = 0.0
        for start, end, front, back in lines_of(text):
            if back is not None:
                assert "texturemiddle" not in front and "texturemiddle" not in back
                continue
            # the wall that this is a piece of
            way = (end - start) / np.linalg.norm(end - start)
            for (x1, y1, x2, y2), number in zip(world.walls, world.wall_textures, strict=True):
                first, length = np.array([x1, y1]), np.hypot(x2 - x1, y2 - y1)
                along = (start - first) @ way
                same = np.allclose(first + along * way, start) and np.allclose(([x2, y2] - first) / length, way)
                if same and -1e-9 <= along < length:
                    size = world.textures.shape[1]
                    assert float(front["offsetx_mid"]) == pytest.approx(along % 1 * size)
                    assert float(front["scalex_mid"]) == float(front["scaley_mid"]) == size / UNITS
                    shown = np.frombuffer(flats[front["texturemiddle"]], np.uint8).reshape(size, size)
                    np.testing.assert_array_equal(PALETTE[shown], world.textures[number])
                    seen += np.linalg.norm(end - start)
                    break
            else:
                pytest.fail("a line that is no wall")
        assert seen == pytest.approx(np.abs(world.walls[:, 2:] - world.walls[:, :2]).sum())


def test_floors_and_ceilings_have_their_textures():
    worlds = some_worlds()
    lumps = lumps_of(build_wad(worlds))
    flats = dict(lumps)
    for world, text in zip(worlds, text_maps(lumps), strict=True):
        sectors = blocks_of(text, "sector")
        assert len(sectors) == len(world.floors)
        for sector, floor, ceiling in zip(sectors, world.floor_textures, world.ceiling_textures, strict=True):
            for plane, number in (("floor", floor), ("ceiling", ceiling)):
                shown = np.frombuffer(flats[sector[f"texture{plane}"]], np.uint8)
                np.testing.assert_array_equal(PALETTE[shown].ravel(), world.textures[number].ravel())
                assert float(sector[f"xscale{plane}"]) == float(sector[f"yscale{plane}"]) == 0.5
            assert (sector["heightfloor"], sector["heightceiling"], sector["lightlevel"]) == ("0", "128", "255")


def test_objects_stand_where_they_stand_with_their_pictures():
    worlds = some_worlds()
    lumps = lumps_of(build_wad(worlds))
    by_name = dict(lumps)
    actors = re.findall(r"actor \w+ (\d+)\n.*?Spawn:\n    (\w{4}) A", by_name["DECORATE"].decode(), re.DOTALL)
    sprites = {number: f"{sprite}A0" for number, sprite in actors}
    for world, text in zip(worlds, text_maps(lumps), strict=True):
        start, *things = blocks_of(text, "thing")
        assert start["type"] == "1" and len(things) == len(world.objects) > 0
        for thing, (x, y, width, height), number in zip(things, world.objects, world.object_pictures, strict=True):
            assert (float(thing["x"]), float(thing["y"])) == (x * UNITS, y * UNITS)
            content = by_name[sprites[thing["type"]]]
            picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
            rows, columns = picture.shape[:2]
            assert (columns * float(thing["scalex"]), rows * float(thing["scaley"])) == (width * UNITS, height * UNITS)
            # the offsets: its middle, and its lower edge
            assert struct.unpack_from(">ii", content, content.index(b"grAb") + 4) == (columns // 2, rows)
            expected = world.pictures[number]
            np.testing.assert_array_equal(picture[..., 3], expected[..., 3])
            seen = expected[..., 3] > 0
            np.testing.assert_array_equal(picture[seen], expected[seen])


def test_no_light_level_is_darker_than_another():
    lumps = dict(lumps_of(build_wad(some_worlds()[:1])))
    assert lumps["PLAYPAL"] == PALETTE.tobytes() * 14
    assert lumps["COLORMAP"] == bytes(range(256)) * 34


def test_names_are_unique_and_short():
    worlds = some_worlds()
    names = [name for name, _ in lumps_of(build_wad(worlds)) if name not in ("TEXTMAP", "ENDMAP")]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 8
    assert [name for name in names if name.startswith("W")] == [map_name(i) for i in range(len(worlds))]


def test_equal_images_are_stored_once():
    world = some_worlds()[1]
    once, twice = (lumps_of(build_wad([world] * number)) for number in (1, 2))
    assert len(twice) == len(once) + 3


def test_a_world_of_other_textures_than_an_engine_can_draw_is_refused():
    world = some_worlds()[0]
    with pytest.raises(ConfigError, match="textures: expected squares"):
        build_wad([replace(world, textures=world.textures[:, :48, :48])])


def test_more_pictures_than_numbers_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wad, "MAX_PICTURES", 2)
    with pytest.raises(ConfigError, match="worlds: expected at most 2 different pictures, got"):
        build_wad(some_worlds()[:6])
