"""GTM-SM for agents with a heading: parts that fit, known statistics in memory."""

import math
from collections.abc import Iterator
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.nn import functional as F

from gtm_pyro.diagnostics.densities import draw_paths
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.memory import DeferredValues, SpatialMemory, StoredValues
from gtm_pyro.memory.keys import HeadingKeys
from gtm_pyro.models import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.priors import QueryPrior
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import MomentumTranslation, RotatingTranslation, Transition, Translation

BATCH, TAU, TOTAL, ACTIONS, LATENT = 3, 10, 16, 4, 4


@pytest.fixture(autouse=True)
def empty_param_store() -> Iterator[None]:
    pyro.clear_param_store()
    with pyro.validation_enabled(True):
        yield
    pyro.clear_param_store()


def make(kind: type[RotatingTranslation] = RotatingTranslation, **fields: Any) -> tuple[GTMSM, DeadReckoning]:
    torch.manual_seed(0)
    parts = {
        "memory": SpatialMemory(4),
        "prior": QueryPrior(LATENT, hidden=16),
        "encoder": FrameEncoder(LATENT, channels=(6, 6)),
        "decoder": FrameDecoder(LATENT, channels=(6, 6)),
        "keys": HeadingKeys(0.5),
    }
    model = GTMSM(kind(ACTIONS, scale=0.05), **parts | fields)
    return model, DeadReckoning(model)


def episodes_of(pose_dim: int | None = 3) -> Episodes:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(BATCH, TOTAL, 3, 8, 8, generator=generator)
    actions = torch.eye(ACTIONS)[torch.randint(ACTIONS, (BATCH, TOTAL), generator=generator)]
    poses = None if pose_dim is None else torch.randn(BATCH, TOTAL, pose_dim, generator=generator).cumsum(1)
    names = None if pose_dim is None else ("x", "y", "heading")[:pose_dim]
    return Episodes(frames, actions, TAU, poses, pose_names=names)


def loss_of(model: GTMSM, guide: DeadReckoning, episodes: Episodes, elbo: Any = None) -> Tensor:
    torch.manual_seed(2)
    loss: Tensor = (elbo or Trace_ELBO()).differentiable_loss(model, guide, episodes)
    return loss


