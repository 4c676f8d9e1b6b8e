"""Sizes that need not be typed: what the data says of frames and actions, and what parts of a model say of each other.

jsonargparse can link arguments, but a linked one can no longer be said, and is not written into config.yaml.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.said import Part, Said
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder, usual_layers
from gtm_pyro.tasks.base import EpisodeData

OF_DATA = ("action_dim", "frame_shape")
# until the data is there: every name and type is checked before it is made
_STAND_INS = {"action_dim": "1", "frame_shape": "[1, 8, 8]"}
_USUAL_TRANSITION = "gtm_pyro.transitions.Translation"


def agreed(said: Said) -> dict[str, str]:
    """What can be said before there is data: implied classes, sizes that must agree, and what stands for the others."""
    parts = said.parts()
    found = {part.name: f"{part.cls.__module__}.{part.cls.__name__}" for part in parts if part.implied}
    found |= _latent_dims(said, parts) | _state_dims(said, parts)
    for part in parts:
        for name, value in _STAND_INS.items():
            parameter = part.parameters.get(name)
            if parameter is not None and parameter.default is parameter.empty and is_open(said, f"{part.name}.{name}"):
                found[f"{part.name}.{name}"] = value
    if lacks_transition(said):
        found |= {"model.transition": _USUAL_TRANSITION, "model.transition.action_dim": "1"}
    return found


def of_data(said: Said, data: EpisodeData) -> dict[str, str]:
    """The sizes that the data decides, as overrides."""
    found: dict[str, str] = {}
    for part in said.parts():
        for name in OF_DATA:
            if name in part.parameters and is_open(said, f"{part.name}.{name}"):
                value = getattr(data, name)
                found[f"{part.name}.{name}"] = _text(value)
        if issubclass(part.cls, FrameEncoder | FrameDecoder):
            found |= _layers(said, part, data)
    return found


def is_open(said: Said, name: str) -> bool:
    """Whether nobody said it; null leaves it open."""
    return said.values.get(name) is None


def lacks_transition(said: Said) -> bool:
    """Whether the model needs a transition and the experiment names none."""
    model = next((part for part in said.parts() if part.name == "model"), None)
    parameter = None if model is None else model.parameters.get("transition")
    return parameter is not None and parameter.default is parameter.empty and is_open(said, "model.transition")


def check_sizes(model: Any, data: EpisodeData) -> None:
    """Whether what was said of a model fits the data.

    :raises ConfigError: names the part and the size.
    """
    for owner, name in (("transition", "action_dim"), ("encoder", "frame_shape"), ("decoder", "frame_shape")):
        mine = getattr(getattr(model, owner, None), name, None)
        theirs = getattr(data, name)
        if mine is not None and mine != theirs:
            raise ConfigError(f"model.{owner}.{name}: expected {theirs} as the data has it, got {mine}")


def _latent_dims(said: Said, parts: Sequence[Part]) -> dict[str, str]:
    """One length of z for all parts: the first that is said, otherwise the encoder's default."""
    names = [f"{part.name}.latent_dim" for part in parts if "latent_dim" in part.parameters]
    told = [said.values[name] for name in names if not is_open(said, name)]
    defaults = {f"{p.name}.latent_dim": p.parameters["latent_dim"] for p in parts if "latent_dim" in p.parameters}
    usual = {name: p.default for name, p in defaults.items() if isinstance(p.default, int)}
    encoders = [value for name, value in usual.items() if "encoder" in name]
    size = next(iter([*told, *encoders, *usual.values()]), None)
    return {} if size is None else {name: _text(size) for name in names if is_open(said, name)}


def _state_dims(said: Said, parts: Sequence[Part]) -> dict[str, str]:
    """What reads states reads those of the transition."""
    transition = next((part for part in parts if part.name == "model.transition"), None)
    if transition is None:
        return {}
    if getattr(transition.cls, "heading", False):
        size: Any = 3
    elif "state_dim" in transition.parameters:
        size = said.values.get("model.transition.state_dim") or transition.parameters["state_dim"].default
    else:
        return {}
    names = [f"{part.name}.state_dim" for part in parts if part is not transition and "state_dim" in part.parameters]
    return {name: _text(size) for name in names if is_open(said, name) and isinstance(size, int)}


def _layers(said: Said, part: Part, data: EpisodeData) -> dict[str, str]:
    """Strides and channels of an encoder or a decoder of frames, where they are not said."""
    names = [f"{part.name}.{name}" for name in ("strides", "channels") if name in part.parameters]
    given = said.values.get(f"{part.name}.frame_shape")
    shape = data.frame_shape if given is None else given
    wanted = [name for name in names if is_open(said, name)]
    if not wanted or not isinstance(shape, Sequence) or len(shape) != 3:
        return {}
    layers = usual_layers(tuple(shape), None if names[0] in wanted else (1, 1))
    backwards = issubclass(part.cls, FrameDecoder)
    values = dict(zip(names, (pair[::-1] if backwards else pair for pair in layers), strict=False))
    return {name: _text(values[name]) for name in wanted}


def _text(value: Any) -> str:
    """As a word of the command line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n...\n").strip()
