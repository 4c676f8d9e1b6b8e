"""What the data or another part says need not be typed; what is said and does not fit is an error."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.errors import ConfigError
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.declared import Experiment
from gtm_pyro.experiment.files import read_experiment
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder, usual_layers
from gtm_pyro.priors import BackgroundPrior
from gtm_pyro.transitions import RotatingTranslation, Translation


def shards(folder: Path, side: int, steps: int, actions: int, heading: bool = False, episodes: int = 5) -> str:
    """A folder of episodes of noise; its name."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.eye(actions)[torch.randint(actions, (episodes, steps), generator=generator)]
    poses = torch.rand(episodes, steps, 3, generator=generator) if heading else None
    names = ("x", "y", "heading") if heading else None
    frames = torch.rand(episodes, steps, 3, side, side, generator=generator)
    save_shards(Episodes(frames, chosen, steps, poses=poses, pose_names=names), folder)
    return str(folder)


def built(name: str, **overrides: str) -> Experiment:
    return resolve(read_experiment(name), {k.replace("__", "."): v for k, v in overrides.items()}).build()


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ({"data.motion": "continuous"}, (2, 8, 64)),
        ({"data.crop_size": "16"}, (5, 16, 64)),
        ({"model.encoder.latent_dim": "12"}, (5, 8, 12)),
        ({"model.decoder.latent_dim": "12", "data.crop_size": "12"}, (5, 12, 12)),
        ({"model.encoder": "my_parts.MyEncoder", "model.prior.latent_dim": "64"}, (5, None, None)),
    ],
)
def test_sizes_follow_the_data_and_each_other(overrides: dict[str, str], sizes: tuple[int, ...]) -> None:
    experiment = resolve(read_experiment("image-navigation"), overrides).build()
    model: Any = experiment.model
    action_dim, side, latent_dim = sizes
    assert model.transition.action_dim == experiment.data.action_dim == action_dim
    assert getattr(model.encoder, "frame_shape", (None, None))[1] == side
    assert getattr(model.encoder, "latent_dim", None) == latent_dim
    assert model.decoder.latent_dim == model.prior.latent_dim == (latent_dim or 64)
    stored = yaml.safe_load(experiment.yaml())["model"]["init_args"]
    assert stored["transition"]["init_args"]["action_dim"] == action_dim
    assert stored["decoder"]["init_args"]["strides"] == [2, 2] and not experiment.notes


def test_another_transition_leaves_what_it_has_no_use_for() -> None:
    experiment = built("image-navigation", model__transition="RotatingTranslation", model__prior="QueryPrior")
    assert isinstance(experiment.model.transition, RotatingTranslation)
    assert experiment.learning_rates.by_prefix == {"transition.displacement": 3e-4}
    assert experiment.notes == (
        "learning_rates.by_prefix: without transition.gate_network, for the pair has no such parameters",
    )
    stored = yaml.safe_load(experiment.yaml())
    assert stored["learning_rates"]["by_prefix"] == {"transition.displacement": 3e-4}
    assert built("image-navigation", model__prior="QueryPrior").model.prior.state_dim == 2


