"""A whole folder of shards as one batch."""

import os
from typing import Any

from gtm_pyro.episodes import Episodes, concatenate
from gtm_pyro.storage.shards import find_shards


def loaded(directory: str | os.PathLike[str], **said: Any) -> Episodes:
    return concatenate([Episodes.load(path, **said) for path in find_shards(directory)])