@pytest.mark.parametrize("kind", [RotatingTranslation, MomentumTranslation])
@pytest.mark.parametrize("reading", [Reading(), Reading("others", 3), Reading("earlier", 3)], ids=lambda r: r.scored)
def test_agents_with_a_heading_train_and_are_measured(reading: Reading, kind: type[RotatingTranslation]) -> None:
    model, guide = make(kind, reading=reading)
    episodes = episodes_of()
    loss = loss_of(model, guide, episodes)
    loss.backward()
    assert loss.isfinite()
    for name in ("transition.displacement", "keys.matrix", "prior.log_sharpness", "encoder.first.linear.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0, name
    metrics = evaluate(model, guide, episodes, iwae_particles=2).metrics
    for name in ("elbo", "iwae", "mse", "heading_correlation", "heading_rmse", "position_error_last", "copy_mse"):
        assert math.isfinite(metrics[name]), name


def test_distances_in_memory_are_between_keys() -> None:
    model, _ = make()
    s = torch.randn(BATCH, TAU, 3)
    memory = model.remember(s, episodes_of().observed_frames)
    torch.testing.assert_close(memory.keys, model.keys(s))
    around = s + torch.tensor([0.0, 0.0, 2 * math.pi])
    _, read = model.recall(memory, around, 1)
    assert read.index is not None and torch.equal(read.index[..., 0], torch.arange(TAU).expand(BATCH, TAU))
    torch.testing.assert_close(read.values["state"], s.unsqueeze(-2))


def test_parts_of_other_states_are_refused() -> None:
    for parts, message in (
        ({"prior": QueryPrior()}, "prior.state_dim: expected 2 as the transition has it, got 3"),
        ({"keys": HeadingKeys()}, "keys.state_dim: expected 2 as the transition has it, got 3"),
        ({"prior": QueryPrior(32, 2)}, "prior.latent_dim: expected 64 as the encoder has it, got 32"),
    ):
        with pytest.raises(ConfigError, match=message):
            GTMSM(Translation(5), **parts)
    with pytest.raises(ConfigError, match="prior.state_dim: expected 3 as the transition has it, got 2"):
        make(prior=QueryPrior(LATENT, 2))


def test_a_transition_says_what_it_needs_of_the_actions() -> None:
    actions = torch.rand(2, 5, 4)
    assert torch.equal(Transition(4).controls(actions), actions)
    assert RotatingTranslation(4).controls(actions).shape == (2, 5, 3)


def test_known_statistics_are_read_beside_encoded_ones() -> None:
    """Each particle has states of its own, and all share the frames."""
    torch.manual_seed(0)
    frames, state = torch.rand(2, 6, 1, 2, 2), torch.randn(4, 2, 6, 3)
    values = DeferredValues(lambda x: {"loc": x.flatten(1)}, frames, StoredValues({"state": state}, 2))
    index = torch.randint(6, (4, 2, 5, 3))
    found, every = values.gather(index), values.gather(None)
    assert found["loc"].shape == (4, 2, 5, 3, 4) and found["state"].shape == (4, 2, 5, 3, 3)
    for p, b, q, k in torch.cartesian_prod(*[torch.arange(n) for n in (4, 2, 5, 3)]).tolist():
        assert torch.equal(found["state"][p, b, q, k], state[p, b, index[p, b, q, k]])
        assert torch.equal(found["loc"][p, b, q, k], frames[b, index[p, b, q, k]].flatten())
    assert torch.equal(every["state"].squeeze(-3), state)
    both = values.concat(values)
    assert torch.equal(both.gather(index + 6)["state"], found["state"]) and both.num_entries == 12
    with pytest.raises(ValueError, match="the same known statistics"):
        values.concat(DeferredValues(values.encode, frames))


@pytest.mark.parametrize("strides", [(4, 2), (2, 4), (2, 2)])
def test_strides_are_those_of_convolutions(strides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(LATENT, (3, 16, 24), (5, 7), strides)
    decoder = FrameDecoder(LATENT, (3, 16, 24), (7, 5), strides)
    x = torch.rand(2, 3, 16, 24)
    kernels = []
    for layer, inputs in ((encoder.first, 3), (encoder.second, 5)):
        k = layer.stride
        kernels.append(layer.linear.weight.view(-1, k, k, inputs).permute(0, 3, 1, 2))
    h = F.leaky_relu(F.conv2d(2 * x - 1, kernels[0], encoder.first.linear.bias, strides[0]), 0.2)
    h = F.leaky_relu(F.conv2d(h, kernels[1], encoder.second.linear.bias, strides[1]), 0.2)
    loc = encoder.statistics_layer(h.permute(0, 2, 3, 1).flatten(1))[:, :LATENT]
    torch.testing.assert_close(encoder.statistics(x)["loc"], loc, rtol=1e-4, atol=1e-5)
    z = torch.randn(2, LATENT)
    h = F.leaky_relu(decoder.latent_layer(z), 0.2).view(2, *decoder.grid).permute(0, 3, 1, 2)
    for part, outputs, slope in ((decoder.first, 5, 0.2), (decoder.second, 3, 1.0)):
        k = part.stride
        kernel = part.linear.weight.view(k, k, outputs, -1).permute(3, 2, 0, 1)
        bias = part.linear.bias.view(k, k, outputs).permute(2, 0, 1)
        h = F.conv_transpose2d(h, kernel, None, k) + bias.repeat(1, *h.shape[-2:])
        h = F.leaky_relu(h, slope)
    torch.testing.assert_close(decoder(z).mean, h, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="sides divisible by"):
        FrameEncoder(LATENT, (3, 16, 18), (5, 7), (4, 2))
    with pytest.raises(ConfigError, match="strides: expected a number over 0, got 0"):
        FrameDecoder(LATENT, strides=(0, 2))


def test_draws_beyond_the_memory_keep_their_momentum() -> None:
    model, guide = make(MomentumTranslation)
    with torch.no_grad():
        model.transition.log_scale.fill_(math.log(1e-6))
        model.initial_scale.fill_(1e-6)
        model.transition.displacement.fill_(0.3)  # every action pushes, so that the agent glides on at the end of tau
    episodes = episodes_of()
    paths = draw_paths(model, guide, episodes, 3)
    whole = model.path(episodes.actions).sample((3,)).squeeze(-3)
    assert paths.shape == (3, BATCH, TOTAL, 3)
    torch.testing.assert_close(paths, whole, atol=1e-4, rtol=0)
