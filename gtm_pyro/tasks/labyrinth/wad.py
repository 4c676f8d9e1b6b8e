"""Worlds as a WAD file, the maps, textures and pictures that a Doom engine loads.

Every world is a map in the Universal Doom Map Format, of which the engine builds the nodes itself. A palette, light
and textures of our own leave nothing of the game's in sight.
"""

import io
import struct
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gtm_pyro.errors import ConfigError
from gtm_pyro.tasks.labyrinth.textures import PALETTE, to_palette
from gtm_pyro.tasks.labyrinth.world import UNITS, World

MAX_PICTURES = 12_000
"""Kinds of actors in one file: their numbers must stay below 32,768."""
_FIRST_ACTOR = 20_000
_PLAYER_START = 1
# several sides of flats are told apart by the size of the lump alone
_FLAT_SIZES = (16, 32, 64, 128, 256)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Lump = tuple[str, bytes]
Point = tuple[float, float]


def map_name(number: int) -> str:
    """Of the map of a world, by its place among the worlds."""
    return f"W{number:06d}"


def build_wad(worlds: Sequence[World]) -> bytes:
    """A patch WAD with a map for each world. Equal textures and equal pictures are stored once.

    Colours become the nearest ones of :data:`~gtm_pyro.tasks.labyrinth.textures.PALETTE`.

    :raises ConfigError: more pictures than an engine can tell apart, or textures of a size that it cannot draw.
    """
    flats, sprites = _Images(), _Images()
    maps: list[Lump] = []
    for number, world in enumerate(worlds):
        size = world.textures.shape[1]
        if size not in _FLAT_SIZES or world.textures.shape[2] != size:
            raise ConfigError(f"textures: expected squares of {_FLAT_SIZES} texels, got {world.textures.shape[1:3]}")
        textures = [flats.number(to_palette(texture)) for texture in world.textures]
        pictures = [sprites.number(_indexed(picture)) for picture in world.pictures]
        maps += [(map_name(number), b""), ("TEXTMAP", _text_map(world, textures, pictures)), ("ENDMAP", b"")]
    if len(sprites.images) > MAX_PICTURES:
        raise ConfigError(f"worlds: expected at most {MAX_PICTURES} different pictures, got {len(sprites.images)}")
    return _packed(
        [
            ("PLAYPAL", PALETTE.tobytes() * 14),
            # one row for each light level: none is darker than another
            ("COLORMAP", bytes(range(256)) * 34),
            ("DECORATE", "".join(map(_actor, range(len(sprites.images)))).encode()),
            ("F_START", b""),
            *((_flat(number), image.tobytes()) for number, image in enumerate(flats.images)),
            ("F_END", b""),
            ("S_START", b""),
            *((f"{_sprite(number)}A0", _png(image)) for number, image in enumerate(sprites.images)),
            ("S_END", b""),
            *maps,
        ]
    )


