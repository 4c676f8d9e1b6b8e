"""Whether densities are densities: finite, one a batch element, of integral 1, and those of the draws."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.checks import latent_sites, sample_sites
from gtm_pyro.inference.randomness import set_seed
from gtm_pyro.reading import Reading
from gtm_pyro.testing.running import (
    SEED,
    ConformanceError,
    NotApplicable,
    all_finite,
    conformance_check,
    copied,
    traces,
)

NUM_CENTRES, NEIGHBORHOODS, NUM_FREQUENCIES = 100, (0.1, 0.02), 8
# standard errors: with 16 sums for each of at most some 100 densities, a sound pair fails once in a thousand seeds
THRESHOLD = 5.0


@conformance_check
def check_log_probs(model: Any, guide: Any, episodes: Episodes, reading: Reading | None = None) -> None:
    """Log probabilities of the guide's draws, and of the data, are finite, and of the batch shape of their site."""
    for program, trace in zip(("model", "guide"), traces(model, guide, episodes, reading), strict=True):
        for name, node in sample_sites(trace).items():
            log_prob, where = node["fn"].log_prob(node["value"]), f"site {name!r} of the {program}"
            if log_prob.shape != node["fn"].batch_shape:
                expected, got = tuple(node["fn"].batch_shape), tuple(log_prob.shape)
                raise ConformanceError(f"{where}: expected log_prob of shape {expected}, got {got}")
            if not all_finite(log_prob):
                bad = (~log_prob.isfinite()).nonzero()[0].tolist()
                raise ConformanceError(
                    f"{where}: expected a finite log_prob of its value, got {log_prob[tuple(bad)].item()} at {bad}"
                )


@conformance_check
def check_densities(
    model: Any,
    guide: Any,
    episodes: Episodes,
    reading: Reading | None = None,
    *,
    num_steps: int = 2,
    max_event_size: int = 6,
    num_points: int = 4000,
) -> None:
    """Every density of few dimensions integrates to 1 and is that of its draws.

    Two episodes are cut to ``num_steps`` steps, whose whole memory is read, and the densities of all sites taken from
    one draw of the guide, in float64. For each, points y are drawn from a mixture g of normals fitted to draws of its
    own, and the means of w(y) = density(y) / g(y) and of w(y) cos(<u, y>), w(y) sin(<u, y>) are compared with 1 and
    with the means of the same functions over draws, for random frequencies u. A mean that is off by more than 5 of its
    standard errors and by more than 0.01 is an error.

    :param num_steps: steps of the path, if the episodes have as many.
    :param max_event_size: sites of more numbers than this are left out.
    :param num_points: points y, and draws, for each density.
    """
    model, guide = (program.double() for program in copied(model, guide))
    few = _cut(episodes.to(torch.float64), num_steps)
    reading = reading or getattr(model, "reading", None)
    if reading is not None:
        reading = replace(reading, num_neighbors="all")  # fewer entries than neighbours
    skipped, found = [], 0
    with torch.no_grad():
        for program, trace in zip(("model", "guide"), traces(model, guide, few, reading), strict=True):
            for name, node in sample_sites(trace).items() if program == "model" else latent_sites(trace).items():
                distribution = node["fn"]
                size = math.prod(distribution.event_shape)
                if size > max_event_size or not node["value"].is_floating_point():
                    skipped.append(f"{name!r}: {size} numbers")
                    continue
                found += 1
                _check_density(distribution, f"site {name!r} of the {program}", num_points)
    if not found:
        raise NotApplicable(
            f"expected continuous sites of at most {max_event_size} numbers, got {'; '.join(skipped) or 'none'}"
        )


def _cut(episodes: Episodes, num_steps: int) -> Episodes:
    steps = min(num_steps, episodes.num_steps)
    return episodes[:2].steps(0, steps, num_observed=max(1, min(episodes.num_observed, steps - 1)))


def _check_density(distribution: Any, where: str, num_points: int) -> None:
    set_seed(SEED, torch.device("cpu"))
    draws = distribution.sample((num_points,))
    batch, event = distribution.batch_shape, distribution.event_shape
    flat = draws.reshape(num_points, math.prod(batch), -1).transpose(0, 1)  # (elements, points, numbers)
    if not all_finite(flat):
        raise ConformanceError(f"{where}: expected finite draws, got others")
    if bool((flat.std(1) == 0).any()):
        raise ConformanceError(
            f"{where}: expected draws that differ, as a density has them, got one value again and again"
        )
    proposal = _Proposal.fit(flat)
    points = proposal.sample(num_points)
    log_weight = _log_prob(distribution, points, batch, event) - proposal.log_prob(points)
    # in units of the draws' own spread
    unit_points, unit_draws = proposal.whiten(points), proposal.whiten(flat)
    frequencies = torch.randn(NUM_FREQUENCIES, flat.shape[-1], dtype=flat.dtype, device=flat.device)
    for element, weight in enumerate(log_weight.exp()):
        index = [int(i) for i in torch.unravel_index(torch.tensor(element), batch)] if batch else []
        place = f"{where}, element {index}" if batch else where
        total, error = float(weight.mean()), float(weight.std()) / math.sqrt(num_points)
        if not math.isfinite(total):
            raise ConformanceError(f"{place}: expected a density that integrates to 1, got {total}")
        if abs(total - 1) > max(THRESHOLD * error, 0.01):
            raise ConformanceError(
                f"{place}: expected a density that integrates to 1, got {total:.4g} (standard error {error:.2g})"
            )
        angle_points, angle_draws = (unit[element] @ frequencies.mT for unit in (unit_points, unit_draws))
        for wave in (torch.cos, torch.sin):
            inside, outside = weight[:, None] * wave(angle_points), wave(angle_draws)
            gap = inside.mean(0) - outside.mean(0)
            errors = ((inside.var(0) + outside.var(0)) / num_points).sqrt()
            if bool((gap.abs() > (THRESHOLD * errors).clamp(min=0.01)).any()):
                worst = int((gap.abs() / errors).argmax())
                raise ConformanceError(
                    f"{place}: expected draws from the density that log_prob gives, got means of {wave.__name__}(u y) "
                    f"that differ by {float(gap[worst]):.3g} (standard error {float(errors[worst]):.2g})"
                )


