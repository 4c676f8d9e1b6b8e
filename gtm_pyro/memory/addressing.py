"""How places of a memory are weighed: by content, by position, by use, by the order of writing.

Weights ``(..., heads, slots)`` are at least 0 and sum to 1 over the slots, but for those that say otherwise.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-6


def softplus_weights(scores: Tensor) -> Tensor:
    """k(h) / sum k(h), k the softplus of the scores: Gemici et al. 2017, section 3.1."""
    k = F.softplus(scores) + _TINY  # where all scores are very low no place is preferred
    return k / k.sum(-1, keepdim=True)


def cosine(keys: Tensor, slots: Tensor) -> Tensor:
    """The cosine of each key ``(..., heads, W)`` with each slot ``(..., slots, W)``: ``(..., heads, slots)``.

    Of an empty slot it is 0.
    """

    def unit(x: Tensor) -> Tensor:
        return x / (x.square().sum(-1, keepdim=True) + _TINY**2).sqrt()

    return unit(keys) @ unit(slots).mT


def content_weights(keys: Tensor, strength: Tensor, slots: Tensor, written: Tensor | None = None) -> Tensor:
    """softmax(beta cos(k, M[i])): eqs. (14) and (15), Gemici et al. 2017; eq. (5), Graves et al. 2014.

    :param keys: ``(..., heads, W)``.
    :param strength: beta, ``(..., heads)``.
    :param slots: M, ``(..., slots, W)``.
    :param written: ``(..., slots)``, 1 for a slot that may be read and 0 for one that may not; where none may, weights
        are equal. None: all may.
    """
    scores = strength.unsqueeze(-1) * cosine(keys, slots)
    if written is not None:
        scores = scores.masked_fill(written.unsqueeze(-2) == 0, -1e9)
    return scores.softmax(-1)


def strength(raw: Tensor) -> Tensor:
    """beta = 1 + softplus: "oneplus" of Graves et al. 2016."""
    return 1 + F.softplus(raw)


def shifted(weights: Tensor, shift: Tensor) -> Tensor:
    """A circular convolution with what is moved by -1, 0 and 1 slots: eq. (8), Graves et al. 2014.

    :param shift: ``(..., heads, 3)``, sums to 1.
    """
    moved = torch.stack([weights.roll(-1, -1), weights, weights.roll(1, -1)], -1)
    return (moved * shift.unsqueeze(-2)).sum(-1)


def sharpened(weights: Tensor, power: Tensor) -> Tensor:
    """w^gamma / sum w^gamma: eq. (9), Graves et al. 2014.

    :param power: gamma, at least 1, ``(..., heads)``.
    """
    # divided by the largest, so that no power of all of them underflows
    raised = ((weights + _TINY) / (weights + _TINY).amax(-1, keepdim=True)).pow(power.unsqueeze(-1))
    return raised / raised.sum(-1, keepdim=True)


def allocation(usage: Tensor) -> Tensor:
    """Weights of the free slots, the least used one first: eq. (1) of the methods, Graves et al. 2016.

    a[i] = (1 - u[i]) prod u[j] over all slots j that are less used; they sum to 1 - prod u.

    :param usage: u, ``(..., slots)``, from 0 to 1.
    """
    usage = _TINY + (1 - _TINY) * usage  # a product with zeros has no gradient
    sorted_usage, order = usage.sort(dim=-1, stable=True)
    before = torch.cat([torch.ones_like(sorted_usage[..., :1]), sorted_usage[..., :-1].cumprod(-1)], -1)
    return torch.zeros_like(usage).scatter(-1, order, (1 - sorted_usage) * before)


def linked(link: Tensor, precedence: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """Which slot was written after which, L[i, j] for i after j, and the weights of the last write.

    Graves et al. 2016, methods: L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j], L[i, i] = 0, and
    p = (1 - sum w) p + w.

    :param link: L, ``(..., slots, slots)``.
    :param precedence: p, ``(..., slots)``.
    :param written: w, the write weights, which sum to at most 1, ``(..., slots)``.
    """
    to, since = written.unsqueeze(-1), written.unsqueeze(-2)
    link = (1 - to - since) * link + to * precedence.unsqueeze(-2)
    link = link * (1 - torch.eye(link.shape[-1], dtype=link.dtype, device=link.device))
    return link, (1 - written.sum(-1, keepdim=True)) * precedence + written


def least_used(usage: Tensor, count: int) -> Tensor:
    """One-hot rows ``(..., count, slots)``, the r-th of the slot that is r-th least used: Santoro et al. 2016, eq. (6).

    Of slots that are used alike, those of lower number come first. It has no gradient.
    """
    order = usage.detach().argsort(dim=-1, stable=True)[..., :count]
    return F.one_hot(order, usage.shape[-1]).to(usage)