class _Images:
    """Different images, in the order in which they came."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self._numbers: dict[tuple[tuple[int, ...], bytes], int] = {}

    def number(self, image: np.ndarray) -> int:
        key = (image.shape, image.tobytes())
        if key not in self._numbers:
            self._numbers[key] = len(self.images)
            self.images.append(image)
        return self._numbers[key]


def _flat(number: int) -> str:
    return f"T{number:07d}"


def _sprite(number: int) -> str:
    """Four characters, as engines want."""
    return "Q" + "".join(_DIGITS[number // 36**place % 36] for place in (2, 1, 0))


def _indexed(picture: np.ndarray) -> np.ndarray:
    """Entries of the palette, 0 where it is transparent."""
    return np.where(picture[..., 3] > 127, to_palette(picture[..., :3]), 0).astype(np.uint8)


def _text_map(world: World, textures: Sequence[int], pictures: Sequence[int]) -> bytes:
    """A map; textures and pictures are the numbers in the file of those of the world."""
    scale = world.textures.shape[1] / UNITS
    blocks = ['namespace="zdoom";']
    for floor, ceiling in zip(world.floor_textures, world.ceiling_textures, strict=True):
        names = f'texturefloor="{_flat(textures[floor])}";textureceiling="{_flat(textures[ceiling])}"'
        scales = "".join(f"{axis}scale{plane}={scale};" for axis in "xy" for plane in ("floor", "ceiling"))
        blocks.append(f"sector{{heightfloor=0;heightceiling={UNITS};lightlevel=255;{names};{scales}}}")
    vertices: dict[Point, int] = {}
    sides = 0
    for start, end, sector, texture, along in _wall_pieces(world):
        ends = _vertex(vertices, start), _vertex(vertices, end)
        blocks.append(
            f'sidedef{{sector={sector};texturemiddle="{_flat(textures[texture])}";offsetx_mid={along * UNITS * scale};'
            f"scalex_mid={scale};scaley_mid={scale};}}\n"
            f"linedef{{v1={ends[0]};v2={ends[1]};sidefront={sides};blocking=true;}}"
        )
        sides += 1
    for start, end, right, left in _openings(world):
        ends = _vertex(vertices, start), _vertex(vertices, end)
        blocks.append(
            f"sidedef{{sector={right};}}\nsidedef{{sector={left};}}\n"
            f"linedef{{v1={ends[0]};v2={ends[1]};sidefront={sides};sideback={sides + 1};twosided=true;}}"
        )
        sides += 2
    blocks += [f"vertex{{x={x * UNITS};y={y * UNITS};}}" for x, y in vertices]
    left, bottom, right, top = world.floors[0].tolist()
    blocks.append(_thing(_PLAYER_START, (left + right) / 2, (bottom + top) / 2))
    for (x, y, width, height), picture in zip(world.objects.tolist(), world.object_pictures, strict=True):
        rows, columns = world.pictures.shape[1:3]
        size = f"scalex={width * UNITS / columns};scaley={height * UNITS / rows};"
        blocks.append(_thing(_FIRST_ACTOR + pictures[picture], x, y, size))
    return "\n".join(blocks).encode()


def _thing(kind: int, x: float, y: float, more: str = "") -> str:
    skills = "".join(f"skill{level}=true;" for level in range(1, 6))
    return f"thing{{x={x * UNITS};y={y * UNITS};type={kind};single=true;{skills}{more}}}"


def _vertex(vertices: dict[Point, int], point: Point) -> int:
    return vertices.setdefault(point, len(vertices))


def _wall_pieces(world: World) -> Iterable[tuple[Point, Point, int, int, float]]:
    """Walls in pieces between corners: two ends, rectangle on the right, texture, where it begins on the wall."""
    corners = _corners(world)
    for wall, texture in zip(world.walls.tolist(), world.wall_textures.tolist(), strict=True):
        points = _cut(_points(wall), corners)
        for start, end in zip(points, points[1:], strict=False):
            sector = _sector_right_of(world, start, end)
            if sector is not None:
                yield start, end, sector, texture, (abs(start[0] - wall[0]) + abs(start[1] - wall[1])) % 1


def _openings(world: World) -> Iterable[tuple[Point, Point, int, int]]:
    """Where rectangles touch: two ends, the rectangle on the right, and that on the left."""
    corners = _corners(world)
    boxes = world.floors.tolist()
    for one, (left, bottom, right, top) in enumerate(boxes):
        for other, (other_left, other_bottom, other_right, other_top) in enumerate(boxes):
            low, high = max(bottom, other_bottom), min(top, other_top)
            if right == other_left and low < high:
                points = _cut(((right, low), (right, high)), corners)  # northwards: the right is the east
                yield from ((start, end, other, one) for start, end in zip(points, points[1:], strict=False))
            low, high = max(left, other_left), min(right, other_right)
            if top == other_bottom and low < high:
                points = _cut(((low, top), (high, top)), corners)  # eastwards: the right is the south
                yield from ((start, end, one, other) for start, end in zip(points, points[1:], strict=False))


def _points(ends: Sequence[float]) -> tuple[Point, Point]:
    return (ends[0], ends[1]), (ends[2], ends[3])


def _corners(world: World) -> list[Point]:
    """Where lines may meet."""
    walls = world.walls.tolist()
    boxes = world.floors.tolist()
    ends = [point for wall in walls for point in _points(wall)]
    return ends + [(x, y) for left, bottom, right, top in boxes for x in (left, right) for y in (bottom, top)]


def _cut(ends: tuple[Point, Point], corners: Sequence[Point]) -> list[Point]:
    """An axis-parallel line's ends, and between them the corners on it: lines of a map must meet at vertices."""
    (x1, y1), (x2, y2) = ends
    on = {(x, y) for x, y in corners if min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2)}
    return sorted(on | set(ends), key=lambda point: abs(point[0] - x1) + abs(point[1] - y1))


def _sector_right_of(world: World, start: Point, end: Point) -> int | None:
    """The rectangle that is on the right hand from one point to another."""
    dx, dy = np.sign(end[0] - start[0]), np.sign(end[1] - start[1])
    x, y = (start[0] + end[0]) / 2 + 1e-4 * dy, (start[1] + end[1]) / 2 - 1e-4 * dx
    for number, (left, bottom, right, top) in enumerate(world.floors):
        if left <= x <= right and bottom <= y <= top:
            return number
    return None


def _actor(number: int) -> str:
    """A kind of thing that shows a picture, and that the agent walks through."""
    return (
        f"actor LabyrinthPicture{number} {_FIRST_ACTOR + number}\n{{\n  Radius 1\n  Height 1\n  +NOINTERACTION\n"
        f"  States\n  {{\n  Spawn:\n    {_sprite(number)} A -1\n    Stop\n  }}\n}}\n"
    )


def _png(indices: np.ndarray) -> bytes:
    """A picture in the palette, entry 0 transparent, that stands on the middle of its lower edge."""
    rows, columns = indices.shape
    picture = Image.frombytes("P", (columns, rows), indices.tobytes())
    picture.putpalette(PALETTE.tobytes())
    where = PngInfo()
    where.add(b"grAb", struct.pack(">ii", columns // 2, rows))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=where, transparency=0, compress_level=1)
    return buffer.getvalue()


def _packed(lumps: Sequence[Lump]) -> bytes:
    """Header, contents, directory."""
    directory, place = [], 12
    for name, content in lumps:
        directory.append(struct.pack("<II8s", place, len(content), name.encode()))
        place += len(content)
    return b"".join([struct.pack("<4sII", b"PWAD", len(lumps), place), *(content for _, content in lumps), *directory])
