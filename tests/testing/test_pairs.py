"""Every pair of the repository conforms."""

from typing import Any

import pytest
from conformance_cases import GUIDES, MODELS

from gtm_pyro.episodes import Episodes
from gtm_pyro.reading import Reading
from gtm_pyro.testing import PairConformance

WITHOUT_WALLS = [guide for guide in GUIDES if guide != "FoundWalls"]  # which is DeadReckoning there
PAIRS = [("GTMSM that remembers walls", guide, Reading()) for guide in GUIDES]
OTHERS = [model for model in MODELS if model not in ("LinearGaussian", "GTMSM that remembers walls")]
PAIRS += [(model, guide, Reading()) for model in OTHERS for guide in WITHOUT_WALLS]
PAIRS += [("GTMSM", "DeadReckoning", reading) for reading in (Reading("earlier", "all"), Reading("others", 3))]
PAIRS += [("LinearGaussian", guide, Reading("earlier")) for guide in WITHOUT_WALLS]


@pytest.mark.parametrize(
    ("model_name", "guide_name", "pair_reading"), PAIRS, ids=lambda x: x.scored if isinstance(x, Reading) else x
)
class TestPairs(PairConformance):
    @pytest.fixture(autouse=True)
    def choose(self, model_name: str, guide_name: str, pair_reading: Reading) -> None:
        self.model_name, self.guide_name, self.reading = model_name, guide_name, pair_reading
        if guide_name != "DeadReckoning":
            self.constants = (
                ("start", "told_actions") if guide_name.startswith("Found") else ("hypotheses", "start", "told_actions")
            )

    def make(self) -> tuple[Any, Any, Episodes]:
        model, episodes = MODELS[self.model_name]()
        return model, GUIDES[self.guide_name](model), episodes
