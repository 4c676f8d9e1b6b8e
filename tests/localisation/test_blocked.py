"""Which moves were blocked, in mazes made here: frames are views of cells, and some views repeat."""

import pytest
import torch
from maze_cases import SIDE, Picture, maze_walks, transition
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.localisation.blocked import BlockedSearch, unlike


def walks(num: int, time: int, looks: int = 40, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """:param looks: different frames in all; fewer than there are poses, so that some neighbours look alike."""
    pictures = torch.rand(looks, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def picture(generator: torch.Generator) -> Picture:
        view = torch.randint(looks, (SIDE + 2, SIDE + 2, 4), generator=generator)
        return lambda x, y, heading, _: pictures[view[x, y, heading]]

    frames, actions, blocked = maze_walks(num, time, picture)
    return frames + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(1)), actions, blocked


def test_what_follows_tells_blocked_moves_from_look_alikes() -> None:
    frames, actions, blocked = walks(12, 200, looks=20)
    asked = ~unlike(frames).changed & (actions[..., 2] > 0)
    asked[:, 0] = False
    alike = asked & ~blocked
    assert int(alike.sum()) > 20  # moves that were made, after which the frame was the same
    found = BlockedSearch()(transition(), frames, actions)
    wrong = (found != blocked) & asked
    assert int(wrong.sum()) < 0.4 * int(alike.sum())
    one = BlockedSearch(num_hypotheses=1)(transition(), frames, actions)
    assert int(((one != blocked) & asked).sum()) > 2 * int(wrong.sum())
    easy = BlockedSearch(contradiction=1e-3)(transition(), frames, actions)  # no contradiction counts
    assert int(((easy != blocked) & asked).sum()) > 2 * int(wrong.sum())


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_where_nothing_looks_alike_a_move_that_changed_nothing_was_blocked(noise: float) -> None:
    frames, actions, blocked = walks(8, 80, looks=2000, noise=noise)
    assert torch.equal(BlockedSearch()(transition(), frames, actions), blocked)
    assert int(blocked.sum()) > 50


def test_an_episode_is_explained_alike_alone_in_any_batch_and_in_any_unit() -> None:
    frames, actions, _ = walks(6, 60, looks=6)
    together = BlockedSearch()(transition(), frames, actions)
    alone = torch.cat([BlockedSearch()(transition(), frames[i : i + 1], actions[i : i + 1]) for i in range(6)])
    assert torch.equal(together, alone)
    assert torch.equal(BlockedSearch()(transition(1e3), 0.1 * frames, actions), together)
    assert torch.equal(BlockedSearch()(transition().double(), frames.double(), actions.double()), together)


def test_what_the_frame_before_says_of_walls_counts() -> None:
    frames, actions, blocked = walks(4, 60, looks=6)
    sure = transition()
    with torch.no_grad():
        sure.walls.logits.bias.fill_(-8.0)  # no frame shows a wall
    found = BlockedSearch()(sure, frames, actions)
    assert int(found.sum()) < int(blocked.sum())
    assert torch.equal(BlockedSearch(trust=0.0)(sure, frames, actions), BlockedSearch()(transition(), frames, actions))
    rare = BlockedSearch(look_alike=1e-4)(sure, frames, actions)
    assert int(rare.sum()) > int(found.sum())


def test_short_episodes_and_agents_that_only_turn_or_stand_still() -> None:
    search = BlockedSearch()
    for time in (1, 2):
        found = search(transition(), torch.rand(2, time, 1, 8, 8), torch.eye(3)[torch.full((2, time), 2)])
        assert found.shape == (2, time) and not found[:, 0].any()
    still = torch.rand(1, 1, 1, 8, 8).expand(1, 9, 1, 8, 8)
    assert not search(transition(), still, torch.eye(3)[torch.zeros(1, 9, dtype=torch.long)]).any()
    pushing = search(transition(), still, torch.eye(3)[torch.full((1, 9), 2)])
    assert pushing[:, 1:].all()


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="look_alike"):
        BlockedSearch(look_alike=1.0)
    with pytest.raises(ConfigError, match="num_hypotheses"):
        BlockedSearch(num_hypotheses=0)