def _log_prob(distribution: Any, points: Tensor, batch: torch.Size, event: torch.Size) -> Tensor:
    """``(elements, points)``; -inf outside the support."""
    values = points.transpose(0, 1).reshape(-1, *batch, *event)
    inside = distribution.support.check(values)
    stand_in = distribution.sample()
    safe = torch.where(inside.reshape(*inside.shape, *[1] * len(event)), values, stand_in)
    log_prob = torch.where(inside, distribution.log_prob(safe), -math.inf)
    return log_prob.reshape(len(values), -1).mT


class _Proposal(NamedTuple):
    """Normals around draws, each as wide as its neighbourhood, and one wide one, for each of several elements.

    A narrow peak in a wide plain, as of a step that seldom slips, keeps its own width.
    """

    loc: Tensor  # (elements, components, numbers)
    tril: Tensor  # (elements, components, numbers, numbers)
    log_share: Tensor  # (components,)

    @classmethod
    def fit(cls, draws: Tensor) -> "_Proposal":
        """:param draws: ``(elements, points, numbers)``."""
        mean = draws.mean(1, keepdim=True)
        overall = _factor((draws - mean).unsqueeze(1))
        unit = torch.linalg.solve_triangular(overall[:, 0], (draws - mean).mT, upper=False).mT
        rows = torch.arange(len(draws), device=draws.device)[:, None, None]
        loc, tril = [], []
        for number, part in enumerate(NEIGHBORHOODS):
            centres = slice(number * NUM_CENTRES, (number + 1) * NUM_CENTRES)
            near = torch.cdist(unit[:, centres], unit)
            near = near.topk(max(draws.shape[-1] + 2, int(part * draws.shape[1])), largest=False).indices
            loc.append(draws[:, centres])
            tril.append(_factor(draws[rows, near] - draws[:, centres, None]))
        all_loc, all_tril = torch.cat([*loc, mean], 1), torch.cat([*tril, 3 * overall], 1)
        share = draws.new_full((all_loc.shape[1],), 0.9 / (all_loc.shape[1] - 1))
        share[-1] = 0.1
        return cls(all_loc, all_tril, share.log())

    def whiten(self, points: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.tril[:, -1] / 3, (points - self.loc[:, -1:]).mT, upper=False).mT

    def sample(self, num_points: int) -> Tensor:
        """``(elements, num_points, numbers)``."""
        elements = self.loc.shape[0]
        chosen = torch.multinomial(self.log_share.exp().expand(elements, -1), num_points, replacement=True)
        rows = torch.arange(elements, device=chosen.device)[:, None]
        unit = torch.randn(elements, num_points, self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        return self.loc[rows, chosen] + (self.tril[rows, chosen] @ unit.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, points: Tensor) -> Tensor:
        """``(elements, num_points)``."""
        size = points.shape[-1]
        total = torch.full(points.shape[:2], -math.inf, dtype=points.dtype, device=points.device)
        inverse = torch.linalg.inv(self.tril)
        constant = self.log_share - self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        centred = self.loc - self.loc[:, -1:]  # so that nothing large is subtracted
        for rows, shift, offset in zip(
            *(x.split(20, 1) for x in (inverse, (inverse @ centred.unsqueeze(-1)).squeeze(-1), constant)), strict=True
        ):
            unit = (points - self.loc[:, -1:]) @ rows.flatten(1, 2).mT - shift.flatten(1).unsqueeze(1)
            square = unit.unflatten(-1, (-1, size)).square().sum(-1)
            total = torch.logaddexp(total, (offset.unsqueeze(1) - 0.5 * square).logsumexp(-1))
        return total - 0.5 * size * math.log(2 * math.pi)


def _factor(deviations: Tensor) -> Tensor:
    """The Cholesky factor of the second moment of ``(..., points, numbers)``."""
    moment = deviations.mT @ deviations / deviations.shape[-2]
    diagonal = moment.diagonal(dim1=-2, dim2=-1)
    # neighbours may lie in a plane
    return torch.linalg.cholesky(moment + torch.diag_embed(1e-6 * diagonal + torch.finfo(moment.dtype).tiny))
