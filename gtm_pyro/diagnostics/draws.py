"""Draws of every site of a pair, by ``pyro.infer.Predictive``, with names for their dimensions."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

from gtm_pyro.diagnostics.densities import draw_paths
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.inference.capabilities import Capability, capabilities, predict
from gtm_pyro.inference.checks import latent_sites, sample_sites
from gtm_pyro.reading import Reading

FRAME = ("channel", "row", "column")
# what the numbers of these sites are called; those of others by ArviZ's rule
_EVENTS = {"s": "state", "z": "latent"}

FROM_ACTIONS = "the frames observed, and all actions"
FROM_FRAMES = "all frames, for the pair infers nothing from the observed ones alone"

Values = dict[str, Tensor]


class NamedDraws(NamedTuple):
    """A site's values, with names for all dimensions but that of the draws, which comes first."""

    dims: tuple[str, ...]
    values: np.ndarray


class Scores(NamedTuple):
    """Log densities of the pair at each draw, in nats.

    :ivar log_likelihood: of each observed site, summed over what is within an episode and a step.
    :ivar log_joint: log p(x, z | a) of all sites, ``(draws,)``.
    :ivar log_weight: log p(x, z | a) - log q(z | x, a), ``(draws, episodes)``; None where a site has no plate of
        episodes.
    """

    log_likelihood: dict[str, NamedDraws]
    log_joint: np.ndarray
    log_weight: np.ndarray | None

    def statistics(self) -> dict[str, NamedDraws]:
        """By the names that ArviZ's group ``sample_stats`` has for them, and one of ours."""
        found = {"lp": NamedDraws((), self.log_joint)}
        if self.log_weight is not None:
            found["log_weight"] = NamedDraws(("episode",), self.log_weight)
        return found


