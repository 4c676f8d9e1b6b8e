"""Starting values of agents that turn and move at once: the true ones are known up to their mirror image."""

import math
from collections.abc import Callable

import pytest
import torch
from agent_cases import AHEAD, LEFT, RIGHT, grid_walks, room_walks
from torch import Tensor

from gtm_pyro.initialisation import MemorySearch
from gtm_pyro.initialisation.memory_fit import clearly_better, differences, memory_fit, seen
from gtm_pyro.initialisation.same_map import SAME_MAP, map_difference
from gtm_pyro.initialisation.simpler import about_pivot
from gtm_pyro.memory import HeadingKeys
from gtm_pyro.transitions import RotatingTranslation


@pytest.mark.parametrize(
    ("walks", "steps", "tau", "turn"), [(grid_walks, 90, 60, math.pi / 2), (room_walks, 96, 64, math.pi / 12)]
)
def test_turns_and_moves_are_found_together(
    walks: Callable[..., tuple[Tensor, Tensor]], steps: int, tau: int, turn: float
) -> None:
    """Quarters of a turn, walls and cells that look alike; 15 degrees and short moves in a room whose walls stop."""
    frames, actions = walks(16, steps)
    transition = RotatingTranslation(3)
    found = MemorySearch().start(transition, frames, actions, tau)
    m = transition.displacement.detach()
    assert m[2].abs().tolist() == pytest.approx([turn, turn, 0.0], rel=1e-3, abs=1e-3)
    assert m[2, LEFT] * m[2, RIGHT] < 0
    assert float(m[:2, AHEAD].norm()) > 0.02 and not m[:2, [LEFT, RIGHT]].any(), "turns on the spot"
    assert found.score < 0.6 * found.chance and found.other is not None
    assert found.lead > 1 and found.clear


def test_one_explanation_among_many_is_told_before_training(caplog: pytest.LogCaptureFixture) -> None:
    """Frames that have nothing to do with the actions: no map explains them, and the log says so."""
    actions = grid_walks(6, 24)[1]
    found = MemorySearch().start(RotatingTranslation(3), torch.rand(6, 24, 3, 3, 3), actions, 16)
    assert found.score > 0.6 * found.chance
    assert "the search explains little" in caplog.text


def test_a_blocked_move_moves_nothing() -> None:
    """Along the true path, an agent that is at a place again sees what it saw there; with blocked moves, it is not."""
    frames, actions = grid_walks(16, 60)
    evidence, keys = seen(frames, actions, 40), HeadingKeys()
    assert evidence.moved is not None and 0.05 < 1 - float(evidence.moved[:, 1:].float().mean()) < 0.5
    true = {"displacement": torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [math.pi / 2, -math.pi / 2, 0.0]]])}
    with_walls, without = (
        memory_fit(RotatingTranslation(3), true, actions, differences(frames, 40), keys, moved=moved).mean()
        for moved in (evidence.moved, None)
    )
    assert with_walls < 0.9 * without


def test_the_same_map_is_recognised() -> None:
    """A mirror image, another length and direction of moves, another point of the agent; and not another map."""
    torch.manual_seed(0)
    actions = torch.eye(3)[torch.randint(3, (4, 50))]
    turn, move = torch.tensor([0.4, -0.4, 0.0]), torch.tensor([0j, 0j, 0.7 + 0.1j])
    about = torch.polar(torch.ones(3), turn) - 1

    def candidate(move: Tensor, turn: Tensor) -> Tensor:
        return torch.stack([move.real, move.imag, turn])

    best = candidate(move, turn)
    same = [(move.conj(), -turn), (3j * move, turn), (move + (0.5 - 2j) * about, turn), (move, turn + 2 * math.pi)]
    same += [(move, -turn)]  # of a single move, left and right are no different
    other = [(0 * move, turn), (move, turn.abs()), (move, 1.5 * turn), (move.roll(1), turn)]
    for pairs, expected in ((same, True), (other, False)):
        candidates = {"displacement": torch.stack([candidate(*pair) for pair in pairs])}
        found = map_difference(RotatingTranslation(3), candidates, {"displacement": best}, actions)
        assert ((found < SAME_MAP) == expected).all(), found
    # turns on the spot, and a map without moves is no other one for small moves that are added
    torch.testing.assert_close(about_pivot(candidate(move + (0.5 - 2j) * about, turn)), best)
    still = {"displacement": candidate(0 * move, turn)}
    assert float(map_difference(RotatingTranslation(3), {"displacement": best.unsqueeze(0)}, still, actions)) == 0


def test_what_is_clearly_better() -> None:
    assert clearly_better(torch.tensor([0.1, 0.12, 0.09, 0.11])) and clearly_better(torch.tensor([0.03]))
    assert not clearly_better(torch.tensor([0.5, -0.4, 0.3, -0.2])) and not clearly_better(torch.full((9,), 0.01))
    assert clearly_better(torch.tensor([4.0, 1.0, 0.5, 0.5])), "few episodes, but far better"
