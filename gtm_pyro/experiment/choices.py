"""What an experiment leaves open and the data can decide: how the agent moves, what fits that, how long to train."""

import math
from typing import Any

import yaml

from gtm_pyro.experiment.said import Said
from gtm_pyro.experiment.sizes import is_open, lacks_transition
from gtm_pyro.experiment.windows import USUAL_STAGE, Room
from gtm_pyro.storage.yaml import Raw
from gtm_pyro.tasks.base import EpisodeData

# by whether the agent has a heading: what goes with it in the experiments of the library, where it is not said
_MOVING: dict[bool, dict[str, Any]] = {
    True: {
        "model.transition": "gtm_pyro.transitions.RotatingTranslation",
        "model.keys": "gtm_pyro.memory.HeadingKeys",
        "model.prior": "gtm_pyro.priors.QueryPrior",
        "model.memory": "gtm_pyro.memory.SpatialMemory",
        "model.memory.num_neighbors": 16,
        "learning_rates": {"default": 3e-3, "by_prefix": {"transition": 1e-5}},
    },
    False: {
        "model.transition": "gtm_pyro.transitions.Translation",
        "model.prior": "gtm_pyro.priors.BackgroundPrior",
        "model.memory": "gtm_pyro.memory.SpatialMemory",
        "model.memory.num_neighbors": 5,
        "learning_rates": {"default": 4e-3, "by_prefix": {"transition.displacement": 3e-4}},
    },
}
_TURNS = ("turn", "rotate")
_BATCH_SIZE, _BATCH_BYTES = 16, 2**28
_SHORT, _SMALL = 32, 256
_READ_ALL = ("BackgroundPrior", "MixturePrior")  # priors that can weigh the whole memory
_VIEWS_OF_A_FRAME, _FEWEST_STEPS, _MOST_STEPS = 100, 1000, 10_000


def chosen_by_data(said: Said) -> tuple[str, ...]:
    """The beginnings of names of arguments of classes that only the data will name."""
    if not lacks_transition(said):
        return ()
    return tuple(f"{name}." for name in _MOVING[True] if name.startswith("model.") and is_open(said, name))


def choose_motion(said: Said, data: EpisodeData) -> tuple[dict[str, str], list[str]]:
    """A transition for a model that needs one, and what goes with it; with a line that says why."""
    if not lacks_transition(said):
        return {}, []
    heading, why = _heading(data)
    model = next(part for part in said.parts() if part.name == "model")
    chosen: dict[str, str] = {}
    for name, value in _MOVING[heading].items():
        field, _, rest = name.partition(".")
        owner = name.rpartition(".")[0]
        if field == "learning_rates":
            if not any(key.partition(".")[0] == field for key in said.values):
                chosen |= {f"{field}.{key}": yaml.safe_dump(item).replace("\n...\n", "") for key, item in value.items()}
        elif rest == "memory.num_neighbors":
            if owner in chosen and name not in said:
                observed, predicted = _window(Room.of(data, "train"))
                chosen[name] = str(min(value, observed, _short(observed + predicted) - 1))
        elif is_open(said, name) and rest in model.parameters and (name not in said or rest == "transition"):
            chosen[name] = value
    named = [path.rpartition(".")[2] for name, path in chosen.items() if path.startswith("gtm_pyro.")]
    return chosen, [f"model: {', '.join(named)}, for {why}"]


def choose_stages(said: Said, data: EpisodeData) -> tuple[list[Raw], list[str]]:
    """A curriculum: each step predicted from all others of a short window, then windows as long as episodes are."""
    room = Room.of(data, "train")
    observed, predicted = _window(room)
    batch = _batch_size(data, observed + predicted)
    short = _short(observed + predicted)
    a_step = batch * (short + observed + predicted) / 2  # frames, on average
    steps, why = _FEWEST_STEPS, "the fewest that help"
    if room is not None:
        frames = sum(data.lengths["train"])  # type: ignore[attr-defined]
        steps = min(max(math.ceil(_VIEWS_OF_A_FRAME * frames / a_step), _FEWEST_STEPS), _MOST_STEPS)
        why = f"in which each of the {frames} frames is seen about {round(steps * a_step / frames)} times"
    first = {"num_observed": short - short // 2, "num_predicted": short // 2}
    main = {"num_observed": observed, "num_predicted": predicted}
    others: Raw = {"scored": "others"}
    later: Raw = {"scored": "predicted"}
    if math.prod(data.frame_shape[1:]) > _SMALL:  # frames of many windows teach more than many of one
        others["num_scored"], later["num_scored"] = 8, 16
    if str(said.values.get("model.prior", "")).rpartition(".")[2] in _READ_ALL:
        others["num_neighbors"] = "all"
    stages: list[Raw] = [
        {"steps": steps // 2, "batch_size": batch, **first, "reading": others},
        {"steps": steps - steps // 2, "batch_size": batch, **main, "reading": later},
    ]
    length = "episodes have any length" if room is None else str(room)
    return stages, [
        f"stages: {steps} steps, {why}; half on windows of {short} steps, each predicted from all others",
        f"stages: then {observed} steps memorised and {predicted} predicted, {batch} windows at a time, for {length}",
    ]


def _short(steps: int) -> int:
    """Steps of a window of the first stage."""
    return min(_SHORT, max(2, steps // 2))


def _window(room: Room | None) -> tuple[int, int]:
    return USUAL_STAGE if room is None else room.window()


def _heading(data: EpisodeData) -> tuple[bool, str]:
    """Whether the agent turns, and what says so."""
    turning = [name for name in data.action_names if any(word in name.lower() for word in _TURNS)]
    known = getattr(data, "has_heading", None)
    if known is None:
        known = data.sample(1, num_observed=1, num_predicted=1, seed=0).has_heading
    if known:
        return True, "poses have a heading"
    if turning:
        return True, f"there is an action {turning[0]!r}"
    return False, "neither poses nor the names of actions say that the agent turns"


def _batch_size(data: EpisodeData, steps: int) -> int:
    """Episodes whose frames take no more than a fixed share of memory."""
    size = 4 * steps * math.prod(data.frame_shape)
    return max(1, min(_BATCH_SIZE, _BATCH_BYTES // size))


def as_text(stages: list[Any]) -> str:
    """Stages as a word of the command line."""
    return yaml.safe_dump(stages, default_flow_style=True, width=math.inf)