class Sites:
    """The sites of a model with all latents drawn from its guide: what each is, and how its dimensions are called.

    Steps that are scored are the predicted ones. Factors are no sites here.
    """

    def __init__(self, model: Any, guide: Any, episodes: Episodes) -> None:
        self.model, self.guide, self.episodes, self.reading = model, guide, episodes, Reading()
        drawn = poutine.trace(guide).get_trace(episodes, self.reading)
        nodes = sample_sites(poutine.trace(poutine.replay(model, drawn)).get_trace(episodes, self.reading))
        self.nodes = {name: node for name, node in nodes.items() if torch.numel(node["value"])}
        self.latent = [name for name in latent_sites(drawn) if name in self.nodes]
        self.observed = [name for name, node in self.nodes.items() if node["is_observed"]]

    def inferred(self, num_samples: int) -> Values:
        """The guide's draws of the latents, given all frames: ``(draws, *batch, *event)`` by site."""
        draws = Predictive(self.guide, num_samples=num_samples)(self.episodes, self.reading)
        return {name: draws[name] for name in self.latent}

    def predicted(self, num_samples: int) -> tuple[Values, str]:
        """The model's own draws of the observed sites, and what they were drawn from.

        From the observed frames and all actions where the pair can: along paths that the guide begins and the
        transition continues, or as the model imagines them. Otherwise given all frames.
        """
        paths = self._paths(num_samples)
        freed = poutine.uncondition(self.model)
        if paths is not None:
            predict_along = Predictive(freed, paths, return_sites=self.observed)
            return predict_along(self.episodes, self.reading), FROM_ACTIONS
        imagined = self._imagined(num_samples)
        if imagined is not None:
            return imagined, FROM_ACTIONS
        again = Predictive(freed, guide=self.guide, num_samples=num_samples, return_sites=self.observed)
        return again(self.episodes, self.reading), FROM_FRAMES

    def scores(self, draws: Values, num_samples: int) -> Scores:
        """What the densities of both programs say of the guide's draws."""
        likelihood: dict[str, list[np.ndarray]] = {name: [] for name in self.observed}
        joint, weights, named = [], [], {}
        for i in range(num_samples):
            held = {name: values[i] for name, values in draws.items()}
            of_model, of_guide = (self._log_probs(program, held) for program in (self.model, self.guide))
            for name in self.observed:
                named[name] = self._dims(name, (1, *of_model[name].shape), of_event=False)
                likelihood[name].append(of_model[name].reshape(named[name].shape[1:]).cpu().numpy())
            joint.append(sum(float(value.double().sum()) for value in of_model.values()))
            weights.append(self._by_episode(of_model, of_guide))
        by_step = {name: NamedDraws(named[name].dims, np.stack(values)) for name, values in likelihood.items()}
        known = [weight for weight in weights if weight is not None]
        return Scores(by_step, np.array(joint), np.stack(known) if len(known) == len(joint) else None)

    def named(self, draws: Mapping[str, Tensor]) -> dict[str, NamedDraws]:
        """Arrays of draws without dimensions that stand for nothing."""
        arrays = {}
        for name, values in draws.items():
            dims, shape = self._dims(name, tuple(values.shape))
            arrays[name] = NamedDraws(dims, array(values.reshape(shape)))
        return arrays

    def _log_probs(self, program: Any, held: Values) -> Values:
        trace = poutine.trace(poutine.condition(program, held)).get_trace(self.episodes, self.reading)
        trace.compute_log_prob()
        return {name: node["log_prob"] for name, node in sample_sites(trace).items()}

    def _by_episode(self, of_model: Values, of_guide: Values) -> np.ndarray | None:
        total = np.zeros(len(self.episodes))
        for sign, values in ((1, of_model), (-1, of_guide)):
            for name, value in values.items():
                dims = self._dims(name, (1, *value.shape), of_event=False).dims if name in self.nodes else ()
                if dims[:1] != ("episode",):
                    return None
                total += sign * value.double().reshape(len(total), -1).sum(1).cpu().numpy()
        return total

    def _dims(self, name: str, shape: tuple[int, ...], of_event: bool = True) -> "_Shape":
        """Names of the dimensions of a site's draws, and the shape without those that are no plate and of size 1."""
        node, episodes = self.nodes[name], self.episodes
        event = tuple(node["fn"].event_shape) if of_event else ()
        batch = shape[1 : len(shape) - len(event)]
        plates = {frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
        dims: list[str] = []
        sizes = [shape[0]]
        for dim, size in zip(range(-len(batch), 0), batch, strict=True):
            if dim in plates:
                dims.append(_plate(plates[dim], dim, size, episodes))
            elif size > 1:
                dims.append(f"{name}_plate_{-dim}")
            else:
                continue
            sizes.append(size)
        return _Shape((*dims, *_event(name, event, episodes)), (*sizes, *event))

    def _paths(self, num_samples: int) -> Values | None:
        """Whole paths as values of their site; None for a pair without, or whose guide takes no part of an episode."""
        if Capability.PATH not in capabilities(self.model, self.guide):
            return None
        if not hasattr(getattr(self.model, "transition", None), "rollout"):
            return None
        try:
            paths = draw_paths(self.model, self.guide, self.episodes, num_samples)
        except ConfigError:  # of an automatic guide, which knows whole episodes only
            return None
        for name in self.latent:
            node = self.nodes[name]
            value = node["value"]
            if tuple(node["fn"].event_shape) == tuple(paths.shape[2:]) and value.numel() == paths[0].numel():
                return {name: paths.reshape(num_samples, *value.shape)}
        return None

    def _imagined(self, num_samples: int) -> Values | None:
        """Frames as the model's own ``predict`` or ``imagine`` draws them; None where it has none or one site more."""
        episodes, able = self.episodes, capabilities(self.model, self.guide)
        if Capability.IMAGINES not in able or len(self.observed) != 1:
            return None
        observed, actions = episodes.observed, episodes.predicted_actions
        try:
            drawn = [predict(self.model, self.guide, observed, actions, sample=True) for _ in range(num_samples)]
        except ConfigError:
            return None
        (name,) = self.observed
        frames = torch.stack([each.frames for each in drawn])
        return {name: frames} if frames.shape[1:] == self.nodes[name]["value"].shape else None


class _Shape(NamedTuple):
    dims: tuple[str, ...]
    shape: tuple[int, ...]


def array(tensor: Tensor) -> np.ndarray:
    """On the CPU, floats as float32."""
    values = tensor.detach().cpu().numpy()
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _plate(name: str, dim: int, size: int, episodes: Episodes) -> str:
    """By this library's convention episodes are at dim -2 and steps at dim -1, if no plate says so by its name."""
    if size == len(episodes) and (name == "episodes" or dim == -2):
        return "episode"
    steps = {episodes.num_predicted: "predicted_step", episodes.num_steps: "step"}
    return steps.get(size, name) if name == "steps" else name


def _event(name: str, event: tuple[int, ...], episodes: Episodes) -> Iterator[str]:
    if event == episodes.frame_shape:
        yield from FRAME
        return
    for i, size in enumerate(event):
        if i == 0 and len(event) == 2 and size == episodes.num_steps:
            yield "step"
        else:
            yield _EVENTS[name] if name in _EVENTS and i == len(event) - 1 else f"{name}_dim_{i}"
