"""Digits that are to be remembered, and come again."""

import torch

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError
from gtm_pyro.tasks.base import Split, check_request, seeded_generator
from gtm_pyro.tasks.recall.digits import digits


class PerfectRecall:
    """l random digits, then the first k of them again: Gemici et al. 2017, section 5.1 and algorithm 1.

    l is the number of memorised steps and k that of predicted ones, as ``sample`` is asked. Test episodes are made of
    digits that no training episode shows. There is one action, which says nothing.

    :raises MissingDependencyError: scikit-learn, which brings the digits, is not installed.
    """

    task = "gtm_pyro.tasks.recall.task.RecallTask"
    action_names: tuple[str, ...] = ("next",)
    action_dim: int = 1

    def __init__(self) -> None:
        images, _ = digits("train")
        self.frame_shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]

    def sample(
        self,
        batch_size: int,
        *,
        num_observed: int,
        num_predicted: int,
        seed: int,
        split: Split = "train",
        device: torch.device | str = "cpu",
    ) -> Episodes:
        """Draw episodes; see ``EpisodeData.sample``.

        :param num_observed: l.
        :param num_predicted: k, at most l.
        :raises ConfigError: more digits to recall than were shown.
        """
        check_request(batch_size, num_observed, num_predicted, split)
        if num_predicted > num_observed:
            raise ConfigError(
                f"num_predicted: expected at most the {num_observed} digits that are memorised, got {num_predicted}"
            )
        images, _ = digits(split)
        shown = torch.randint(len(images), (batch_size, num_observed), generator=seeded_generator(seed, split))
        index = torch.cat([shown, shown[:, :num_predicted]], 1)
        frames = images[index].to(device, torch.get_default_dtype())
        actions = torch.zeros(index.shape, dtype=torch.long, device=device)
        return Episodes(frames, actions, num_observed, num_actions=self.action_dim, validate=False)
