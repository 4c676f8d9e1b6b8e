"""Time of a full SVI step of the default model, of the same by hand in plain PyTorch, and of the two networks alone.

Run: ``python benchmarks/training_step.py [--json FILE]``. The three (and their variants) take turns, so that a noisy
machine slows all alike; each figure is the median over turns. Keys, in seconds:

``svi_step``            episodes, Pyro's ELBO, backward, clipping, Adam: batch 16, 256 + 32 steps, walls, 5 neighbours
``hand_written_step``   the same arithmetic without Pyro: same rollout, search and deferred encodings
``networks``            encoder on all 288 frames and decoder on the 32 predicted ones, forward and backward
``networks_retrieved``  the same, encoder on the predicted and the retrieved frames only: what the step needs
``episodes``            generating the walks, part of both steps
``rollout``             the walled path, forward and backward
"""

import json
import math
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro.infer import Trace_ELBO
from timing import step_parser

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.initialisation import Automatic
from gtm_pyro.memory.neighbors import exact_search
from gtm_pyro.models import GTMSM
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.transitions import WalledTranslation

BATCH, OBSERVED, PREDICTED, CLIP = 16, 256, 32, 100.0


def log_normal(value: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return -0.5 * ((value - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def hand_written_loss(model: GTMSM, episodes: Episodes) -> torch.Tensor:
    """The negative ELBO in nats a predicted frame; p(s | a) and q(s | a) are equal and cancel."""
    batch, time_steps, tau = episodes.batch_size, episodes.num_steps, episodes.num_observed
    device = episodes.device
    noise = model.transition.scale * torch.randn(batch, time_steps, 2, device=device)
    start = model.initial_scale * torch.randn(batch, 2, device=device)
    s = model.transition.rollout(start, episodes.actions, noise)
    keys, queries = s[:, :tau], s[:, tau:]
    with torch.no_grad():
        index = exact_search(keys, queries, 5)
    flat = index + tau * torch.arange(batch, device=device)[:, None, None]
    distance = (queries.unsqueeze(-2) - keys.flatten(0, 1)[flat]).square().sum(-1)
    if device.type == "cpu":
        named, position = flat.unique(return_inverse=True)
        memory = model.encoder.statistics(episodes.observed_frames.flatten(0, 1).index_select(0, named))
    else:
        position, memory = flat, model.encoder.statistics(episodes.observed_frames.flatten(0, 1))
    loc, scale = (memory[name].index_select(0, position.flatten()).view(*flat.shape, -1) for name in ("loc", "scale"))
    q = model.encoder.statistics(episodes.predicted_frames)
    z = q["loc"] + q["scale"] * torch.randn_like(q["loc"])
    log_q = log_normal(z, q["loc"], q["scale"]).sum(-1)
    component = log_normal(z.unsqueeze(-2), loc, scale).sum(-1)
    log_prior = ((-(distance + 1e-4).log()).log_softmax(-1) + component).logsumexp(-1)
    mean = model.decoder(z).base_dist.loc
    log_likelihood = log_normal(episodes.predicted_frames, mean, model.decoder.log_scale.exp()).sum((-3, -2, -1))
    return (log_q - log_prior - log_likelihood).mean()


def main() -> None:
    parser = step_parser(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)  # as fit does after its first step
    data = ImageNavigation()
    model = GTMSM(WalledTranslation(5)).to(arguments.device)
    first = data.sample(64, num_observed=1, num_predicted=127, seed=1, device=arguments.device)
    Automatic()(model, first)
    guide = DeadReckoning(model)
    loss = Trace_ELBO()(model, guide)
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)
    turn = 0

    def draw() -> Episodes:
        return data.sample(BATCH, num_observed=OBSERVED, num_predicted=PREDICTED, seed=turn, device=arguments.device)

    def update(value: torch.Tensor) -> None:
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    def networks(encoded: torch.Tensor, decoded: torch.Tensor) -> None:
        stats = model.encoder.statistics(encoded)
        (model.decoder(decoded).base_dist.loc.sum() + stats["loc"].sum() + stats["scale"].sum()).backward()

    episodes = draw()
    with torch.no_grad():
        path = model.path(episodes.actions).sample().squeeze(1)
        read = model.remember(path[:, :OBSERVED], episodes.observed_frames).read(path[:, OBSERVED:])
    assert read.index is not None
    rows = (read.index + OBSERVED * torch.arange(BATCH, device=read.index.device)[:, None, None]).unique()
    retrieved = episodes.observed_frames.flatten(0, 1)[rows]
    needed = torch.cat([retrieved, episodes.predicted_frames.flatten(0, 1)])
    latents = torch.randn(BATCH * PREDICTED, model.encoder.latent_dim, device=arguments.device)

    def rollout() -> None:
        noise = torch.zeros(BATCH, OBSERVED + PREDICTED, 2, device=arguments.device)
        model.transition.rollout(noise[:, 0], episodes.actions, noise).sum().backward()

    timed: dict[str, Callable[[], object]] = {
        "svi_step": lambda: update(loss(draw()) / (BATCH * PREDICTED)),
        "hand_written_step": lambda: update(hand_written_loss(model, draw())),
        "networks": lambda: networks(episodes.frames.flatten(0, 1), latents),
        "networks_retrieved": lambda: networks(needed, latents),
        "episodes": draw,
        "rollout": rollout,
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(-3, arguments.turns):
        turn = abs(turn)
        for name, call in timed.items():
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            began = time.perf_counter()
            call()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    figures = {name: statistics.median(values[3:]) for name, values in seconds.items()}
    for name, value in figures.items():
        print(f"{name:20s} {1e3 * value:8.2f} ms")
    for name in ("hand_written_step", "networks", "networks_retrieved"):
        print(f"svi_step / {name:20s} {figures['svi_step'] / figures[name]:6.2f}")
    print(f"frames encoded: {len(needed)} of {BATCH * (OBSERVED + PREDICTED)}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({**figures, "frames_encoded": len(needed), "threads": arguments.threads}, file, indent=1)


if __name__ == "__main__":
    main()
