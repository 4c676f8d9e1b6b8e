"""How places of a memory are weighed: answers worked by hand."""

import math

import torch

from gtm_pyro.memory.addressing import (
    allocation,
    content_weights,
    cosine,
    linked,
    sharpened,
    shifted,
    softplus_weights,
)


def test_softplus_attention_is_positive_and_sums_to_one() -> None:
    weights = softplus_weights(torch.tensor([[-1e4, -1e4, -1e4], [0.0, 0.0, 0.0], [1e4, 0.0, -1e4], [2.0, 1.0, 0.0]]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(4))
    assert bool((weights > 0).all())
    k = [math.log1p(math.exp(x)) for x in (2, 1, 0)]
    torch.testing.assert_close(weights[3], torch.tensor(k) / sum(k), atol=1e-6, rtol=0)


def test_content_is_compared_by_angles() -> None:
    slots = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [-3.0, 0.0]])
    torch.testing.assert_close(cosine(torch.tensor([[5.0, 0.0]]), slots), torch.tensor([[1.0, 0.0, 0.0, -1.0]]))
    weights = content_weights(torch.tensor([[5.0, 0.0]]), torch.tensor([math.log(2)]), slots)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 1.0, 1.0, 0.5]]) / 4.5)
    masked = content_weights(
        torch.tensor([[5.0, 0.0]]), torch.tensor([math.log(2)]), slots, torch.tensor([1.0, 1.0, 0.0, 0.0])
    )
    torch.testing.assert_close(masked, torch.tensor([[2.0, 1.0, 0.0, 0.0]]) / 3)


def test_a_shift_goes_round() -> None:
    weights = torch.tensor([[0.0, 0.0, 1.0]])
    ways = {0: [0.0, 1.0, 0.0], 1: [0.0, 0.0, 1.0], 2: [1.0, 0.0, 0.0]}  # back, stay, on
    for way, expected in ways.items():
        torch.testing.assert_close(shifted(weights, torch.eye(3)[way].unsqueeze(0)), torch.tensor([expected]))
    torch.testing.assert_close(shifted(weights, torch.tensor([[0.5, 0.3, 0.2]])), torch.tensor([[0.2, 0.5, 0.3]]))


def test_sharpening_takes_powers() -> None:
    found = sharpened(torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor([2.0]))
    torch.testing.assert_close(found, torch.tensor([[4.0, 9.0, 25.0]]) / 38, atol=1e-5, rtol=0)
    far = sharpened(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([1e4]))
    torch.testing.assert_close(far, torch.tensor([[0.0, 0.0, 1.0]]))


def test_an_allocation_worked_by_hand() -> None:
    """In the order of use: slot 2 (0.1), 0 (0.5), 1 (0.8): 0.9; 0.1 * 0.5; 0.1 * 0.5 * 0.2."""
    found = allocation(torch.tensor([0.5, 0.8, 0.1], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([0.05, 0.01, 0.9], dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(allocation(torch.ones(4)).abs().max()) == 0  # nothing is free
    torch.testing.assert_close(allocation(torch.zeros(3)), torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_partial_writes_keep_part_of_a_link() -> None:
    """w = (0.5, 0, 0), then (0, 0.4, 0): L[1, 0] = 0.4 * 0.5; then (0.25, 0, 0): L[1, 0] shrinks by 1 - 0.25."""
    link, precedence = torch.zeros(3, 3), torch.zeros(3)
    for weights in ([0.5, 0.0, 0.0], [0.0, 0.4, 0.0]):
        link, precedence = linked(link, precedence, torch.tensor(weights))
    torch.testing.assert_close(link[1, 0], torch.tensor(0.2))
    torch.testing.assert_close(precedence, torch.tensor([0.3, 0.4, 0.0]))
    link, _ = linked(link, precedence, torch.tensor([0.25, 0.0, 0.0]))
    torch.testing.assert_close(link[1, 0], torch.tensor(0.15))
    torch.testing.assert_close(link[0, 1], torch.tensor(0.1))
    assert not link.diagonal().any()
