"""What a preset says of the parts of its own model, where other parts were asked for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import yaml

from gtm_pyro.experiment.choices import as_text
from gtm_pyro.experiment.said import Said
from gtm_pyro.inference.capabilities import Capability, lacking
from gtm_pyro.storage.checkpoints import program
from gtm_pyro.training.stages import LearningRates, Stage, matches_prefix


class Fitting(NamedTuple):
    """Stages and rates that a pair can be trained with, the same as overrides, and what was left out, in lines."""

    stages: list[Stage]
    rates: LearningRates
    overrides: dict[str, str]
    notes: list[str]


def without_misfits(model: Any, guide: Any, stages: Sequence[Stage], rates: LearningRates, said: Said) -> Fitting:
    """Leave out rates and frozen parts of parameters that there are none of, and a regret that nobody can tell.

    What was asked for itself stays, to be refused.
    """
    names = [name for name, _ in program(model, guide).named_parameters()]
    overrides: dict[str, str] = {}
    notes = []

    def known(prefixes: Sequence[str]) -> list[str]:
        return [prefix for prefix in prefixes if any(matches_prefix(prefix, name) for name in names)]

    by_prefix = {prefix: rates.by_prefix[prefix] for prefix in known(list(rates.by_prefix))}
    if len(by_prefix) < len(rates.by_prefix) and not any(n.startswith("learning_rates.by_prefix") for n in said.asked):
        lost = ", ".join(prefix for prefix in rates.by_prefix if prefix not in by_prefix)
        notes.append(f"learning_rates.by_prefix: without {lost}, for the pair has no such parameters")
        rates = replace(rates, by_prefix=by_prefix)
        overrides["learning_rates.by_prefix"] = yaml.safe_dump(by_prefix, default_flow_style=True).strip()
    if "stages" in said.asked:
        return Fitting(list(stages), rates, overrides, notes)
    tells = lacking(Capability.REGRET, model, guide) is None
    fitting = [replace(s, frozen=tuple(known(s.frozen)), max_regret=s.max_regret if tells else None) for s in stages]
    if fitting != list(stages):
        notes.append("stages: without the checks and the frozen parts that the pair has nothing for")
        declared = [_plain(stage) for stage in fitting]
        overrides["stages"] = as_text(declared)
    return Fitting(fitting, rates, overrides, notes)


def _plain(stage: Stage) -> dict[str, Any]:
    changed = {"data": dict(stage.data), "auxiliary": dict(stage.auxiliary)}
    return vars(stage) | {"reading": dict(vars(stage.reading)), "frozen": list(stage.frozen), **changed}
