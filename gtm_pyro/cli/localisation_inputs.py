"""From the words of gtm-pyro localise to a model, two guides and two walks."""

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch

from gtm_pyro.cli.inputs import all_held_out, trained
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.evaluation.localisation import RECOVERY_STEPS, check_can_localise, check_can_revisit, two_walks
from gtm_pyro.experiment.catalogue import import_class
from gtm_pyro.experiment.config import resolve
from gtm_pyro.localisation.moves import typical_move
from gtm_pyro.storage.limits import check_memory
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.storage.yaml import read_run
from gtm_pyro.tasks.base import check_split

# about one kidnap in the 96 steps of a walk; also what lets an agent be found that began outside the map
_DEFAULTS = {"guide.num_hypotheses": "64", "guide.kidnap": "0.01"}


@dataclass(frozen=True)
class LocalisationInputs:
    """What :func:`gtm_pyro.evaluation.localisation.localise` takes, and the settings that it came from."""

    model: Any
    guide: Any
    mapper: Any
    first: Episodes
    second: Episodes
    kidnapped: int | None
    cell_size: float | None
    settings: dict[str, Any]


def localisation_inputs(folder: RunFolder, arguments: Namespace) -> LocalisationInputs:
    """Programs with the newest parameters of a run, a first walk from the centre and a second one from anywhere.

    :raises ConfigError: says which argument, and what was expected.
    """
    check_split(arguments.split)
    if arguments.num_hypotheses is not None:  # which are compared with each other
        pairs = arguments.num_episodes * arguments.num_hypotheses
        check_memory("--num_hypotheses", arguments.num_hypotheses, 9 * pairs)
    slip = None if arguments.slip is None else _probability(arguments.slip)
    overrides = all_held_out(folder, arguments.overrides)
    asked = _of_part("guide", overrides)
    own = {name: text for name, text in overrides.items() if name not in asked}
    check_can_revisit(import_class("data", resolve(read_run(folder.config), own)["data"]["class_path"]))
    finding = {} if "guide" in asked or "guide.class_path" in asked else {"guide": "ParticleGuide", **_DEFAULTS}
    finding |= asked
    if arguments.num_hypotheses is not None:
        finding["guide.num_hypotheses"] = str(arguments.num_hypotheses)

    total, kidnap = arguments.observed_steps, "null"
    if arguments.kidnap:
        total += RECOVERY_STEPS
        kidnap = repr(arguments.observed_steps / total)
    undisturbed = {"data.start": "centre", "data.kidnap": "null"}
    elsewhere = {"data.start": "random", "data.kidnap": kidnap}
    if slip is not None:
        elsewhere["data.slip"] = repr(slip)
    mapping, device = trained(folder, {**own, **undisturbed})
    experiment, _ = trained(folder, {**own, **elsewhere, **finding})
    check_can_localise(experiment.guide)
    first, second = two_walks(
        mapping.data,
        experiment.data,
        num_episodes=arguments.num_episodes,
        memorised_steps=arguments.memorised_steps,
        observed_steps=total,
        seed=arguments.seed,
        split=arguments.split,
        device=device,
    )
    if slip is not None:
        _tell_of_slips(experiment.model, slip, second)
    names = ("num_episodes", "memorised_steps", "observed_steps", "seed", "split")
    settings = {name: getattr(arguments, name) for name in names}
    settings |= {"kidnap": bool(arguments.kidnap), "slip": slip, "guide": finding, "data": _of_part("data", own)}
    kidnapped = arguments.observed_steps if arguments.kidnap else None
    cell_size = arguments.cell_size or mapping.nearness["cell_size"]
    return LocalisationInputs(
        experiment.model, experiment.guide, mapping.guide, first, second, kidnapped, cell_size, settings
    )  # fmt: skip


def _tell_of_slips(model: Any, slip: float, episodes: Episodes) -> None:
    transition: Any = getattr(model, "transition", None)
    if not hasattr(transition, "slip_scale"):
        raise ConfigError(f"--slip: expected a model whose transition may slip, got {type(model).__name__}")
    with torch.no_grad():  # a slip is another move
        transition.slip_scale.fill_(typical_move(transition, episodes.actions).square().mean().sqrt())
    transition.slip.fill_(slip)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ConfigError(f"--slip: expected a probability from 0 up to but not including 1, got {text!r}")
    return value


def _of_part(part: str, overrides: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in overrides.items() if name.partition(".")[0] == part}
