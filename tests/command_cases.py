"""A run small enough for tests of the commands: six training steps, three held-out episodes."""

from collections.abc import Callable

SMALL = (
    "--stages", "[{steps: 4, batch_size: 8, num_observed: 12, num_predicted: 4}, "
    "{steps: 2, batch_size: 8, num_observed: 16, num_predicted: 4}]",
    "--checkpoint_every", "2", "--log_every", "1", "--data.cuts_per_image", "4",
    "--evaluation.num_episodes", "3", "--evaluation.num_observed", "24", "--evaluation.num_predicted", "36",
    "--evaluation.posterior_episodes", "1", "--evaluation.posterior_samples", "2",
)  # fmt: skip

MY_GUIDE = '''
from gtm_pyro.guides import DeadReckoning

class MyGuide(DeadReckoning):
    """Dead reckoning with an argument of its own."""
    def __init__(self, model, strength: float = 1.0) -> None:
        super().__init__(model)
        self.strength = strength
'''

Fails = Callable[..., str]
