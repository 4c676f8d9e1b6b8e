"""Walls that a move slides along: known answers, and what swaps them in."""

import math

import pytest
import torch
from torch import Tensor

from gtm_pyro.transitions import SlidingTranslation, Translation


def room(angle: float = 0.0, half: tuple[float, float] = (1.0, 2.0)) -> SlidingTranslation:
    """A rectangle about the origin."""
    transition = SlidingTranslation(2).double()
    rows = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    axes = torch.tensor(rows, dtype=torch.float64)
    with torch.no_grad():
        transition.normals.copy_(3 * torch.cat([axes, -axes]))  # of any length
        transition.offsets.copy_(torch.tensor(half * 2))
        transition.displacement.copy_(axes.mT)  # actions are along the sides
    return transition


def walk(transition: Translation, start: Tensor, actions: Tensor) -> Tensor:
    return transition.rollout(start, actions, torch.zeros(*actions.shape[:-1], 2).double())


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_a_rectangle_cuts_moves_short_along_each_side_by_itself(angle: float) -> None:
    torch.manual_seed(0)
    transition, half = room(angle), torch.tensor([1.0, 2.0]).double()
    actions = torch.randn(5, 40, 2).double()
    turn = transition.displacement.detach()
    expected = [torch.zeros(5, 2).double()]
    for t in range(1, 40):
        expected.append((expected[-1] + actions[:, t]).clamp(-half, half))
    path = walk(transition, expected[0], actions)
    torch.testing.assert_close(path, torch.stack(expected, 1) @ turn.mT, atol=1e-12, rtol=0)
    hit = (path @ turn).abs() > half - 1e-9
    assert hit[..., 0].any() and hit[..., 1].any() and not hit.all(-1).all()


def test_without_walls_it_is_a_translation() -> None:
    torch.manual_seed(0)
    open_room, free = SlidingTranslation(2).double(), Translation(2).double()
    free.load_state_dict(open_room.state_dict(), strict=False)
    actions, start = torch.randn(3, 30, 2).double(), torch.randn(3, 2).double()
    torch.testing.assert_close(walk(open_room, start, actions), walk(free, start, actions), atol=1e-12, rtol=0)


def test_gradients_of_walls_and_moves_equal_finite_differences() -> None:
    torch.manual_seed(1)
    transition = room(0.3)
    actions, start = torch.randn(2, 12, 2).double(), torch.zeros(2, 2).double()

    def path(displacement: Tensor, normals: Tensor, offsets: Tensor) -> Tensor:
        values = {"displacement": displacement, "normals": normals, "offsets": offsets}
        noise = torch.zeros(2, 12, 2).double()
        found: Tensor = torch.func.functional_call(transition, values, (start, actions, noise))
        return found

    transition.forward = transition.rollout  # type: ignore[method-assign, assignment]
    given = [p.detach().clone().requires_grad_() for p in (transition.displacement, transition.normals)]
    given.append(transition.offsets.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(path, given)
    assert all(grad.abs().max() > 0 for grad in torch.autograd.grad(path(*given).square().sum(), given))


def test_a_subclass_with_other_walls_is_stepped_as_it_says() -> None:
    class Disc(SlidingTranslation):
        def slide(self, u: Tensor) -> Tensor:
            return u / u.norm(dim=-1, keepdim=True).clamp_min(1.0)

    torch.manual_seed(0)
    disc = Disc(2).double()
    actions, s = torch.randn(4, 9, 2).double(), torch.randn(4, 2).double()
    torch.nn.init.normal_(disc.displacement)
    step = disc.stepping(actions)
    for t in range(9):
        torch.testing.assert_close(step(s, t), disc.loc(s, actions[:, t]))
