"""Whether what is inferred of an episode depends on the episodes beside it."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.checks import latent_sites, sample_sites
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import ConformanceError, NotApplicable, conformance_check, copied, traces

_TOLERANCE = 1e-5


@conformance_check
def check_batches(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Alone, and in another order, every episode has the log probabilities that it has in the batch, to 1e-5.

    At the values that the guide drew for the batch, in float64 where both are modules.

    :raises NotApplicable: one episode, plates that are subsampled, or a guide of one batch only.
    """
    if episodes.batch_size < 2:
        raise NotApplicable("expected at least two episodes, got one")
    if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
        model, guide = (program.double() for program in copied(model, guide))
        episodes = episodes.to(torch.float64)
    whole = dict(zip(("model", "guide"), traces(model, guide, episodes, reading), strict=True))
    for trace in whole.values():
        for name, entry in trace.nodes.items():
            plate: Any = entry.get("fn")
            if site_is_subsample(entry) and (plate.subsample_size or plate.size) < plate.size:
                raise NotApplicable(f"the plate {name!r} is subsampled")
    last = episodes.batch_size - 1
    for rows in (*([b] for b in range(episodes.batch_size)), list(range(last, -1, -1))):
        part = episodes[torch.tensor(rows, device=episodes.device)]
        for name, program in (("guide", guide), ("model", model)):
            values = {
                key: _of(rows, node["value"], node, episodes.batch_size, node["fn"].event_dim)
                for key, node in latent_sites(whole["guide"]).items()
            }
            try:
                drawn = poutine.trace(poutine.condition(program, data=values)).get_trace(part, reading)
            except ConfigError as reason:
                raise NotApplicable(str(reason)) from None
            drawn.compute_log_prob()
            got = sample_sites(drawn)
            for key, node in sample_sites(whole[name]).items():
                expected = _of(rows, node["log_prob"], node, episodes.batch_size, 0)
                _compare(f"log probability of site {key!r} of the {name}", rows, got[key]["log_prob"], expected)


def _of(rows: list[int], values: Tensor, node: dict[str, Any], batch_size: int, event_dim: int) -> Tensor:
    """The part of a site's values that belongs to these episodes; all of them for a site outside their plate."""
    frames = [f for f in node["cond_indep_stack"] if f.size == batch_size and f.dim is not None]
    frames = [f for f in frames if f.name == "episodes"] or frames[:1]
    if not frames or values.dim() < event_dim - frames[0].dim:
        return values
    return values.index_select(frames[0].dim - event_dim, torch.tensor(rows, device=values.device))


def _compare(what: str, rows: list[int], got: Tensor, expected: Tensor) -> None:
    gap = (got - expected).abs() / expected.abs().clamp_min(1.0)
    if not bool((gap <= _TOLERANCE).all()):
        how = f"episode {rows[0]} alone" if len(rows) == 1 else "episodes in another order"
        worst = int(gap.flatten().nan_to_num(torch.inf).argmax())
        raise ConformanceError(
            f"{what}: expected {float(expected.flatten()[worst]):g} for {how} as in the batch, "
            f"got {float(got.flatten()[worst]):g}"
        )
