"""No step of a training asks an accelerator for a number, nor waits until one has been copied there.

The device "meta" stands in for an accelerator: it takes every branch that a GPU takes, and refuses to tell a value.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gtm_pyro.episodes import Episodes
from gtm_pyro.evaluation.evaluation import _run
from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import read_experiment
from gtm_pyro.inference.randomness import module_parameters
from gtm_pyro.tasks import LabyrinthRotation
from gtm_pyro.training.learner import Learner
from gtm_pyro.training.stages import LearningRates

BATCH, TAU, TOTAL = 3, 33, 41
RAYCASTER = {"data.engine": "raycaster", "data.workers": "0"}
EXPERIMENTS = [
    ("image-navigation", {}),
    ("labyrinth-rotation-gpu", RAYCASTER),
    ("labyrinth-walk-gpu", RAYCASTER),
]


def caller() -> str:
    """The line of this repository that is being run."""
    frames = [frame for frame in traceback.extract_stack() if "site-packages" not in frame.filename]
    return next(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames) if frame.filename != __file__)


class Copies(TorchDispatchMode):
    """Notes operations between devices for which the host waits."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        devices = {x.device.type for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
        if len(devices) > 1 and not kwargs.get("non_blocking"):
            self.found.append(f"{func} in {caller()}")
        return out


class Numbers(TorchFunctionMode):
    """Notes tensors that are made of Python's numbers: these are copied, and the host waits, unseen by the other."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and not isinstance(args[-1], Tensor)
        if made and out.device.type == "meta":
            self.found.append(f"{func} in {caller()}")
        return out


@contextmanager
def crossings() -> Iterator[list[str]]:
    found: list[str] = []
    with Copies(found), Numbers(found):
        yield found


def episodes_of(data: Any) -> Episodes:
    pose_dim = 3 if data.frame_shape[1] == 32 else 2
    return Episodes(
        torch.zeros(BATCH, TOTAL, *data.frame_shape, device="meta"),
        torch.zeros(BATCH, TOTAL, data.action_dim, device="meta"),
        TAU,
        torch.zeros(BATCH, TOTAL, pose_dim, device="meta"),
        pose_names=("x", "y", "heading")[:pose_dim],
        validate=False,
    )


def on_meta(name: str, overrides: dict[str, str]) -> tuple[Any, Learner]:
    experiment = resolve(read_experiment(name), overrides).build()
    model: Any = experiment.model
    learner = Learner(model, experiment.guide, experiment.loss, LearningRates(), clip_norm=1e4)
    model.to("meta")
    learner.parameters = dict(model.named_parameters())
    slip = model.transition.slip
    model.transition._slip_read = (slip, slip._version, False)  # read once, before the first step
    return experiment, learner


@pytest.mark.parametrize(("name", "overrides"), EXPERIMENTS, ids=[name for name, _ in EXPERIMENTS])
def test_a_training_step_and_a_prediction_stay_on_the_device(name: str, overrides: dict[str, str]) -> None:
    experiment, learner = on_meta(name, overrides)
    episodes = episodes_of(experiment.data)
    for stage in experiment.stages:
        with module_parameters(learner.model, learner.guide), crossings() as found:
            loss, norm = learner.gradients(episodes, stage.reading)
        assert loss.device.type == norm.device.type == "meta" and not found
        assert all(p.grad is not None for key, p in learner.parameters.items() if key.startswith("decoder"))
    with crossings() as found, torch.no_grad(), pyro.validation_enabled(False):
        predicted = _run(experiment.model, experiment.guide, episodes)
    assert predicted.frames.device.type == "meta" and not found


def test_episodes_that_are_on_the_device_are_drawn_there() -> None:
    data = LabyrinthRotation(num_episodes=2, num_test_episodes=1, num_steps=5)
    for number in range(2):
        with crossings() as found:
            episodes = data.sample(2, num_observed=3, num_predicted=2, seed=number, device="meta")
        assert episodes.frames.device.type == "meta"
        assert bool(found) == (number == 0), "the shard itself is copied there, once"


def test_what_the_tests_above_look_for_is_noticed() -> None:
    on_device = torch.zeros(2, device="meta")
    for wait in (lambda: torch.ones(2).to("meta"), lambda: on_device.new_tensor(1.0)):
        with crossings() as found:
            wait()
        assert len(found) == 1
    with crossings() as found:
        torch.ones(2).to("meta", non_blocking=True)
        on_device.new_full((), 1.0)
    assert not found
    for read in (Tensor.item, bool, float, int, Tensor.tolist, Tensor.nonzero, Tensor.unique, Tensor.cpu):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.zeros((), device="meta"))
    # Pyro's own sum of the terms is what the learner does without
    experiment, learner = on_meta("image-navigation", {})
    with module_parameters(learner.model, learner.guide), pytest.raises(RuntimeError, match="item"):
        Trace_ELBO().differentiable_loss(learner.model, learner.guide, episodes_of(experiment.data))
