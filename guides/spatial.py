"""What guides of a spatial model have in common: a path for s, and q(z_t | x_t, s_t) for the scored frames."""

from collections.abc import Callable
from typing import Any, TypeVar

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.own_loops import program
from gtm_pyro.inference.parts import check_model
from gtm_pyro.inference.programs import GuidedModel
from gtm_pyro.localisation.blocked import BlockedSearch
from gtm_pyro.localisation.explanations import Hypotheses, Steps
from gtm_pyro.localisation.finding import landmarks
from gtm_pyro.localisation.hypotheses import HypothesisSearch
from gtm_pyro.localisation.similar_places import SimilarPlaces
from gtm_pyro.localisation.starts import StartSearch, unknown_starts
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.paths.fused import FusedPath, smoothing_path
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import RememberedWalls, Transition

Found = TypeVar("Found")


class SpatialGuide(PyroModule):
    """q(z, s | x, a) = q(s_{1:T} | x, a) prod_t q(z_t | x_t, s_t). A subclass gives ``path``, the first factor.

    Adds no parameters: encoder and transition belong to the model.

    :cvar starts: how an unknown first state is found.
    :cvar wall_search: how the moves are found that were blocked, for a transition that reads its walls from the memory.
    :cvar training_wall_search: the same in training mode, where the transition learns from what is found.
    """

    starts = StartSearch()
    wall_search = BlockedSearch()
    training_wall_search = BlockedSearch(trust=0.0)

    def __init__(self, model: GuidedModel) -> None:
        super().__init__()
        check_model(self, model, "path", "encode")
        self._model = (model,)  # a tuple keeps the model's parameters out of the guide's
        self._found: dict[str, tuple[Episodes, object, Any]] = {}

    @property
    def model(self) -> GuidedModel:
        return self._model[0]

    @property
    def told_transition(self) -> Transition:
        """The model's; one that reads its walls from the memory is told which moves they stopped."""
        transition: Transition = self.model.transition
        return transition.told() if isinstance(transition, RememberedWalls) else transition

    def told_actions(self, episodes: Episodes) -> Tensor:
        """Those of ``told_transition``, ``(batch, T, action_dim)``."""
        transition = self.model.transition
        if not isinstance(transition, RememberedWalls):
            return episodes.actions
        search = self.training_wall_search if self.training else self.wall_search

        def told() -> Tensor:
            blocked = search(transition, episodes.frames, episodes.actions)
            return torch.cat([episodes.actions, blocked.unsqueeze(-1).to(episodes.actions)], -1)

        return self._once("actions", episodes, search, told)

    def _once(self, name: str, episodes: Episodes, settings: object, find: Callable[[], Found]) -> Found:
        """What was found of these very episodes, while the settings and the transition are the same.

        A step of training, and a bound that draws many times, ask for the same path more than once.
        """
        transition = self.model.transition
        numbers = [*transition.parameters(), *transition.buffers()]
        if any(x.is_inference() for x in numbers):  # such tensors count no versions
            return find()
        state = settings, [(id(x), x._version) for x in numbers]
        known = self._found.get(name)
        if known is None or known[0] is not episodes or known[1] != state:
            known = self._found[name] = episodes, state, find()
        return known[2]

    def path(self, episodes: Episodes) -> TorchDistribution:
        """q(s_{1:T} | x_{1:T}, a_{1:T}): batch shape ``(batch, 1)``, event shape ``(T, state_dim)``."""
        raise NotImplementedError

    def start(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Mean of s_1, ``(batch, 1, state_dim)``, and the variance of each of its coordinates, ``(batch, 1)``.

        Those of p(s_1); where that is wider than places are apart, and walls tell where the agent is, the first state
        is found from frames and actions.
        """
        initial, transition = self.model.path(episodes.actions).initial, self.model.transition
        loc, variance = initial.mean, initial.variance[..., 0]
        unknown = unknown_starts(transition, initial, episodes.actions)
        if unknown is None or not bool(unknown.any()):
            return loc, variance
        found = self.starts(transition, episodes.frames, episodes.actions, loc.squeeze(1), variance.sqrt().squeeze(1))
        unknown = unknown.unsqueeze(1)
        # a grid's cells are so wide about its points
        narrow = (found.scale.square() / 12).unsqueeze(1)
        return torch.where(unknown.unsqueeze(2), found.loc.unsqueeze(1), loc), torch.where(unknown, narrow, variance)

    @program
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        reading = reading or self.model.reading
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("s", self.path(episodes)).squeeze(-3)
            with reading.plate(episodes) as steps:
                now = reading.chosen(episodes, steps)
                pyro.sample("z", self.model.encode(episodes.frames[:, now], s[..., now, :]))


class TrackingGuide(SpatialGuide):
    """A spatial guide that finds out where the agent was from landmarks: frames that look like earlier ones.

    :param num_hypotheses: explanations of slips that are kept at each step; their number is what a search costs.
    :param training_hypotheses: the same in training mode: the search is run in every step.
    :param kidnap: probability, at each step, of being moved to a known place without an action.
    :param memory: a map of the world made before, whose entries are the landmarks; None: the episode's own steps.
    :param anywhere: with a map, the episode may begin at any place of it.
    :ivar similar: finds the path where moves are real displacements and noisy, so that no frame repeats.
    """

    similar = SimilarPlaces()

    def __init__(
        self,
        model: GuidedModel,
        num_hypotheses: int = 256,
        training_hypotheses: int = 32,
        kidnap: float = 0.0,
        memory: SpatialMemory | None = None,
        anywhere: bool = False,
    ) -> None:
        super().__init__(model)
        self.search = HypothesisSearch(num_hypotheses, kidnap=kidnap)
        few = min(training_hypotheses, num_hypotheses)
        self.training_search = HypothesisSearch(few, kidnap=kidnap, every_look=True)
        self.memory, self.anywhere = memory, anywhere

    @torch.no_grad()
    def hypotheses(self, episodes: Episodes, start: tuple[Tensor, Tensor] | None = None) -> Hypotheses:
        """What may have happened, given all frames of ``episodes``.

        :param start: what ``start`` says of them, where that is known already.
        """
        found = landmarks(self.model, episodes.frames, self.memory)
        search = self.training_search if self.training else self.search
        loc, variance = (values.squeeze(1) for values in start or self.start(episodes))
        return search(self.told_transition, self.told_actions(episodes), found, loc, variance, self.anywhere)

    def smoothed(self, episodes: Episodes) -> FusedPath:
        """The whole past of the hypothesis that explains all frames best: batch shape ``(batch, 1)``.

        Along it, landmarks of later frames reach back as Gaussian messages. Where no frame repeats, frames that are
        alike take the place of landmarks: :mod:`gtm_pyro.localisation.similar_places`.
        """
        start = self.start(episodes)
        if self._similar(episodes):
            path = smoothing_path(self.told_transition, self._fitted(episodes, start).unsqueeze(1), *start)
            narrow = self.told_transition.scale.detach() if self.similar.move_noise else path.scale
            scale = path.scale.minimum(narrow)
            return FusedPath(self.told_transition, path.actions, path.start, path.target, path.gain, scale)
        return smoothing_path(self.told_transition, self.hypotheses(episodes, start).best, *start)

    def _fitted(self, episodes: Episodes, start: tuple[Tensor, Tensor]) -> Steps:
        loc, variance = (values.squeeze(1) for values in start)
        given = episodes.frames, self.told_actions(episodes), loc, variance

        def fitted() -> Steps:
            return self.similar(self.told_transition, *given, training=self.training)

        return self._once("steps", episodes, (self.similar, self.training), fitted)

    def _similar(self, episodes: Episodes) -> bool:
        # a known map, a jump or landmarks of a model's own are for the search
        searched = self.memory is not None or self.search.kidnap > 0 or hasattr(self.model, "landmarks")
        return not searched and self.similar.applies(self.told_transition, self.told_actions(episodes))
