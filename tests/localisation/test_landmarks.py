"""Frames that look alike: each is encoded once, and the nearest earlier one is found, against brute force."""

import torch
from torch import Tensor

from gtm_pyro.localisation.landmarks import Sights, distinct_frames, look, resembling_entries, resembling_steps
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.networks.frames import FrameEncoder


def revisits(batch: int = 3, steps: int = 40, places: int = 12) -> tuple[Tensor, Tensor]:
    """Frames ``(batch, steps, 3, 8, 8)`` of places, and the places, ``(batch, steps)``; some places look alike."""
    torch.manual_seed(0)
    world = torch.rand(places, 3, 8, 8)
    world[1] = world[0] + 1e-6  # not the same, though nearly
    place = torch.randint(places, (batch, steps))
    return world[place], place


def test_distinct_frames_are_numbered_in_the_order_of_sight() -> None:
    frames, place = revisits()
    number = distinct_frames(frames)
    for b in range(len(frames)):
        seen: list[int] = []
        for t in range(frames.shape[1]):
            if int(place[b, t]) not in seen:
                seen.append(int(place[b, t]))
            assert int(number[b, t]) == seen.index(int(place[b, t]))


def test_frames_that_are_not_numbers_are_all_distinct() -> None:
    frames, _ = revisits(steps=4)
    frames[0, 0] = torch.nan
    assert torch.equal(distinct_frames(frames)[0], torch.arange(4))


def test_a_look_equals_the_encoding_of_every_frame_and_encodes_each_once() -> None:
    frames, place = revisits()
    encoder, encoded = FrameEncoder(), []

    def statistics(given: Tensor) -> dict[str, Tensor]:
        encoded.append(len(given))
        return encoder.statistics(given)

    loc, scale = look(statistics, frames).each
    full = encoder.statistics(frames)
    assert torch.allclose(loc, full["loc"], atol=1e-6) and torch.allclose(scale, full["scale"], atol=1e-6)
    assert encoded == [sum(len(one.unique()) for one in place)]
    assert not loc.requires_grad


def test_resembling_steps_equal_those_of_frames_encoded_one_by_one() -> None:
    frames, _ = revisits()
    encoder = FrameEncoder()
    sights = look(encoder.statistics, frames)
    found = resembling_steps(sights)
    each = resembling_steps(Sights(*sights.each, torch.arange(frames.shape[1]).expand(len(frames), -1)))
    assert torch.allclose(found.log_weight[:, 1:], each.log_weight[:, 1:], atol=1e-2)
    assert found.index is not None and each.index is not None
    loc, _ = sights.each
    squared = (loc.unsqueeze(2) - loc.unsqueeze(1)).square().sum(-1)
    for b in range(len(frames)):
        for t in range(1, frames.shape[1]):
            nearest = squared[b, t, :t].min()
            for one in (found, each):
                assert one.index is not None and int(one.index[b, t]) < t
                assert float(squared[b, t, one.index[b, t, 0]] - nearest) < 1e-4
    assert bool((found.log_weight[:, 0] == -torch.inf).all())


def test_resembling_entries_are_the_entries_of_the_same_frames() -> None:
    frames, place = revisits()
    encoder = FrameEncoder()
    with torch.no_grad():
        values = encoder.statistics(frames)
    keys = torch.stack([place.float(), place.float() ** 2], -1)
    found = resembling_entries(look(encoder.statistics, frames), SpatialMemory().write(keys, values), num_neighbors=1)
    assert found.position is not None
    same = (found.position[:, :, 0] == keys).all(-1) | (place < 2)  # 0 and 1 look alike
    assert bool(same.all())
