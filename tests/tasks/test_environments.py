"""Episodes played in Gymnasium environments: MiniGrid's, MiniWorld's, and any other's."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gtm_pyro.errors import ConfigError, MissingDependencyError
from gtm_pyro.tasks import SavedEpisodes
from gtm_pyro.tasks.general.layouts import layout_under
from gtm_pyro.tasks.recordings import GymnasiumRecordings, Import, Named, Reshaping
from gtm_pyro.tasks.recordings.agents import RandomRepeats, TurnsWhenBlocked

gymnasium = pytest.importorskip("gymnasium")
SAME = Reshaping()
ROOMS = "MiniGrid-FourRooms-v0"


class Ring(gymnasium.Env):
    """Places on a ring, left and right, as states and not as pictures; ends after 9 moves."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(0, 12, (1,))

    def __init__(self, render_mode: str | None = None, start: int = 0) -> None:
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Discrete(3, start=start)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.moves = int(self.np_random.integers(12)), 0
        return np.asarray([self.place], dtype=np.float32), {}

    def step(self, action: int) -> Any:
        self.place = (self.place + int(action) - self.action_space.start) % 12
        self.moves += 1
        return np.asarray([self.place], dtype=np.float32), 0.0, self.moves == 9, False, {}

    def render(self) -> np.ndarray:
        return np.full((6, 8, 3), 20 * self.place, np.uint8)


class Strict(Ring):
    """Takes no step after its end."""

    def step(self, action: int) -> Any:
        assert self.moves < 9, "call reset"
        return super().step(action)


class RingPoses:
    names = ("place",)

    def __call__(self, environment: Ring) -> list[float]:
        return [environment.place]


class Onwards:
    """A policy of a user's own."""

    def __init__(self, action_space: Any, generator: np.random.Generator, action: int = 1) -> None:
        self.action = action

    def __call__(self, observation: np.ndarray) -> int:
        return self.action


gymnasium.register("Ring-v0", entry_point=Ring, order_enforce=False)


def test_any_environment_with_a_policy_and_poses_of_ones_own(tmp_path: Path) -> None:
    source = GymnasiumRecordings("Ring-v0", SAME, num_episodes=20, num_steps=30, poses=Named("RingPoses", RingPoses))
    Import(source, tmp_path).run(lambda number: None)
    data = SavedEpisodes(str(tmp_path), test_fraction=1)
    assert (data.lengths["test"], data.num_actions, data.frame_shape) == ((10,) * 20, 3, (3, 6, 8))
    drawn = data.sample(50, num_observed=9, num_predicted=1, seed=0, split="test")
    places = (drawn.frames[:, :, 0, 0, 0] * 255 / 20).round()
    assert drawn.poses is not None and (places == drawn.poses[..., 0]).all()
    assert (places.diff(dim=1) % 12 == drawn.actions.argmax(-1)[:, 1:]).all(), "actions[t] led to frames[t]"
    onwards = Named("Onwards", partial(Onwards, action=2))
    walk = GymnasiumRecordings("Ring-v0", SAME, num_steps=6, policy=onwards).episode(0)
    assert walk.actions.tolist() == [0, 2, 2, 2, 2, 2] and walk.poses is None
    # the same episodes again, each on its own
    assert all((source.episode(7).frames == source.episode(7).frames).tolist())
    assert (source.episode(3).actions != source.episode(4).actions).any()


def test_an_environment_is_played_past_its_end() -> None:
    onwards = Named("Onwards", partial(Onwards, action=2))
    source = GymnasiumRecordings("Ring-v0", SAME, num_steps=30, policy=onwards, past_the_end=True)
    walk = source.episode(0)
    assert len(walk.frames) == 30 and source.recipe["past_the_end"]
    places = walk.frames[:, 0, 0, 0].astype(int) // 20
    assert (np.diff(places) % 12 == 2).all(), "no reset at the tenth frame, where an episode ends"
    # nothing else changes, nor does the recipe of those who do not ask for it
    shorter = GymnasiumRecordings("Ring-v0", SAME, num_steps=30, policy=onwards)
    assert (shorter.episode(0).frames == walk.frames[:10]).all() and "past_the_end" not in shorter.recipe


def test_an_environment_that_refuses_to_go_on_is_named() -> None:
    gymnasium.register("Strict-v0", entry_point=Strict, order_enforce=False)
    onwards = Named("Onwards", Onwards)
    assert len(GymnasiumRecordings("Strict-v0", SAME, policy=onwards).episode(0).frames) == 10
    with pytest.raises(ConfigError, match="Strict-v0, episode 0: AssertionError.*reset"):
        GymnasiumRecordings("Strict-v0", SAME, policy=onwards, past_the_end=True).episode(0)


def test_some_of_the_actions_are_numbered_anew() -> None:
    source = GymnasiumRecordings("Ring-v0", SAME, actions=[2, 0])
    walk = source.episode(0)
    places = walk.frames[:, 0, 0, 0].astype(int) // 20
    assert source.num_actions == 2
    assert (np.diff(places) % 12).tolist() == np.asarray([2, 0])[walk.actions[1:]].tolist()
    with pytest.raises(ConfigError, match="actions: expected some from 0 to 2, got 3"):
        GymnasiumRecordings("Ring-v0", SAME, actions=[1, 3]).episode(0)


