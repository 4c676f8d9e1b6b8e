"""Where the agent may have been: the likeliest sequences of executed actions, given actions and landmarks.

An agent that slips leaves many explanations of what it saw: this action or that one was not carried out. Each
explanation, a hypothesis, places every step and so makes a map of its own; later frames tell the hypotheses apart, and
with a hypothesis its whole past stands or falls. In a discrete space of hypotheses the best particle filter follows
every continuation of every particle and keeps the heaviest (Fearnhead & Clifford 2003); here each also carries the
variance of its position, so that it is a Kalman filter where there is a single continuation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gtm_pyro.errors import ConfigError
from gtm_pyro.localisation.explanations import Hypotheses, SearchSettings, Steps
from gtm_pyro.localisation.landmarks import Landmarks
from gtm_pyro.localisation.moves import one_hot, turning_radius, typical_move
from gtm_pyro.transitions import Transition


@dataclass(frozen=True)
class HypothesisSearch(SearchSettings):
    """The search; :class:`SearchSettings` says what its arguments mean."""

    @torch.no_grad()
    def __call__(
        self,
        transition: Transition,
        actions: Tensor,
        landmarks: Landmarks,
        start: Tensor,
        start_variance: Tensor,
        anywhere: bool = False,
    ) -> Hypotheses:
        """Search, one episode of the batch like the other, on the CPU.

        The steps are compiled by numba in the first call, which takes ten seconds or more; a cache keeps the result.

        :param actions: ``(batch, T, action_dim)``. One-hot actions may be replaced by one another, with probability
            ``transition.slip``; others, or a single one, are as commanded, or a jump to a landmark.
            An agent with a heading must not slip: what a replaced action does depends on those before it.
        :param start: mean of s_1, ``(batch, state_dim)``.
        :param start_variance: of each of its coordinates, ``(batch,)``.
        :param anywhere: the first frame may have been taken at any of its landmarks too.
        :raises ConfigError: slips of an agent with a heading.
        """
        if transition.heading and transition.slips:
            raise ConfigError(f"slip: expected 0 for a transition with a heading, got {float(transition.slip):g}")
        from gtm_pyro.localisation.hypothesis_search import Search  # numba takes a while to import

        radius = turning_radius(transition, actions) if transition.heading else None
        move = typical_move(transition, actions, radius)
        # one-hot actions in another unit are one-hot too
        replaced = one_hot(transition.standard(actions)) & (float(transition.slip) > 0) & (actions.shape[-1] > 1)
        kinds = [which for which in (replaced, ~replaced) if bool(which.any())]
        found = []
        for which in kinds:
            rows = which.nonzero().squeeze(-1)
            part = landmarks if len(kinds) == 1 else landmarks.of(rows)
            turn = None if radius is None else radius[rows]
            one_kind = bool(replaced[rows][0])
            search = Search(self, transition, actions[rows], part, one_kind, move[rows], anywhere, turn)
            search.begin(start[rows], start_variance[rows])
            search.run()
            found.append(search.result())
        return found[0] if len(found) == 1 else _together(found, kinds)


def _together(parts: list[Hypotheses], which: list[Tensor]) -> Hypotheses:
    """What was found of the episodes ``which`` ``(batch,)``, in their order."""
    order = torch.cat([rows.nonzero().squeeze(-1) for rows in which]).argsort()

    def join(fields: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(fields))[order]

    def join_steps(fields: Sequence[Steps]) -> Steps:
        return Steps(*(join(field) for field in zip(*fields, strict=True)))

    def past(last: Tensor) -> Steps:
        return join_steps([part.past(last[rows]) for part, rows in zip(parts, which, strict=True)])

    fields = parts[0]._asdict()
    joined = {name: join([getattr(part, name) for part in parts]) for name in fields if name not in ("online", "past")}
    return Hypotheses(online=join_steps([part.online for part in parts]), past=past, **joined)
