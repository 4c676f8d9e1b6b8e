"""Whether a model has found the map: from frames and actions alone, never from true poses."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.frame_errors import squared_error
from gtm_pyro.inference.capabilities import Capability, lacking, predictions, weighs_entries
from gtm_pyro.inference.programs import drawing
from gtm_pyro.inference.regret import regret
from gtm_pyro.initialisation.memory_fit import differences
from gtm_pyro.reading import Reading

MAX_SHARE = 0.1
"""Of the regret at places of other steps: with the map up to 0.053 of it was seen (docs/training.md)."""
_FAITHFUL = 0.25  # of the mean frame's error: predictions of familiar frames that are so good need a map
_TELLS = 0.02  # nats; with less than that at places of other steps, encodings do not tell frames apart
_SAME = (
    0.02  # of the median difference of an episode's memorised frames: up to it, a frame is taken for a memorised one
)
_FEWEST = 8  # of such steps, under which regrets say nothing
_FAMILIAR = 0.5  # share of such steps, under which predictions need not be better than the mean memorised frame


class Regrets(NamedTuple):
    """Of each predicted step, ``(batch, predicted)``; NaN for a model that weighs no memory entries.

    :param own: the regret (``gtm_pyro.inference.regret``) at its state.
    :param by_chance: at the state of another one: of the next episode, half of the predicted steps later.
    :param unlike: how much its frame differs from the memorised frame most like it, as a mean square, over the median
        of that of two memorised frames.
    """

    own: Tensor
    by_chance: Tensor
    unlike: Tensor

    def measures(self, error: Tensor | None = None, mean_error: Tensor | None = None) -> dict[str, float]:
        """Of familiar steps, whose frame is nearly a memorised one, half of all at most; NaN where there are fewer than
        eight: medians, and ``familiar_error``, the error over the mean memorised frame's. ``familiar_share``: of the
        predicted steps.

        :param error: squared, of the predicted frames, ``(batch, predicted)``; likewise ``mean_error``, of the mean
            memorised frame. None: not known.
        """
        familiar = self.unlike <= _SAME
        share = {"familiar_share": float(familiar.double().mean())}
        seen = familiar & (self.unlike <= self.unlike.median())
        few = int(seen.sum()) < _FEWEST
        found = {"regret": self.own, "regret_by_chance": self.by_chance}
        medians = {name: math.nan if few else float(value[seen].median()) for name, value in found.items()}
        if error is None or mean_error is None:
            return share | medians
        ratio = math.nan if few else float(error[seen].mean() / mean_error[seen].mean())
        return share | medians | {"familiar_error": ratio}


def regrets(model: Any, states: Tensor | None, episodes: Episodes) -> Regrets:
    """What it costs to weigh memory entries by place.

    :param states: of all steps, ``(batch, T, state_dim)``; None where there are none.
    """
    tau = episodes.num_observed
    apart = differences(episodes.frames, tau)
    usual = apart.memorised.flatten(1).median(-1).values.clamp_min(torch.finfo(apart.memorised.dtype).tiny)
    unlike = apart.predicted.amin(-1) / usual.unsqueeze(-1)
    if states is None or not weighs_entries(model):
        unknown = torch.full_like(unlike, math.nan)
        return Regrets(unknown, unknown, unlike)
    other = torch.cat([states[:, :tau], states[:, tau:].roll((1, episodes.num_predicted // 2), (0, 1))], 1)
    own, chance = (
        regret(model, episodes, dist.Delta(s.unsqueeze(-3), event_dim=2), Reading()) for s in (states, other)
    )
    return Regrets(own, chance, unlike)


@torch.no_grad()
def map_measures(model: Any, guide: Any, episodes: Episodes, seed: int = 0) -> dict[str, float]:
    """What :func:`doubt` needs, as ``gtm_pyro.evaluate`` has it; none for programs that cannot imagine."""
    if lacking(Capability.IMAGINES, model, guide):
        return {}
    with drawing(seed, episodes.device, model, guide):
        observed, frames = episodes.observed, episodes.predicted_frames
        path, imagined, _ = predictions(model, guide, observed, episodes.predicted_actions, sampled=False)
        assert imagined is not None  # as it can
        states = None if path is None or imagined.states is None else torch.cat([path, imagined.states], 1)
        found = regrets(model, states, episodes)
    error = squared_error(imagined.frames, frames)
    mean_error = squared_error(observed.frames.mean(1, keepdim=True), frames)
    return found.measures(error, mean_error) | {
        "mse": float(error.mean()), "mean_frame_mse_all": float(mean_error.mean())
    }  # fmt: skip


def doubt(metrics: Mapping[str, float | None]) -> str | None:
    """Why a model seems not to have found the map, in a sentence; None where it seems to have, or nothing is known.

    Where the memory's entries are weighed by place, the regret tells: what that costs against weighing them by content.
    It is compared with that at places of other steps, for an encoder that tells frames apart badly regrets little
    anywhere. Where no two frames are of exactly one place, weighing by place always costs something: a model is not
    doubted that predicts familiar frames far better than the mean memorised frame. Where regrets tell nothing at all,
    and for other priors, predictions must be better than the mean memorised frame.

    :param metrics: numbers of ``gtm_pyro.evaluate`` or of :func:`map_measures`.
    """
    known = {name: value for name, value in metrics.items() if value is not None and not math.isnan(value)}
    own, chance = known.get("regret", 0.0), known.get("regret_by_chance", 0.0)
    if chance > _TELLS:
        if own <= MAX_SHARE * chance or known.get("familiar_error", math.inf) <= _FAITHFUL:
            return None
        return (
            "It has not found the map, or loses its way on it: to read the memory by place costs "
            f"{own:.3g} nats a frame at the median, and {chance:.3g} at places of other steps; with the map found, "
            "it is a small part of that."
        )
    if known.get("familiar_share", 1.0) < _FAMILIAR:
        return None
    if "mse" in known and known["mse"] >= known.get("mean_frame_mse_all", math.inf):
        # without a memory that a path addresses there is no map to be found
        lost = "Nothing shows that it has found the map: predicted" if "regret" in known else "Predicted"
        return (
            f"{lost} frames are off by as much as the mean memorised frame or more (squared errors {known['mse']:.3g} "
            f"and {known['mean_frame_mse_all']:.3g})."
        )
    return None
