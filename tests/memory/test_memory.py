"""The spatial memory: what a read finds, its gradients, deferred values, its errors."""

import numpy as np
import pytest
import torch
from memory_cases import draw_batch
from torch import Tensor

from gtm_pyro.errors import ConfigError, MemoryReadError
from gtm_pyro.memory import DeferredValues, SpatialMemory, StoredValues, Values
from gtm_pyro.memory.spatial import Retrieved


@pytest.fixture
def batch():
    return draw_batch()


def nearest_entry(read: Retrieved) -> Tensor:
    return read.entry(read.squared_distance.argmin(-1))


def test_read_finds_the_nearest_entries_with_their_distances_and_values(batch):
    keys, queries, stats = batch
    read = SpatialMemory(num_neighbors=4).write(keys, stats).read(queries)
    assert read.index.shape == read.squared_distance.shape == (2, 7, 4)
    assert read.values["loc"].shape == (2, 7, 4, 3)
    for b in range(2):
        for q in range(7):
            distance = np.square(keys[b].numpy() - queries[b, q].numpy()).sum(-1)
            nearest = np.argsort(distance)[:4]
            np.testing.assert_array_equal(read.index[b, q], nearest)
            np.testing.assert_allclose(read.squared_distance[b, q], distance[nearest], rtol=1e-12)
            np.testing.assert_array_equal(read.values["scale"][b, q], stats["scale"][b, nearest])
    assert torch.equal(nearest_entry(read), read.index[..., 0])


def test_reading_all_entries_shares_the_values_between_queries(batch):
    keys, queries, stats = batch
    read = SpatialMemory().write(keys, stats).read(queries, "all")
    assert read.index is None and not read.masked
    assert read.values["loc"].shape == (2, 1, 40, 3)
    torch.testing.assert_close(read.squared_distance, torch.cdist(queries, keys) ** 2)
    assert torch.equal(nearest_entry(read), SpatialMemory(1).write(keys, stats).read(queries).index[..., 0])


@pytest.mark.parametrize("width", [3, "all"])
def test_distances_have_the_right_gradients(batch, width):
    keys, queries, stats = batch

    def distances(keys, queries):
        return SpatialMemory().write(keys, stats).read(queries, width).squared_distance

    assert torch.autograd.gradcheck(distances, (keys.requires_grad_(), queries.requires_grad_()))


def test_leave_one_out_never_reads_the_query_itself(batch):
    keys, _, stats = batch
    others = ~torch.eye(40, dtype=torch.bool)
    memory = SpatialMemory(5, "kdtree").write(keys, stats)
    near, every = memory.read(keys, allowed=others), memory.read(keys, "all", allowed=others)
    assert near.masked and every.masked
    assert (near.index != torch.arange(40)[:, None]).all()
    assert torch.isinf(every.squared_distance).equal(~others.expand(2, -1, -1))
    assert torch.equal(nearest_entry(near), nearest_entry(every))
    torch.testing.assert_close(near.squared_distance, every.squared_distance.sort(-1).values[..., :5])


def test_a_growing_memory_reads_each_earlier_entry_once(batch):
    keys, _, stats = batch
    earlier = torch.ones(40, 40, dtype=torch.bool).tril(-1)
    read = SpatialMemory(5).write(keys.requires_grad_(), stats).read(keys, allowed=earlier.expand(2, 40, 40))
    found = read.squared_distance.isfinite()
    assert torch.equal(found.sum(-1), torch.arange(40).clamp(max=5).expand(2, 40))
    for t in range(40):
        entries = read.index[0, t][found[0, t]].tolist()
        assert len(set(entries)) == len(entries) and all(entry < t for entry in entries)
    assert (nearest_entry(read)[:, 0] == -1).all() and (nearest_entry(read)[:, 1:] >= 0).all()
    (1 / (read.squared_distance + 1)).sum().backward()
    assert keys.grad.isfinite().all()


def test_write_returns_a_new_memory_with_the_entries_appended(batch):
    keys, queries, stats = batch
    for backend in ("torch", "kdtree"):
        empty = SpatialMemory(5, backend)
        first = empty.write(keys[:, :25], {name: stat[:, :25] for name, stat in stats.items()})
        both = first.write(keys[:, 25:], {name: stat[:, 25:] for name, stat in stats.items()})
        assert (empty.num_entries, first.num_entries, both.num_entries) == (0, 25, 40)
        ours, theirs = both.read(queries), SpatialMemory(5).write(keys, stats).read(queries)
        assert torch.equal(ours.index, theirs.index)
        assert torch.equal(ours.values["loc"], theirs.values["loc"])


@pytest.mark.parametrize("backend", ["torch", "kdtree"])
def test_particles_share_one_set_of_values(batch, backend):
    keys, queries, stats = batch
    particles = torch.stack([keys, keys + 1, keys.flip(0)])
    memory = SpatialMemory(5, backend).write(particles, stats)
    read, every = memory.read(queries), memory.read(queries, "all")
    assert read.values["loc"].shape == (3, 2, 7, 5, 3) and every.squared_distance.shape == (3, 2, 7, 40)
    for p in range(3):
        alone = SpatialMemory(5).write(particles[p], stats).read(queries)
        assert torch.equal(read.index[p], alone.index)
        assert torch.equal(read.values["loc"][p], alone.values["loc"])


