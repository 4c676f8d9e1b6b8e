"""The process that holds a Doom engine, a script that imports nothing of this package, so that it starts at once.

It is one of its own because the engine's library takes its process down when an engine ends early, stops all threads
while a map loads, takes over the handlers of signals, and writes into the working folder.
"""

import os
import select
import shlex
import shutil
import struct
import sys
import traceback
from collections.abc import Iterator
from typing import Any

WAD = "labyrinth.wad"
"""In the working folder, as are the next two."""
ARGUMENTS = "arguments.txt"
"""Those that the library starts the engine with, one a line."""
_LAUNCHER = "engine.sh"
SIZE = 32
"""Of a frame, in pixels."""
REQUEST = struct.Struct("<8s3d")
"""A map to load, where to stand in its units, and a turn in degrees to the left; or no map, what is pressed forwards
and to the right, and the turn."""
REPLY = struct.Struct("<?I")
"""Whether it went well, and how many bytes follow: a pose, the frame there, or what went wrong."""
POSE = struct.Struct("<3d")
"""x, y in the map's units, heading in degrees."""
_SCREEN = (160, 120)
_FIELD_OF_VIEW = 100
# before that the engine drops what is pressed
_START_TIC = 10
# a jump is seen one tic later
_SETTLING_TICS = 2


def start(first_map: str) -> Any:
    """An engine that has loaded a map."""
    import vizdoom

    game = vizdoom.DoomGame()
    engine = os.path.join(os.path.dirname(vizdoom.__file__), "vizdoom")
    with open(_LAUNCHER, "wb") as file:
        # they name the shared memory, which an engine that cannot start leaves behind
        text = f'#!/bin/sh\nprintf \'%s\\n\' "$@" > {ARGUMENTS}\nexec {shlex.quote(engine)} "$@"\n'
        file.write(os.fsencode(text))
    os.chmod(_LAUNCHER, 0o700)
    if os.access(_LAUNCHER, os.X_OK):  # some file systems run nothing
        game.set_vizdoom_path(os.path.abspath(_LAUNCHER))
    game.set_doom_scenario_path(os.path.abspath(WAD))
    game.set_doom_map(first_map)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, "RES_{}X{}".format(*_SCREEN)))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    for part in ("hud", "weapon", "crosshair", "decals", "particles", "effects_sprites", "messages", "screen_flashes"):
        getattr(game, f"set_render_{part}")(False)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons(
        [button.MOVE_FORWARD, button.MOVE_BACKWARD, button.MOVE_RIGHT, button.MOVE_LEFT, button.TURN_LEFT_RIGHT_DELTA]
    )
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_seed(0)
    game.set_episode_start_time(_START_TIC)
    game.set_episode_timeout(0)
    game.add_game_args("+movebob 0")
    game.init()
    return game


def load(game: Any, name: str, x: float, y: float, turn: float) -> None:
    """Begin on a map, at a place, having turned from the east."""
    game.set_doom_map(name)
    game.new_episode()
    # a new episode forgets it
    game.send_game_command(f"fov {_FIELD_OF_VIEW}")
    game.send_game_command(f"warp {round(x)} {round(y)}")
    game.set_action([0, 0, 0, 0, -turn])
    game.advance_action(1, False)
    game.set_action([0, 0, 0, 0, 0])
    game.advance_action(_SETTLING_TICS, True)


def move(game: Any, forward: float, side: float, turn: float, tics: int) -> None:
    """Turn in the first tic, and go during all of them."""
    pressed = [forward > 0, forward < 0, side > 0, side < 0]
    game.set_action([*pressed, -turn])
    game.advance_action(1, tics == 1)
    if tics > 1:
        game.set_action([*pressed, 0])
        game.advance_action(tics - 1, True)


def views(game: Any) -> Iterator[bytes]:
    """The pose first, on which the next action may depend, and then the frame."""
    from PIL import Image

    state = game.get_state()
    if state is None:
        raise RuntimeError("the episode ended by itself")
    yield POSE.pack(*state.game_variables)
    # the whole screen, each pixel the mean of an area; in two parts this is faster
    screen = Image.fromarray(state.screen_buffer).reduce((_SCREEN[0] // SIZE, 1))
    yield screen.resize((SIZE, SIZE), Image.Resampling.BOX).tobytes()


def serve(requests: int, replies: int, first_map: str, tics: int) -> None:
    """Answer until the parent has gone."""
    parent, poll = os.getppid(), select.poll()
    poll.register(requests, select.POLLIN)

    def request() -> bytes:
        # another process may still hold its end of the pipe when it has gone
        while not poll.poll(1000):
            if os.getppid() != parent:
                return b""
        return os.read(requests, REQUEST.size)

    game = start(first_map)
    _reply(replies, True, b"")
    try:
        while content := request():
            name, first, second, turn = REQUEST.unpack(content)
            if name.rstrip(b"\0"):
                load(game, name.rstrip(b"\0").decode(), first, second, turn)
            else:
                move(game, first, second, turn, tics)
            for part in views(game):
                _reply(replies, True, part)
    finally:
        game.close()


def _reply(descriptor: int, good: bool, content: bytes) -> None:
    left = memoryview(REPLY.pack(good, len(content)) + content)
    while left:
        left = left[os.write(descriptor, left) :]


def main() -> None:
    first_map, tics = sys.argv[1], int(sys.argv[2])
    requests, replies = os.dup(0), os.dup(1)
    # the engine may read and write there
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        serve(requests, replies, first_map, tics)
    except BrokenPipeError:
        pass
    except Exception as error:
        traceback.print_exc()
        _reply(replies, False, str(error).encode())
    finally:
        shutil.rmtree(os.getcwd(), ignore_errors=True)


if __name__ == "__main__":
    main()
