"""What is measured, drawn and said of episodes that no other task looks after."""

from collections.abc import Mapping, Sequence
from typing import Any

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.report.ground import Ground
from gtm_pyro.tasks.base import Caption, Measure, Measures, Words
from gtm_pyro.tasks.general import views, words
from gtm_pyro.tasks.general.headings import last_frames_figure, map_figure
from gtm_pyro.tasks.general.layouts import layout_under


class GeneralTask:
    """A :class:`gtm_pyro.tasks.base.Task` for any episodes, and a base for others, which say what is theirs.

    Agents with a heading get a map, their headings and words of views; others words of places; without poses, both are
    left out.
    """

    measures: Sequence[Measure] = MEASURES

    def nearness(self, data: Any) -> dict[str, Any]:
        """As the source says, if it does."""
        return {name: getattr(data, name, None) for name in ("cell_size", "view_tolerance")}

    def measure(self, data: Any, evaluation: Evaluation, *, seed: int) -> Measures:
        """Nothing that others do not measure."""
        return Measures({}, {})

    def ground(self, data: Any, evaluation: Evaluation, *, seed: int, episode: int) -> Ground | None:
        """The free cells of its world, where the source has :meth:`~gtm_pyro.tasks.SavedEpisodes.layouts` of them."""
        episodes = evaluation.episodes
        if episodes.poses is None or not episodes.has_heading or not hasattr(data, "layouts"):
            return None
        found = data.layouts(
            episodes.batch_size,
            num_observed=episodes.num_observed,
            num_predicted=episodes.num_predicted,
            seed=seed,
            split="test",
        )
        free = found[episode]
        return None if free is None else layout_under(free, episodes.poses[episode, :, :2].numpy())

    def figures(self, evaluation: Evaluation, episode: int, ground: Ground | None) -> Mapping[str, Any]:
        """Maps and last frames of agents with a heading."""
        return {
            "map": map_figure(evaluation, ground, episode),
            "last_frames": last_frames_figure(evaluation, episode),
        }

    def captions(self, metrics: Mapping[str, float]) -> tuple[Caption, ...]:
        """In the order in which a reader wants them."""
        return views.captions(metrics) if views.has_views(metrics) else words.FIGURES

    def sentences(self, metrics: Mapping[str, float]) -> list[str]:
        """What the numbers say."""
        return views.sentences(metrics) if views.has_views(metrics) else words.sentences(metrics)

    def words(self, metrics: Mapping[str, float]) -> Words:
        headed, measures = views.has_views(metrics), self.measures
        if headed and views.turns_in_place(metrics):
            measures = [measure for measure in measures if not views.is_about_positions(measure.name)]
        bars, note = views.bars(metrics) if headed else words.bars(metrics)
        terms = views.VIEWS if headed else words.PLACES
        return Words(measures, terms, self.sentences(metrics), self.captions(metrics), bars, note)
