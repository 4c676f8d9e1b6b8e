"""Whether two candidates for displacements are the same map."""

import torch
from torch import Tensor, nn

from gtm_pyro.initialisation.memory_fit import Keys, Seen, Values, clearly_better, fit_of, standard_errors
from gtm_pyro.initialisation.transition_search import Found
from gtm_pyro.transitions import RotatingTranslation

# a squared difference of a map's displacements from another's, relative to them, up to which they are the same
SAME_MAP = 0.15
_NONE = 1e-6
_EPISODES = 8


class _Controls(nn.Module):
    def __init__(self, transition: RotatingTranslation) -> None:
        super().__init__()
        self.transition = transition

    def forward(self, actions: Tensor) -> Tensor:
        return self.transition.controls(actions)


def with_second(transition: RotatingTranslation, found: Found, evidence: Seen, keys: Keys) -> Found:
    """With the best of all candidates that were tried and are another map as the second one, or in the first place.

    It is compared with the best candidate for the same map, which may follow another point of the agent.
    """
    different = map_difference(transition, found.tried, found.values, evidence.first(_EPISODES).actions) > SAME_MAP
    if not bool(different.any()):
        return found
    scores = fit_of(transition, evidence, keys, found.tried)
    relative = torch.cat([evidence.relative(scores), evidence.relative(found.scores).unsqueeze(0)])
    different = torch.cat([different, different.new_zeros(1)])
    first, second = (
        int(relative.mean(-1).masked_fill(left_out, torch.inf).argmin()) for left_out in (different, ~different)
    )
    behind = relative[second] - relative[first]
    values = {name: value[second] for name, value in found.tried.items()}
    if clearly_better(-behind):
        return with_second(transition, found._replace(values=values, scores=scores[second]), evidence, keys)
    return found._replace(
        other=values, second=float(scores[second].mean()), lead=standard_errors(behind), clear=clearly_better(behind)
    )


@torch.no_grad()
def map_difference(
    transition: RotatingTranslation, candidates: Values, best: Values, actions: Tensor, chunk: int = 64
) -> Tensor:
    """How differently agents move and turn under each candidate, ``(N,)``: 0 for the same map, about 1 for any other.

    The squared difference of moves, and of turns as points of a circle, relative to their squares; the larger one.
    Nothing in an episode tells maps apart that are each other's mirror image, whose moves have another length or are
    all turned by one angle, or that follow another point of the agent. A candidate that adds moves to a map without any
    is the same map, and so with turns.

    :param candidates: parameters by name, each ``(N, ...)``.
    :param best: what they are compared with.
    :param actions: ``(batch, T, action_dim)``.
    """
    module = _Controls(transition)
    fixed = {f"transition.{name}": t for name, t in (*transition.named_parameters(), *transition.named_buffers())}

    def steps(values: Values) -> Tensor:
        own = {f"transition.{name}": value for name, value in values.items()}
        controls: Tensor = torch.func.functional_call(module, {**fixed, **own}, (actions,))
        return controls[..., 1:, :]

    move, turn = _moves_and_turns(steps(best))
    found = []
    for first in range(0, len(next(iter(candidates.values()))), chunk):
        part = {name: value[first : first + chunk] for name, value in candidates.items()}
        moves, turns = _moves_and_turns(torch.func.vmap(steps)(part))
        mirrored = [
            torch.maximum(_unlike_moves(moves, m), _unlike_turns(turns, t))
            for m, t in ((move, turn), (move.conj(), turn.conj()))
        ]
        found.append(torch.minimum(*mirrored).mean(-1))
    return torch.cat(found)


def _moves_and_turns(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Complex numbers ``(..., batch, T - 1)``: moves, without what follows from turns about another point of the agent;
    and turns, on the unit circle."""
    move, turn = torch.complex(steps[..., 0], steps[..., 1]), torch.polar(torch.ones_like(steps[..., 2]), steps[..., 2])
    about = turn - 1
    point = (about.conj() * move).sum((-1, -2)) / about.abs().square().sum((-1, -2)).clamp_min(_NONE)
    return move - point[..., None, None] * about, turn


def _unlike_moves(moves: Tensor, best: Tensor) -> Tensor:
    power, own = moves.abs().square().sum(-1), best.abs().square().sum(-1)
    if float(own.mean()) <= _NONE * best.shape[-1]:
        return torch.zeros_like(power)
    shared = (moves * best.conj()).sum(-1).abs().square() / (power * own).clamp_min(1e-30)
    return torch.where(power > _NONE * own.mean(), 1 - shared, 1.0) * own / own.mean()


def _unlike_turns(turns: Tensor, best: Tensor) -> Tensor:
    own = (best - 1).abs().square().sum(-1).mean()
    unlike = (turns - best).abs().square().sum(-1)
    return torch.zeros_like(unlike) if float(own) <= _NONE * best.shape[-1] else unlike / own
