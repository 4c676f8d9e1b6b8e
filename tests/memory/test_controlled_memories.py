"""The memories of a controller: what all have in common, and the known answers of each."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.memory import (
    DifferentiableNeuralComputer,
    Introspection,
    LeastRecentlyUsed,
    NeuralTuringMachine,
    StoredLatents,
)
from gtm_pyro.memory.addressing import (
    least_used,
    linked,
)
from gtm_pyro.memory.controlled import ControlledMemory
from gtm_pyro.memory.differentiable_computer import LinkedSlots
from gtm_pyro.memory.least_recently_used import UsedSlots

MEMORIES = [Introspection, StoredLatents, NeuralTuringMachine, LeastRecentlyUsed, DifferentiableNeuralComputer]
LATENT, HIDDEN, SLOTS, HEADS = 3, 4, 6, 2


def small(kind: type[ControlledMemory]) -> ControlledMemory:
    torch.manual_seed(0)
    return kind(LATENT, HIDDEN, num_slots=SLOTS, num_heads=HEADS).double()  # type: ignore[call-arg]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def steps(memory: ControlledMemory, z: Tensor, h: Tensor) -> Iterator[tuple[Tensor, Any]]:
    """What is read at each step of ``(*batch, time, ...)``, and the state after it."""
    state = memory.initial(z.shape[:-2], z)
    for latent, hidden in zip(z.unbind(-2), h.unbind(-2), strict=True):
        read, state = memory.read(state, hidden)
        state = memory.write(state, latent, hidden)
        yield read, state


def last(memory: ControlledMemory, z: Tensor, h: Tensor) -> tuple[Tensor, Any]:
    return list(steps(memory, z, h))[-1]


@pytest.mark.parametrize("kind", MEMORIES)
class TestEveryMemory:
    def test_nothing_was_written_nothing_is_read(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        read, _ = memory.read(memory.initial((5,), draw(1)), draw(5, HIDDEN))
        assert read.shape == (5, HEADS, LATENT) and not read.any()

    @pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
    def test_shapes_stay_as_they_begin(self, kind: type[ControlledMemory], batch: tuple[int, ...]) -> None:
        memory = small(kind)
        first = memory.initial(batch, draw(1))
        read, state = last(memory, draw(*batch, 9, LATENT), draw(*batch, 9, HIDDEN, seed=1))
        assert read.shape == (*batch, HEADS, LATENT)
        assert type(state) is type(first)
        for name, tensor in state._asdict().items():
            assert tensor.shape == getattr(first, name).shape, name
            assert tensor.dtype == torch.float64 and tensor.shape[: len(batch)] == batch

    def test_alone_as_in_any_batch(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        z, h = draw(2, 3, 8, LATENT), draw(2, 3, 8, HIDDEN, seed=1)
        together, state = last(memory, z, h)
        alone, own = last(memory, z[1, 2], h[1, 2])
        torch.testing.assert_close(together[1, 2], alone)
        for name, tensor in own._asdict().items():
            torch.testing.assert_close(getattr(state, name)[1, 2], tensor)

    def test_a_state_is_a_value(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        z, h = draw(4, LATENT), draw(4, HIDDEN, seed=1)
        state = memory.write(memory.initial((4,), z), z, h)
        before = [tensor.clone() for tensor in state]
        read, after = memory.read(state, h)
        memory.write(after, 2 * z, h)
        assert all(torch.equal(old, new) for old, new in zip(before, state, strict=True))
        assert torch.equal(memory.read(state, h)[0], read)

    def test_what_was_written_is_read(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        h = draw(5, HIDDEN, seed=1)
        reads = [
            last(memory, torch.stack([z, z], -2), torch.stack([h, h], -2))[0]
            for z in (draw(5, LATENT), -draw(5, LATENT))
        ]
        assert bool((reads[0] != reads[1]).any(-1).all())

    def test_gradients_are_those_of_finite_differences(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        names = [name for name, _ in memory.named_parameters()]

        def reads(z: Tensor, h: Tensor, *parameters: Tensor) -> Tensor:
            given = dict(zip(names, parameters, strict=True))

            class Run(torch.nn.Module):
                def __init__(self) -> None:
                    super().__init__()
                    self.memory = memory

                def forward(self) -> Tensor:
                    return torch.stack([read for read, _ in steps(self.memory, z, h)])

            return torch.func.functional_call(Run(), {f"memory.{k}": v for k, v in given.items()}, ())

        z, h = draw(2, 4, LATENT).requires_grad_(), draw(2, 4, HIDDEN, seed=1).requires_grad_()
        parameters = [p.detach().clone().requires_grad_() for p in memory.parameters()]
        assert torch.autograd.gradcheck(reads, (z, h, *parameters), fast_mode=True)

    def test_every_parameter_has_a_gradient(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        read, _ = last(memory, draw(2, 9, LATENT), draw(2, 9, HIDDEN, seed=1))
        read.square().sum().backward()
        for name, parameter in memory.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.any()), name

    @torch.no_grad()
    def test_stays_finite_over_ten_thousand_steps(self, kind: type[ControlledMemory]) -> None:
        """2,500 of four episodes, whose inputs are nothing, small, usual and large, in float32."""
        memory = small(kind).float()
        torch.manual_seed(0)
        scale = torch.tensor([0.0, 1e-4, 1.0, 30.0]).unsqueeze(-1)
        state = memory.initial((4,), scale)
        for z, h in zip(torch.randn(2500, 1, LATENT), torch.randn(2500, 1, HIDDEN), strict=True):
            read, state = memory.read(state, scale * h)
            state = memory.write(state, scale * z, scale * h)
        assert all(bool(tensor.isfinite().all()) for tensor in (read, *state))

    def test_wrong_sizes_are_named(self, kind: type[ControlledMemory]) -> None:
        memory = small(kind)
        state = memory.initial((2,), draw(1))
        with pytest.raises(ConfigError, match=r"h: expected \(..., 4\), got \(2, 5\)"):
            memory.read(state, draw(2, 5))
        with pytest.raises(ConfigError, match=r"z: expected \(..., 3\), got \(2, 5\)"):
            memory.write(state, draw(2, 5), draw(2, HIDDEN))
        with pytest.raises(ConfigError, match="num_heads: expected a whole number of at least 1, got 0"):
            kind(LATENT, HIDDEN, num_slots=SLOTS, num_heads=0)  # type: ignore[call-arg]


def test_weights_of_every_read_sum_to_one() -> None:
    z, h = draw(3, 9, LATENT), draw(3, 9, HIDDEN, seed=1)
    found = {
        "Introspection": small(Introspection).weights(h[:, -1]),  # type: ignore[operator]
        "StoredLatents": (store := small(StoredLatents)).weights(last(store, z, h)[1], h[:, -1]),  # type: ignore[operator]
    }
    found |= {kind.__name__: last(small(kind), z, h)[1].read for kind in (NeuralTuringMachine, LeastRecentlyUsed)}
    for name, weights in found.items():
        assert bool((weights >= 0).all()), name
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, HEADS, dtype=torch.float64))
    sums = last(small(DifferentiableNeuralComputer), z, h)[1].read.sum(-1)
    assert bool((sums > 0).all() and (sums <= 1 + 1e-9).all())


def test_links_are_followed_forwards_and_backwards() -> None:
    """Slots are written in the order 2, 0, 3."""
    link, precedence = torch.zeros(4, 4), torch.zeros(4)
    for slot in (2, 0, 3):
        link, precedence = linked(link, precedence, torch.eye(4)[slot])
    expected = torch.zeros(4, 4)
    expected[0, 2] = expected[3, 0] = 1
    assert torch.equal(link, expected) and torch.equal(precedence, torch.eye(4)[3])
    memory = DifferentiableNeuralComputer(2, 3, num_slots=4, num_heads=3)
    with torch.no_grad():
        memory.read_heads.weight.zero_()
        bias = memory.read_heads.bias.zero_().view(3, -1)
        for head, mode in enumerate((0, 1, 2)):  # backwards, content, forwards
            bias[head, 3 + mode] = 50.0
        bias[1, :3] = torch.tensor([0.0, 1.0, 50.0])
    slots = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    state = LinkedSlots(slots, torch.ones(4), link, precedence, torch.eye(4)[[0, 0, 0]], torch.eye(4)[3])
    read, after = memory.read(state, torch.zeros(3))
    torch.testing.assert_close(after.read, torch.eye(4)[[2, 1, 3]])
    torch.testing.assert_close(read, slots[[2, 1, 3]])


def test_what_is_read_under_an_open_gate_is_free_again() -> None:
    memory = DifferentiableNeuralComputer(2, 3, num_slots=3, num_heads=1)
    state = memory.initial((), torch.zeros(1))._replace(
        usage=torch.tensor([0.5, 1.0, 0.0]),
        write=torch.tensor([0.0, 0.0, 0.5]),
        read=torch.tensor([[0.0, 1.0, 0.0]]),
    )
    torch.testing.assert_close(memory._used(state, torch.tensor([1.0])), torch.tensor([0.5, 0.0, 0.5]))
    torch.testing.assert_close(memory._used(state, torch.tensor([0.0])), torch.tensor([0.5, 1.0, 0.5]))
    torch.testing.assert_close(memory._used(state, torch.tensor([0.25])), torch.tensor([0.5, 0.75, 0.5]))


@pytest.mark.parametrize("kind", [Introspection, StoredLatents])
def test_latents_go_out_in_the_order_in_which_they_came(kind: type[ControlledMemory]) -> None:
    memory, z = small(kind), draw(8, LATENT)
    states = [state for _, state in steps(memory, z, draw(8, HIDDEN))]
    assert torch.equal(states[2].latents, torch.cat([z[:3].flip(0), torch.zeros(3, LATENT)]))
    assert torch.equal(states[7].latents, z[2:].flip(0))  # the first two are gone


def test_introspection_reads_the_place_that_its_weights_name() -> None:
    memory, z = small(Introspection), draw(SLOTS, LATENT)
    with torch.no_grad():
        memory.attention[-1].weight.zero_()
        memory.attention[-1].bias.copy_(torch.cat([1e6 * torch.eye(SLOTS)[4], 1e6 * torch.eye(SLOTS)[0]]) - 1e3)
        memory.gates.weight.zero_()
        memory.gates.bias.copy_(torch.tensor([100.0, 0.0, -100.0] * 2))
    _, state = last(memory, z, draw(SLOTS, HIDDEN))
    read, _ = memory.read(state, draw(HIDDEN))
    gates = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(read, z[[1, 5]] * gates)  # four steps before the last write, and the last one


def test_stored_latents_are_found_by_the_keys_they_were_written_under() -> None:
    """Keys are h_t, and so is the query: what is read is what was written under the same h."""
    memory = StoredLatents(LATENT, HIDDEN, num_slots=SLOTS, num_heads=1, key_dim=HIDDEN).double()
    with torch.no_grad():
        memory.key.weight.copy_(torch.cat([torch.zeros(HIDDEN, LATENT), torch.eye(HIDDEN)], 1))
        memory.query.weight.copy_(torch.cat([torch.eye(HIDDEN), torch.zeros(2, HIDDEN)]))
        memory.key.bias.zero_()
        memory.query.bias.copy_(torch.tensor([0.0] * HIDDEN + [1e3, -1e3]))  # sharp, and by content alone
        memory.gates.weight.zero_()
        memory.gates.bias.fill_(100.0)
    z, h = draw(HIDDEN, LATENT), torch.eye(HIDDEN, dtype=torch.float64)
    _, state = last(memory, z, h)
    for step in range(HIDDEN):
        torch.testing.assert_close(memory.read(state, h[step])[0], z[step : step + 1])


def test_the_least_recently_used_slot_is_overwritten() -> None:
    assert torch.equal(least_used(torch.tensor([3.0, 1.0, 2.0, 1.0]), 3).argmax(-1), torch.tensor([1, 3, 2]))
    memory = LeastRecentlyUsed(2, 3, num_slots=3, num_heads=1)
    with torch.no_grad():
        memory.written.weight.zero_()
        memory.written.bias.copy_(torch.tensor([7.0, 8.0, -100.0]))  # alpha: over the least used one
    slots = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    state = UsedSlots(slots, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.5, 0.2, 0.4]))
    after = memory.write(state, torch.zeros(2), torch.zeros(3))
    torch.testing.assert_close(after.slots, torch.tensor([[1.0, 1.0], [7.0, 8.0], [3.0, 3.0]]))
    torch.testing.assert_close(after.usage, torch.tensor([0.475 + 1, 0.19 + 1, 0.38]))
    assert int(least_used(after.usage, 1).argmax()) == 2
    with torch.no_grad():
        memory.written.bias[2] = 100.0  # where it read
    added = memory.write(state, torch.zeros(2), torch.zeros(3)).slots
    torch.testing.assert_close(added, torch.tensor([[8.0, 9.0], [0.0, 0.0], [3.0, 3.0]]))


def test_the_machine_moves_on_along_its_tape() -> None:
    """With closed gates, a shift by 1 and no erasing, writes lie side by side."""
    memory = NeuralTuringMachine(2, 3, num_slots=4, num_heads=1)
    with torch.no_grad():
        for part in (memory.read_heads, memory.write_head, memory.erase_and_add):
            part.weight.zero_()
            part.bias.zero_()
        for part in (memory.read_heads, memory.write_head):
            part.bias[3:7] = torch.tensor([-1e3, -1e3, -1e3, 1e3])  # g, and the shifts
        memory.erase_and_add.bias[:2] = -1e3
        memory.erase_and_add.weight[2:, :2] = torch.eye(2)
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    _, state = last(memory, z, torch.zeros(2, 3))
    torch.testing.assert_close(
        state.slots, torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]), atol=1e-4, rtol=0
    )
    read, _ = memory.read(state._replace(read=torch.eye(4)[:1]), torch.zeros(3))
    torch.testing.assert_close(read, z[:1], atol=1e-4, rtol=0)


def test_what_is_written_begins_as_the_latent() -> None:
    """One more in a latent is one more in what is written."""
    z, more = torch.zeros(LATENT, LATENT + HIDDEN).double(), torch.eye(LATENT, LATENT + HIDDEN).double()
    machine, computer, used = small(NeuralTuringMachine), small(DifferentiableNeuralComputer), small(LeastRecentlyUsed)

    def written(seen: Tensor) -> list[Tensor]:
        heads = used.written(seen).unflatten(-1, (HEADS, -1))[..., :LATENT].unbind(1)
        return [machine.erase_and_add(seen)[:, LATENT:], computer.write_head(seen)[:, 2 * LATENT : 3 * LATENT], *heads]

    for before, after in zip(written(z), written(more), strict=True):
        torch.testing.assert_close(after - before, torch.eye(LATENT).double())


def test_as_many_slots_as_heads_that_write() -> None:
    with pytest.raises(ConfigError, match="num_slots: expected at least the 5 heads that write, got 4"):
        LeastRecentlyUsed(num_slots=4)
    with pytest.raises(ConfigError, match="decay: expected from 0 to 1, got 1.5"):
        LeastRecentlyUsed(decay=1.5)