def test_random_actions_are_repeated() -> None:
    choose = RandomRepeats(gymnasium.spaces.Discrete(50, start=1), np.random.default_rng(0))
    drawn = [choose(None) for _ in range(2000)]
    assert min(drawn) == 1 and max(drawn) == 50
    runs = np.diff(np.flatnonzero(np.diff(drawn, prepend=0, append=0)))
    assert 2.3 < runs.mean() < 2.8, "one to four times, now and then the same action again"
    bounded = RandomRepeats(gymnasium.spaces.Box(-1, 2, (2,)), np.random.default_rng(0))
    forces = np.stack([bounded(None) for _ in range(500)])
    assert forces.dtype == np.float32 and -1 <= forces.min() < -0.9 and 1.9 < forces.max() <= 2
    with pytest.raises(ConfigError, match="policy: expected a space of numbered or of bounded actions"):
        RandomRepeats(gymnasium.spaces.Box(-np.inf, np.inf, (2,)), np.random.default_rng(0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_agent_turns_when_a_move_changed_nothing(wrapped: bool) -> None:
    """In a corridor of 5 cells, seen as it is or in a dictionary; turning changes what is seen."""
    space = gymnasium.spaces.Discrete(3)
    choose = TurnsWhenBlocked(space, np.random.default_rng(0))
    seen, place, way = np.zeros(2, np.int8), 0, 1  # one array for all
    blocked, pushes, after = 0, 0, []
    for _ in range(3000):
        seen[:] = place, way
        action = choose({"image": seen, "mission": "go"} if wrapped else seen)
        after += [action] if blocked else []
        moves = action == 2 and 0 <= place + way < 5
        pushes, blocked = pushes + (action == 2), action == 2 and not moves
        place, way = place + way * moves, -way if action != 2 else way
    assert set(after) == {0, 1}, "turns alone, and both ways"
    assert len(after) < 0.7 * pushes
    wrong = (({"turns": ()}, "at least one turn and one move"), ({"moves": (7,)}, "from 0 to 2, got 7"))
    for arguments, message in wrong:
        with pytest.raises(ConfigError, match=message):
            TurnsWhenBlocked(space, np.random.default_rng(0), **arguments)
    with pytest.raises(ConfigError, match="most: expected a whole number of at least 1, got 0"):
        RandomRepeats(space, np.random.default_rng(0), most=0)
    box = pytest.importorskip("gymnasium").spaces.Box(-1, 1, (2,))
    with pytest.raises(ConfigError, match=r"policy: expected a space of numbered actions, got Box"):
        TurnsWhenBlocked(box, np.random.default_rng(0))


def test_minigrid_as_the_agent_sees_it(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    source = GymnasiumRecordings(ROOMS, SAME, num_episodes=4, num_steps=120)
    assert (source.num_actions, source.pose_names) == (3, ("x", "y", "heading"))
    for number in range(4):
        walk = source.episode(number)
        assert walk.frames.shape[1:] == (28, 28, 3) and walk.poses is not None
        moved = np.diff(walk.poses[:, :2], axis=0)
        heading = walk.poses[:-1, 2]
        ahead = np.stack([np.cos(heading), np.sin(heading)], 1)
        turned = np.diff(walk.poses[:, 2])
        actions = walk.actions[1:]
        # left turns from y to x, for y points down; a wall or the goal may stop a step
        for action, turn in ((0, -np.pi / 2), (1, np.pi / 2), (2, 0.0)):
            assert np.allclose(np.exp(1j * turned[actions == action]), np.exp(1j * turn))
        assert (moved[actions != 2] == 0).all() and (abs(moved[actions == 2]).sum(1) > 0).any()
        assert np.allclose(moved[abs(moved).sum(1) > 0], ahead[abs(moved).sum(1) > 0])
    assert len(walk.frames) == 120, "longer than the 100 steps that are usual"
    assert GymnasiumRecordings(ROOMS, Reshaping((56, 56)), num_steps=3).episode(0).frames.shape == (3, 56, 56, 3)


def test_the_grid_is_drawn_under_the_map(tmp_path: Path) -> None:
    """Layouts are those of the episodes that are drawn, whichever these are."""
    pytest.importorskip("minigrid")
    named: dict[str, Any] = {"num_episodes": 20, "num_steps": 12, "past_the_end": True}
    Import(GymnasiumRecordings("MiniGrid-SimpleCrossingS9N3-v0", SAME, **named), tmp_path).run(lambda number: None)
    data, drawn = SavedEpisodes(str(tmp_path), test_fraction=1), {"num_observed": 8, "num_predicted": 3, "seed": 4}
    episodes, layouts = data.sample(30, split="test", **drawn), data.layouts(30, split="test", **drawn)
    assert episodes.poses is not None and len({layout.tobytes() for layout in layouts if layout is not None}) > 5
    for poses, layout in zip(episodes.poses, layouts, strict=True):
        assert layout is not None and layout.shape == (9, 9) and not layout[0].any() and layout[1, 1]
        columns, rows = poses[:, :2].long().T
        assert layout[rows, columns].all()
        ground = layout_under(layout, poses[:, :2].numpy())
        assert ground is not None and ground.corner == -0.5 and ground.limits[1].tolist() == [8.5, 8.5]
    # places that are counted from a cell's corner
    moved = layout_under(layout, np.argwhere(layout)[:, ::-1] + 0.5)
    assert moved is not None and moved.corner == 0
    assert layout_under(layout, np.full((4, 2), 99.0)) is None


def test_minigrid_is_played_past_the_goal() -> None:
    pytest.importorskip("minigrid")
    policy = Named("TurnsWhenBlocked", partial(TurnsWhenBlocked, most=3))
    named: dict[str, Any] = {"num_episodes": 8, "num_steps": 90, "policy": policy, "actions": (0, 1, 2)}
    ends = GymnasiumRecordings("MiniGrid-Empty-5x5-v0", SAME, **named)
    goes_on = GymnasiumRecordings("MiniGrid-Empty-5x5-v0", SAME, past_the_end=True, **named)
    lengths = [len(ends.episode(number).frames) for number in range(8)]
    assert min(lengths) < 90, "some walks come to the goal"
    for number in range(8):
        walk = goes_on.episode(number)
        assert len(walk.frames) == 90 and (walk.frames[: lengths[number]] == ends.episode(number).frames).all()
    poses = goes_on.episode(int(np.argmin(lengths))).poses
    assert poses is not None and (np.abs(np.diff(poses[min(lengths) :, :2], axis=0)).sum(1) <= 1).all()


def test_ten_episodes_of_minigrid_on_disk(tmp_path: Path) -> None:
    """At most 15 MB for 150 steps of 56x56 RGB each, whatever they show; MiniGrid's pictures are plain."""
    pytest.importorskip("minigrid")
    source = GymnasiumRecordings(ROOMS, Reshaping((56, 56)), num_episodes=2, num_steps=150)
    Import(source, tmp_path).run(lambda number: None)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 15e6 / 5 / 20


def test_miniworld_without_a_window() -> None:
    if importlib.util.find_spec("miniworld") is None:  # to import it would open a window
        pytest.skip("MiniWorld is not installed")
    source = GymnasiumRecordings("MiniWorld-OneRoom-v0", Reshaping((12, 16)), num_steps=60)
    walk = source.episode(0)
    assert walk.frames.shape[1:] == (12, 16, 3) and walk.frames.std() > 5 and walk.poses is not None
    moved, turned = np.diff(walk.poses[:, :2], axis=0), np.diff(walk.poses[:, 2])
    actions, heading = walk.actions[1:], walk.poses[:-1, 2]
    assert (turned[actions == 0] > 0).all() and (turned[actions == 1] < 0).all()
    ahead = (moved * np.stack([np.cos(heading), np.sin(heading)], 1)).sum(1)
    assert np.allclose(ahead[actions == 2], np.linalg.norm(moved[actions == 2], axis=1)) and ahead.max() > 0.1
    # OneRoom ends after 180 steps and FourRooms after 250 where nobody says otherwise
    for name, steps in (("MiniWorld-OneRoom-v0", 200), ("MiniWorld-FourRooms-v0", 260)):
        longer = GymnasiumRecordings(name, Reshaping((3, 4)), num_steps=steps, past_the_end=True)
        assert longer._env.unwrapped.max_episode_steps == steps and len(longer.episode(0).frames) == steps


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Rnig-v0: could not be made .*Ring"):
        GymnasiumRecordings("Rnig-v0", SAME)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "minigrid" else object())
    with pytest.raises(MissingDependencyError, match=r'needs minigrid: pip install "gtm-pyro\[minigrid\]"'):
        GymnasiumRecordings(ROOMS, SAME)


class OneArray(Ring):
    """Gives one array for all frames, and changes it."""

    def render(self) -> np.ndarray:
        self.pixels = getattr(self, "pixels", np.zeros((6, 8, 3), np.uint8))
        self.pixels[:] = 20 * self.place
        return self.pixels


def test_frames_are_kept_as_they_were() -> None:
    gymnasium.register("OneArray-v0", entry_point=OneArray, order_enforce=False)
    once = GymnasiumRecordings("OneArray-v0", SAME, policy=Named("Onwards", partial(Onwards, action=2))).episode(0)
    assert len(np.unique(once.frames)) == 6, "of 12 places every other one"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"policy": Named("p", dict)}, "episode 0: TypeError"),
        ({"wrappers": [Named("w", partial(Onwards, nothing=1))]}, "^w: could not be made: TypeError"),
        ({"poses": Named("x", dict)}, "^poses: expected a class with names, dict has none"),
    ],
)
def test_classes_that_do_not_fit_are_told_in_a_line(named: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GymnasiumRecordings("Ring-v0", SAME, **named).episode(0)
