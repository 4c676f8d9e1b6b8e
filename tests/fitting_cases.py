"""A training small enough for tests: 16 steps an episode, two episodes a batch, about 10 ms a step."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.inference.randomness import Purpose, derived_seed
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading
from gtm_pyro.storage.interrupts import Interrupted
from gtm_pyro.tasks import ImageNavigation
from gtm_pyro.training.fitting import Run, fit
from gtm_pyro.training.stages import Stage
from gtm_pyro.transitions import WalledTranslation

STAGES = (
    Stage(8, batch_size=2, num_observed=8, num_predicted=8, reading=Reading("others", "all")),
    Stage(12, batch_size=2, num_observed=12, num_predicted=4, reading=Reading("predicted", 3)),
)
SHORT = STAGES[:1]
TOTAL = 20
DATA = ImageNavigation(cuts_per_image=4)


class HookedData:
    """Image navigation that calls ``hook(seed, episodes)``, which may return other episodes, or None."""

    action_names, action_dim, frame_shape = ImageNavigation.action_names, ImageNavigation.action_dim, (3, 8, 8)

    def __init__(self, hook: Any = None) -> None:
        self.hook, self.calls = hook, 0

    def sample(self, *args: Any, **kwargs: Any) -> Episodes:
        episodes = DATA.sample(*args, **kwargs)
        self.calls += 1
        changed = self.hook(kwargs["seed"], episodes) if self.hook else None
        return episodes if changed is None else changed


def at_step(step: int, action: Callable[[Episodes], Episodes | None]) -> HookedData:
    """Data that calls ``action(episodes)`` in one step of a run with seed 0."""
    wanted = derived_seed(0, step - 1, Purpose.STEP)
    return HookedData(lambda seed, episodes: action(episodes) if seed == wanted else None)


def stopping_at(step: int, signum: int = signal.SIGTERM) -> HookedData:
    """Sends a signal to this process while a step is taken."""
    return at_step(step, lambda _: os.kill(os.getpid(), signum))


class QuickGTMSM(GTMSM):
    """Starts from random displacements, where the loop closure of a real run takes half a second."""

    def initialise(self, episodes: Episodes) -> None:
        with torch.no_grad():
            self.transition.displacement.normal_(0, 0.5)


def programs(seed: int = 0, latent_dim: int = 4) -> tuple[GTMSM, DeadReckoning]:
    torch.manual_seed(seed)
    model = QuickGTMSM(
        WalledTranslation(5),
        encoder=FrameEncoder(latent_dim, channels=(8, 4)),
        decoder=FrameDecoder(latent_dim, channels=(4, 8)),
    )
    return model, DeadReckoning(model)


def train(data: HookedData | None = None, seed: int = 0, model_seed: int = 0, **settings: Any) -> Run:
    settings = {"stages": STAGES, "checkpoint_every": 3, "log_every": 2, "progress": False, **settings}
    return fit(*programs(model_seed), data or HookedData(), seed=seed, **settings)


def parameters(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def assert_same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert mine.keys() == theirs.keys()
    differ = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert not differ, differ


def main(out: Path) -> None:
    """A slow training in a process of its own, to be killed."""
    torch.set_num_threads(1)
    try:
        train(HookedData(lambda seed, episodes: time.sleep(0.1)), out=out)
    except Interrupted as error:
        print(error, file=sys.stderr)
        os._exit(error.exit_status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
