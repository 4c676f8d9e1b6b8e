"""Pictures of digits, some of which are kept for testing."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gtm_pyro.errors import MissingDependencyError
from gtm_pyro.tasks.base import Split

TEST_FRACTION = 0.2
_SEED = 0


@lru_cache(maxsize=1)
def _all() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError('the digits come with scikit-learn: pip install "gtm-pyro[digits]"') from None
    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.float32) / 16).unsqueeze(1)
    return images, torch.from_numpy(found.target.astype(np.int64))


def digits(split: Split) -> tuple[Tensor, Tensor]:
    """The 1,797 digits of scikit-learn, of which a fifth, drawn once, is for testing.

    :returns: images ``(number, 1, 8, 8)`` in [0, 1], and their labels ``(number,)``, 0 to 9.
    :raises MissingDependencyError: scikit-learn is not installed.
    """
    images, labels = _all()
    order = torch.from_numpy(np.random.default_rng(_SEED).permutation(len(images)))
    held_out = round(TEST_FRACTION * len(images))
    chosen = order[:held_out] if split == "test" else order[held_out:]
    return images[chosen], labels[chosen]