def test_a_part_that_is_not_named_has_the_sizes_too(tmp_path: Path) -> None:
    """Without an encoder and a decoder the model makes its own, of frames as the data has them."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{model: gtm_pyro.models.GTMSM, guide: gtm_pyro.guides.DeadReckoning, data: gtm_pyro.tasks.LabyrinthWalk}"
    )
    experiment = built(str(path))
    model: Any = experiment.model
    assert model.encoder.frame_shape == model.decoder.frame_shape == (3, 32, 32)
    assert isinstance(model.transition, RotatingTranslation) and model.transition.action_dim == 8


def test_windows_of_a_preset_follow_shorter_episodes(tmp_path: Path) -> None:
    folder = shards(tmp_path / "a", side=8, steps=40, actions=3)
    experiment = built("image-navigation", data="SavedEpisodes", data__directory=folder)
    assert [(s.num_observed, s.num_predicted) for s in experiment.stages] == [(20, 20), (36, 4)]
    assert (experiment.evaluation.num_observed, experiment.evaluation.num_predicted) == (20, 20)
    assert experiment.notes == (
        "stage 1: 20 steps memorised and 20 predicted, not 32 + 32, for episodes to train on have 40 steps",
        "stage 2: 36 steps memorised and 4 predicted, not 256 + 32, for episodes to train on have 40 steps",
        "evaluation: 20 steps memorised and 20 predicted, not 256 + 256, for episodes to test on have 40 steps",
    )
    # what was asked for is left to be refused
    asked = "[{steps: 5, num_observed: 30, num_predicted: 20}]"
    stages = built("image-navigation", data="SavedEpisodes", data__directory=folder, stages=asked).stages
    assert (stages[0].num_observed, stages[0].num_predicted) == (30, 20)


@pytest.mark.parametrize(
    ("side", "steps", "heading", "windows", "strides"),
    [(56, 150, True, (100, 50), (7, 2)), (8, 12, False, (8, 4), (2, 2)), (28, 40, False, (27, 13), (2, 2))],
)
def test_any_folder_is_enough(
    side: int, steps: int, heading: bool, windows: tuple[int, int], strides: tuple[int, int], tmp_path: Path
) -> None:
    folder = shards(tmp_path / "a", side, steps, actions=3, heading=heading)
    experiment = built("own-episodes", data__directory=folder)
    model: Any = experiment.model
    assert isinstance(model.transition, RotatingTranslation if heading else Translation)
    assert isinstance(model.prior, BackgroundPrior) is not heading and hasattr(model.keys, "matrix") is heading
    assert (experiment.stages[-1].num_observed, experiment.stages[-1].num_predicted) == windows
    assert (experiment.evaluation.num_observed, experiment.evaluation.num_predicted) == windows
    stored = yaml.safe_load(experiment.yaml())
    assert tuple(stored["model"]["init_args"]["encoder"]["init_args"]["strides"]) == strides
    told = "\n".join(experiment.notes)
    assert ("poses have a heading" in told) is heading and f"have {steps} steps" in told and "1000 steps" in told
    # what was chosen is said: the same comes of config.yaml, with nothing left to choose
    again = resolve(stored).settled()
    assert again.yaml() == experiment.yaml() and not again.notes


def test_what_is_said_is_not_chosen(tmp_path: Path) -> None:
    folder = shards(tmp_path / "a", side=8, steps=40, actions=3, heading=True)
    experiment = built(
        "own-episodes", data__directory=folder, model__transition="Translation", stages="[{steps: 7}]",
        learning_rates__default="0.1", evaluation__num_observed="9", model__encoder__strides="[4, 1]",
    )  # fmt: skip
    model: Any = experiment.model
    assert type(model.transition) is Translation and model.encoder.first.stride == 4
    assert experiment.stages[0].steps == 7 and experiment.learning_rates.default == 0.1
    assert (experiment.evaluation.num_observed, experiment.evaluation.num_predicted) == (9, 13)
    assert built("own-episodes", data__directory=folder, model__transition__scale="0.5").model.transition.scale == 0.5
    with pytest.raises(ConfigError, match="^model.transition.scal: no such field of RotatingTranslation"):
        built("own-episodes", data__directory=folder, model__transition__scal="0.5")


def test_layers_suit_the_frames() -> None:
    for side in (8, 10, 28, 32, 48, 56, 64, 84, 96, 128):
        strides, _ = usual_layers((3, side, side))
        assert side % (strides[0] * strides[1]) == 0 and 2 <= side // (strides[0] * strides[1]) <= 7
        x = torch.rand(2, 3, side, side)
        z = FrameEncoder(4, (3, side, side)).statistics(x)["loc"]
        assert FrameDecoder(4, (3, side, side)).frames(z).shape == x.shape
    with pytest.raises(ConfigError, match=r"^frame_shape: .*divisors in common.*got \(3, 97, 61\); crop or resize"):
        FrameEncoder(4, (3, 97, 61))
    assert FrameEncoder(4, (3, 97, 61), strides=(1, 1)).latent_dim == 4
