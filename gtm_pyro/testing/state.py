"""Whether a run leaves something behind: for the next call, the next particle, a copy, a saved file."""

import io
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.checks import latent_sites, sample_sites
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import (
    SEED,
    ConformanceError,
    NotApplicable,
    close,
    conformance_check,
    copied,
    loss_of,
    plate_nesting,
    traces,
)


@conformance_check
def check_repeatable(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """A call depends on nothing but its arguments, the parameters and the random state, and changes neither module.

    Under one seed the loss is the same twice; the guide draws the same before and after a run of the model; the loss of
    some episodes does not depend on others that were seen before.
    """
    _check_forgets(model, guide, episodes, reading)
    first = loss_of(model, guide, episodes, reading)
    before = _snapshot(model, guide)
    second = loss_of(model, guide, episodes, reading)
    if not close(first, second):
        raise ConformanceError(f"expected the same loss under the same seed, got {first:.8g} and {second:.8g}")
    _check_unchanged(before, _snapshot(model, guide))
    draws = []
    for _ in range(2):
        set_seed(SEED, episodes.device)
        drawn = poutine.trace(guide).get_trace(episodes, reading)
        draws.append(latent_sites(drawn))
        poutine.trace(poutine.replay(model, drawn)).get_trace(episodes, reading)
    for name, node in draws[0].items():
        if name not in draws[1] or not torch.equal(node["value"], draws[1][name]["value"]):
            raise ConformanceError(f"site {name!r}: expected the same draw after a run of the model, got another")


def _check_forgets(model: Any, guide: Any, episodes: Episodes, reading: Reading | None) -> None:
    try:
        pair, twin = copied(model, guide), copied(model, guide)
    except NotApplicable:
        return  # a plain function: what it closes over cannot be seen
    keys = _keys(*pair)
    # seen by one of them only, and first
    other = Episodes(episodes.frames.flip(1), episodes.actions.flip(1), episodes.num_observed, validate=False)
    loss_of(*pair, other, reading)
    if _keys(*pair) != keys:
        return  # parameters are made on a first call, and from its data
    after, fresh = loss_of(*pair, episodes, reading), loss_of(*twin, episodes, reading)
    if not close(after, fresh):
        raise ConformanceError(
            f"expected a loss apart from episodes seen before, got {fresh:.8g} and, after others, {after:.8g}"
        )


def _keys(model: nn.Module, guide: nn.Module) -> list[str]:
    return [*model.state_dict(), *guide.state_dict()]


@conformance_check
def check_particles(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """The loss of three particles is the mean of three losses of copies that have run no other."""
    loss_of(model, guide, episodes, reading)
    pairs = [copied(model, guide) for _ in range(3)]
    together = loss_of(model, guide, episodes, reading, particles=3)
    set_seed(SEED, episodes.device)
    alone = [loss_of(*pair, episodes, reading, seed=None) for pair in pairs]
    if not close(together, sum(alone) / 3):
        raise ConformanceError(
            f"expected the mean loss {sum(alone) / 3:.8g} of particles run alone, got {together:.8g}"
        )


@conformance_check
def check_vectorized_particles(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """In one more batch dimension on the left, particles are drawn apart and scored as each is alone. In float64.

    This is what ``vectorize_particles=True`` asks for.
    """
    model, guide = (program.double() for program in copied(model, guide))
    episodes = episodes.to(torch.float64)
    _, single = traces(model, guide, episodes, reading)
    scored_alone, _ = traces(model, guide, episodes, reading)
    nesting = max(plate_nesting(single), plate_nesting(scored_alone))
    # as Pyro's losses do it
    particles = pyro.plate("num_particles_vectorized", 3, dim=-nesting - 1)
    set_seed(SEED, episodes.device)
    scored, drawn = get_importance_trace(
        "flat", nesting + 1, particles(model), particles(guide), (episodes, reading), {}
    )
    for name, node in latent_sites(drawn).items():
        alone, event = latent_sites(single)[name]["value"].shape, len(node["fn"].event_shape)
        outside = nesting - (len(alone) - event)  # of a site outside all plates
        shape = (3, *(1,) * outside, *alone)
        if tuple(node["value"].shape) != shape:
            raise ConformanceError(f"site {name!r}: expected three particles {shape}, got {tuple(node['value'].shape)}")
        if node["value"].is_floating_point() and torch.equal(node["value"][0], node["value"][1]):
            raise ConformanceError(f"site {name!r}: expected particles drawn apart, got the same values in two")
    for particle in range(3):
        one = single.copy()
        for name in latent_sites(single):
            one.nodes[name] = one.nodes[name].copy()
            value: Tensor = drawn.nodes[name]["value"][particle]
            one.nodes[name]["value"] = value.reshape(latent_sites(single)[name]["value"].shape)
        for program, together, which in ((model, scored, "model"), (guide, drawn, "guide")):
            alone = poutine.trace(poutine.replay(program, one)).get_trace(episodes, reading)
            alone.compute_log_prob()
            for name, node in sample_sites(alone).items():
                expected = float(node["log_prob"].sum())
                got = float(together.nodes[name]["log_prob"][particle].sum())
                if not close(expected, got, 1e-8):
                    raise ConformanceError(
                        f"site {name!r} of the {which}: expected log_prob {expected:.8g} of a particle, as scored "
                        f"alone, got {got:.8g} among others"
                    )


@conformance_check
def check_saving(
    model: Any,
    guide: Any,
    episodes: Episodes,
    reading: Reading | None = None,
    *,
    make: Callable[[], tuple[Any, Any, Any]] | None = None,
) -> None:
    """The state_dicts, written and read, give a pair the same loss; so does a deep copy; nothing else needs saving.

    :param make: gives a new ``(model, guide, episodes)``; by default a deep copy is loaded into.
    """
    expected = loss_of(model, guide, episodes, reading)
    _check_registered(model, guide)
    twin = copied(model, guide)
    got = loss_of(twin[0], twin[1], episodes, reading)
    if not close(expected, got):
        raise ConformanceError(f"expected the loss {expected:.8g} from a deep copy, got {got:.8g}")
    fresh = twin if make is None else make()[:2]
    loss_of(fresh[0], fresh[1], episodes, reading)  # parameters that the first call makes
    files = [io.BytesIO(), io.BytesIO()]
    for program, file in zip((model, guide), files, strict=True):
        torch.save(program.state_dict(), file)
        file.seek(0)
    for target in fresh:
        for tensor in target.state_dict().values():
            if tensor.is_floating_point():
                tensor.data.add_(torch.rand_like(tensor))  # so that what is not loaded shows
    again = loss_of(model, guide, episodes, reading)
    if not close(expected, again):
        raise ConformanceError(
            f"expected no tie to the other pair, the loss went from {expected:.8g} to {again:.8g} as that one changed"
        )
    for target, file in zip(fresh, files, strict=True):
        target.load_state_dict(torch.load(file, weights_only=True, map_location=episodes.device))
    got = loss_of(fresh[0], fresh[1], episodes, reading)
    if not close(expected, got):
        raise ConformanceError(f"expected the loss {expected:.8g} after loading the saved state, got {got:.8g}")


def _check_registered(model: Any, guide: Any) -> None:
    for program, module in (("model", model), ("guide", guide)):
        for name, part in module.named_modules() if isinstance(module, nn.Module) else ():
            for attribute, value in vars(part).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    where = ".".join(filter(None, (program, name, attribute)))
                    raise ConformanceError(
                        f"{where}: expected a parameter or a buffer, got a plain tensor, which is not saved or moved"
                    )


_Snapshot = dict[str, tuple[Any, Any]]


def _snapshot(model: Any, guide: Any) -> _Snapshot:
    """Every attribute of every module: what it is, and what it holds."""
    found: _Snapshot = {}
    for program, module in (("model", model), ("guide", guide)):
        for name, part in module.named_modules() if isinstance(module, nn.Module) else ():
            tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            plain = [(k, v) for k, v in vars(part).items() if not k.startswith(("_pyro", "_parameters", "_buffers"))]
            for attribute, value in (*tensors, *plain):
                found[".".join(filter(None, (program, name, attribute)))] = value, _content(value)
    return found


def _content(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return [(key, id(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | set):
        return [id(item) for item in value]
    return None


def _check_unchanged(before: _Snapshot, after: _Snapshot) -> None:
    for name in {**before, **after}:
        if name not in after or name not in before:
            raise ConformanceError(f"{name}: expected the modules' attributes unchanged by a call, it came or went")
        (one, content), (other, new_content) = before[name], after[name]
        same = torch.equal(content, new_content) if isinstance(content, Tensor) else content == new_content
        if not same or (one is not other and one != other):
            raise ConformanceError(f"{name}: expected the modules' attributes unchanged by a call, got another value")