class Encoder(torch.nn.Module):
    """A linear q(z | x) that counts the frames it encodes."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(12, 4, dtype=torch.float64)
        self.frames = 0

    def forward(self, frames):
        self.frames += len(frames)
        loc, scale = self.linear(frames.flatten(1)).chunk(2, -1)
        return {"loc": loc, "scale": scale.exp()}


def test_deferred_values_encode_what_is_read_and_nothing_else(batch):
    keys, queries, _ = batch
    encoder = Encoder()
    frames = torch.rand(2, 40, 3, 2, 2, dtype=torch.float64)
    deferred, memory = DeferredValues(encoder, frames), SpatialMemory(3)
    assert isinstance(deferred, Values)
    read = memory.write(keys, deferred).read(queries)
    named = {(b, i) for b in range(2) for i in read.index[b].flatten().tolist()}
    assert encoder.frames == len(named) < 40
    read.values["loc"].sum().backward()
    gradient = encoder.linear.weight.grad.clone()

    encoder.linear.weight.grad = None
    stored = memory.write(keys, deferred.encoded()).read(queries)
    stored.values["loc"].sum().backward()
    for name in ("loc", "scale"):
        torch.testing.assert_close(read.values[name], stored.values[name])
    torch.testing.assert_close(gradient, encoder.linear.weight.grad)
    every = memory.write(keys, deferred).read(queries, "all").values
    torch.testing.assert_close(every["loc"], deferred.encoded().stats["loc"].unsqueeze(1))


def test_deferred_values_append(batch):
    keys, queries, _ = batch
    encoder = Encoder()
    frames = torch.rand(2, 40, 3, 2, 2, dtype=torch.float64)
    parts = SpatialMemory().write(keys[:, :9], DeferredValues(encoder, frames[:, :9]))
    parts = parts.write(keys[:, 9:], DeferredValues(encoder, frames[:, 9:]))
    whole = SpatialMemory().write(keys, DeferredValues(encoder, frames))
    torch.testing.assert_close(parts.read(queries).values["loc"], whole.read(queries).values["loc"])
    with pytest.raises(MemoryReadError, match="same encode"):
        parts.write(keys, DeferredValues(Encoder(), frames))
    with pytest.raises(MemoryReadError, match="same encode"):
        parts.write(keys, {"loc": torch.zeros(2, 40, 2)})


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda m: m.read(torch.zeros(2, 7, 2), 41), r"num_neighbors: expected 1 to 40, .* got 41"),
        (lambda m: m.read(torch.zeros(2, 7, 2), 0), "num_neighbors: expected 1 to 40"),
        (lambda m: m.read(torch.zeros(2, 7, 2), "some"), "num_neighbors: expected 1 to 40"),
        (lambda m: m.read(torch.zeros(2, 7, 3)), r"queries: expected \(\*batch, Q, 2\), got \(2, 7, 3\)"),
        (lambda m: m.read(torch.zeros(3, 7, 2)), r"queries: expected a batch that broadcasts .*\(3, 7, 2\)"),
        (lambda m: m.read(torch.zeros(2, 7, 2), allowed=torch.ones(7, 39).bool()), r"allowed: .*\(7, 40\)"),
        (lambda m: m.read(torch.zeros(2, 7, 2), allowed=torch.ones(7, 40)), "allowed: expected booleans"),
        (lambda m: SpatialMemory().read(torch.zeros(2, 7, 2)), "empty memory"),
        (lambda m: m.write(torch.zeros(2, 3, 3), {"loc": torch.zeros(2, 3, 3)}), "key_dim 2"),
        (lambda m: m.write(torch.zeros(3, 3, 2), {"loc": torch.zeros(3, 3, 3)}), "batch"),
        (lambda m: m.write(torch.zeros(2, 3, 2), {"loc": torch.zeros(2, 4, 3)}), "values: expected"),
        (lambda m: m.write(torch.zeros(2, 3, 2), {"mean": torch.zeros(2, 3, 3)}), "loc.*scale.*mean"),
        (lambda m: m.write(torch.zeros(2, 3, 2), {}), "at least one statistic"),
        (lambda m: m.write(torch.zeros(2, 3, 2).long(), {"loc": torch.zeros(2, 3, 3)}), "expected floats"),
        (
            lambda m: m.write(torch.zeros(2, 3, 2), StoredValues({"loc": torch.zeros(2, 4)})),
            "3 entries.*got 4",
        ),
        (
            lambda m: SpatialMemory(5, "kdtree").write(torch.full((9, 2), torch.nan), {"z": torch.zeros(9)}),
            "keys: expected finite values",
        ),
    ],
)
def test_what_does_not_fit_is_named(batch, read, message):
    keys, _, stats = batch
    with pytest.raises(MemoryReadError, match=message):
        read(SpatialMemory().write(keys, stats))


@pytest.mark.parametrize("arguments", [{"backend": "octree"}, {"num_neighbors": 0}, {"num_neighbors": "most"}])
def test_settings_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        SpatialMemory(**arguments)
