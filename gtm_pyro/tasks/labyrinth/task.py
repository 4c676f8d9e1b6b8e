"""What is measured, drawn and said of agents in labyrinths."""

from collections.abc import Mapping
from typing import Any

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.report.ground import Ground
from gtm_pyro.tasks.base import Caption, Measures
from gtm_pyro.tasks.general import GeneralTask
from gtm_pyro.tasks.general.words import with_captions
from gtm_pyro.tasks.labyrinth.map_figure import LabyrinthGround
from gtm_pyro.tasks.labyrinth.room_figure import rooms_figure
from gtm_pyro.tasks.labyrinth.room_measures import room_measures
from gtm_pyro.tasks.labyrinth.room_words import ROOM_FIGURE, ROOM_MEASURES, room_sentences

_SEEN = (
    "The episode of the rollout, seen from above: walls, floors, pillars (dark) and things (dots) in the mean colours "
    "of their textures. "
)


class LabyrinthTask(GeneralTask):
    """One room, seen through the eyes of an agent with a heading; its map is known."""

    def ground(self, data: Any, evaluation: Evaluation, *, seed: int, episode: int) -> Ground | None:
        """The labyrinth of one episode, where the source tells."""
        if not hasattr(data, "worlds"):
            return None
        return LabyrinthGround(data.worlds(len(evaluation.episodes), seed=seed, split="test")[episode])

    def captions(self, metrics: Mapping[str, float]) -> tuple[Caption, ...]:
        captions = super().captions(metrics)
        maps = [caption for caption in captions if caption.file == "map.png"]
        seen = [caption._replace(caption=_SEEN + caption.caption.partition(". ")[2]) for caption in maps]
        return with_captions(captions, *seen)


class RoomsTask(LabyrinthTask):
    """Several rooms: whether a predicted frame is of the right one is measured too."""

    measures = (*ROOM_MEASURES, *MEASURES)

    def measure(self, data: Any, evaluation: Evaluation, *, seed: int) -> Measures:
        """Whether predicted frames are of the right room; see ``room_measures``, which classifies them."""
        if not hasattr(data, "worlds"):
            return super().measure(data, evaluation, seed=seed)
        worlds = data.worlds(len(evaluation.episodes), seed=seed, split="test")
        return room_measures(evaluation, worlds, seed=seed, view_tolerance=data.view_tolerance)

    def figures(self, evaluation: Evaluation, episode: int, ground: Ground | None) -> Mapping[str, Any]:
        return {**super().figures(evaluation, episode, ground), "rooms": rooms_figure(evaluation)}

    def captions(self, metrics: Mapping[str, float]) -> tuple[Caption, ...]:
        captions = super().captions(metrics)
        if "room_accuracy" not in metrics:
            return captions
        place = next((i for i, caption in enumerate(captions) if caption.file == "horizon.png"), len(captions) - 1) + 1
        return (*captions[:place], ROOM_FIGURE, *captions[place:])

    def sentences(self, metrics: Mapping[str, float]) -> list[str]:
        return super().sentences(metrics) + room_sentences(metrics)
