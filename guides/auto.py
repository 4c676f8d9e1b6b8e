"""Pyro's automatic guides, for a fixed batch of episodes."""

from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import autoguide
from pyro.nn import PyroModule
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.reading import Reading

Kind = Literal[
    "AutoDelta", "AutoDiagonalNormal", "AutoLowRankMultivariateNormal", "AutoMultivariateNormal", "AutoNormal"
]


class AutoGuide(PyroModule):
    """q(z, s) of one of Pyro's autoguides: a point or a normal over all latents of the episodes that it first sees.

    It has no network: its parameters are those of these episodes, so it is fitted to a fixed batch
    (``gtm_pyro.tasks.FixedEpisodes``) and says nothing of others, nor of a part of them. Use it to see what a
    network of another guide costs; it cannot be evaluated on held-out episodes. Its parameters are made in its first
    call, at draws from the model.

    :param model: a Pyro program of episodes whose latents are real vectors.
    :param kind: the class in ``pyro.infer.autoguide``. The covariance of AutoMultivariateNormal has the squared
        number of all latents of the batch: tiny batches only.
    :param init_scale: first standard deviation of every latent; the paths of these models are narrow.
    :param rank: of AutoLowRankMultivariateNormal; about the root of the number of latents by default.
    :raises ConfigError: another kind, or a scale that is not positive.
    :cvar amortised: that it says nothing of episodes that it was not fitted to; gtm-pyro list does not offer it.
    """

    amortised = False

    def __init__(
        self, model: Any, kind: Kind = "AutoNormal", init_scale: float = 0.01, rank: int | None = None
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ConfigError(f"guide.kind: expected one of {', '.join(get_args(Kind))}, got {kind!r}")
        if not init_scale > 0:
            raise ConfigError(f"guide.init_scale: expected a number over 0, got {init_scale}")
        settings: dict[str, Any] = {} if kind == "AutoDelta" else {"init_scale": float(init_scale)}
        if kind == "AutoLowRankMultivariateNormal":
            settings["rank"] = rank
        self._model = (model,)  # a tuple keeps the model's parameters out of the guide's
        self._settings, self.kind = settings, kind
        self.auto = self._make()
        self._seen: tuple[Episodes, Reading] | None = None

    def _make(self) -> Any:
        return getattr(autoguide, self.kind)(self._model[0], init_loc_fn=autoguide.init_to_sample, **self._settings)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> dict[str, Tensor]:
        """Draw z and s, and what Pyro's guide draws them from.

        :raises ConfigError: other episodes than in the first call, or another reading.
        """
        reading = reading or self._model[0].reading
        if self._seen is None:
            self._seen = episodes, reading
        self._check_seen(episodes)
        if reading != self._seen[1]:
            raise ConfigError(f"guide: AutoGuide was made for {self._seen[1]}, got {reading}; give it one stage")
        result: dict[str, Tensor] = self.auto(episodes, reading)
        return result

    def initialise(self, episodes: Episodes, reading: Reading | None = None) -> None:
        """Begin again at draws from the model as it is now; the parameters stay the same tensors.

        :raises ConfigError: other episodes than in the first call.
        """
        if self._seen is None:
            self(episodes, reading)
        self._check_seen(episodes)
        assert self._seen is not None
        with pyro.settings.context(module_local_params=True):  # or the store would hand out the old values
            fresh = self._make()
            fresh(*self._seen)
        self.auto.load_state_dict(fresh.state_dict())

    def path(self, episodes: Episodes) -> dist.TorchDistribution:
        """q(s_{1:T}) of the fitted episodes: batch shape ``(batch, 1)``, event shape ``(T, state_dim)``.

        :raises ConfigError: other episodes, or a part of their steps.
        """
        self._check_seen(episodes)
        shape = self.auto.prototype_trace.nodes["s"]["value"].shape
        if self.kind == "AutoNormal":
            return dist.Normal(self.auto.locs.s, self.auto.scales.s).to_event(2)
        if self.kind == "AutoDelta":
            return dist.Delta(self.auto.s, event_dim=2)
        begin = 0
        for name, site in self.auto.prototype_trace.iter_stochastic_nodes():
            if name == "s":
                break
            begin += site["value"].numel()
        return _marginal(self.auto.get_posterior(), begin, shape)

    def _check_seen(self, episodes: Episodes) -> None:
        if self._seen is None:
            raise ConfigError(
                "guide: AutoGuide has no posterior before it was fitted; see gtm_pyro.tasks.FixedEpisodes"
            )
        mine = self._seen[0].frames
        if episodes.frames is mine or torch.equal(episodes.frames, mine.to(episodes.frames)):
            return
        raise ConfigError(
            f"guide: AutoGuide has a posterior of the {mine.shape[0]} episodes of {mine.shape[1]} steps that it first "
            "saw, and these are others: its parameters belong to episodes; fix them by FixedEpisodes and "
            "one stage, or use a guide with a network, DeadReckoning for instance"
        )


def _marginal(joint: Any, begin: int, shape: torch.Size) -> dist.TorchDistribution:
    """Of the entries from ``begin`` on of a normal vector, as ``(batch, 1)`` matrices.

    :param shape: (batch, 1, rows, columns), of the entries in their order.
    """
    size, rows = shape.numel(), shape[-2:].numel()
    part = slice(begin, begin + size)
    if isinstance(joint, dist.Independent):
        base = joint.base_dist
        return dist.Normal(base.loc[part].view(shape), base.scale[part].view(shape)).to_event(2)
    if isinstance(joint, dist.LowRankMultivariateNormal):
        factor, diagonal = joint.cov_factor[part], joint.cov_diag[part]
        vector: Any = dist.LowRankMultivariateNormal(
            joint.loc[part].view(*shape[:2], rows),
            factor.view(*shape[:2], rows, -1),
            diagonal.view(*shape[:2], rows),
        )
    else:
        factor = joint.scale_tril[part].view(*shape[:2], rows, -1)
        vector = dist.MultivariateNormal(joint.loc[part].view(*shape[:2], rows), factor @ factor.mT)
    reshape = dist.transforms.ReshapeTransform(torch.Size((rows,)), shape[-2:])
    return dist.TransformedDistribution(vector, [reshape])
