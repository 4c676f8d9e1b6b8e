"""A sound guide of the tractable twin, and guides that are broken in one way each."""

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from gtm_pyro.episodes import Episodes
from gtm_pyro.models import LinearGaussian
from gtm_pyro.reading import Reading


class Guide(PyroModule):
    """A sound guide of the twin, with a parameter of its own; the broken ones below change one thing of it."""

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__()
        self._model = (model,)
        self.shift = nn.Parameter(torch.tensor([0.1, -0.1]))
        self.register_buffer("width", torch.tensor(1.5))

    def start(self) -> Tensor:
        return self.shift

    def s(self, episodes: Episodes) -> Any:
        """A walk with wider steps."""
        model = self._model[0]
        path = model.path(episodes.actions)
        path.initial = dist.Normal(self.start(), self.width).to_event(1).expand(path.batch_shape)
        return path

    def z(self, frames: Tensor, s: Tensor) -> Any:
        return self._model[0].encode(frames, s)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        scored = (reading or self._model[0].reading).scored_steps(episodes)
        frames = episodes.frames[:, scored]
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("s", self.s(episodes)).squeeze(-3)
            with pyro.plate("steps", frames.shape[1], dim=-1):
                pyro.sample("z", self.z(frames, s[..., scored, :]))


class OtherArguments(Guide):
    def forward(self, episodes: Episodes, mode: str | None = None) -> None:
        super().forward(episodes)


class OneArgument(Guide):
    def forward(self, episodes: Episodes) -> None:
        super().forward(episodes)


class LacksZ(Guide):
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            pyro.sample("s", self.s(episodes))


class OneSiteMore(Guide):
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        pyro.sample("speed", dist.Normal(0.0, 1.0))
        super().forward(episodes, reading)


class Auxiliary(Guide):
    """Sound: Pyro's way to say that a site is the guide's own."""

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        pyro.sample("speed", dist.Normal(torch.zeros_like(self.width), 1.0), infer={"is_auxiliary": True})
        super().forward(episodes, reading)


class ShortZ(Guide):
    def z(self, frames: Tensor, s: Tensor) -> Any:
        q = super().z(frames, s).base_dist
        return dist.Normal(q.loc[..., :3], q.scale[..., :3]).to_event(1)


class PathInBatch(Guide):
    """The path's time as a batch dimension."""

    def s(self, episodes: Episodes) -> Any:
        batch, steps = episodes.actions.shape[:2]
        return dist.Normal(torch.zeros(batch, steps, 2), 1.0).to_event(1)

    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        scored = (reading or self._model[0].reading).scored_steps(episodes)
        frames = episodes.frames[:, scored]
        s = pyro.sample("s", self.s(episodes).to_event(2))
        with pyro.plate("episodes", episodes.batch_size, dim=-2), pyro.plate("steps", frames.shape[1], dim=-1):
            pyro.sample("z", self.z(frames, s[:, scored]))


class PositiveZ(Guide):
    def z(self, frames: Tensor, s: Tensor) -> Any:
        return dist.LogNormal(super().z(frames, s).mean, 1.0).to_event(1)


class BoundedZ(Guide):
    def z(self, frames: Tensor, s: Tensor) -> Any:
        return dist.Uniform(super().z(frames, s).mean - 1, 1e3, validate_args=False).to_event(1)


class OtherPlate(Guide):
    def forward(self, episodes: Episodes, reading: Reading | None = None) -> None:
        frames = episodes.frames[:, (reading or self._model[0].reading).scored_steps(episodes)]
        with pyro.plate("episodes", episodes.batch_size, dim=-2):
            s = pyro.sample("s", self.s(episodes)).squeeze(-3)
            with pyro.plate("times", frames.shape[1], dim=-1):
                pyro.sample("z", self.z(frames, s[..., -frames.shape[1] :, :]))


class Warns(Guide):
    def z(self, frames: Tensor, s: Tensor) -> Any:
        warnings.warn("a step is thrown away", stacklevel=1)
        return super().z(frames, s)


class Fails(Guide):
    def z(self, frames: Tensor, s: Tensor) -> Any:
        raise KeyError("place")


class NotANumber(dist.Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) * torch.nan


class OffByAConstant(dist.Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - 0.1


class OffByMuch(dist.Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - 10.0


class DrawsTooWide(dist.Normal):
    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc + 1.3 * (super().rsample(sample_shape) - self.loc)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.rsample(sample_shape).detach()


class DrawsAreAllOne(dist.Normal):
    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc.expand(self._extended_shape(sample_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.rsample(sample_shape).detach()


class SharedNoise(dist.Normal):
    """Of all particles in one more dimension."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc + self.scale * torch.randn(self._extended_shape(sample_shape)[-4:], dtype=self.loc.dtype)


class Detached(dist.Normal):
    """Draws whose gradient is lost on the way."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc.detach() + self.scale * torch.randn_like(self.loc.expand(self._extended_shape(sample_shape)))


class NotReparameterised(dist.Normal):
    has_rsample = False


class WrongShape(dist.Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value).mean(0, keepdim=True).unsqueeze(0)


def z_as(kind: type) -> type[Guide]:
    """A guide whose z is normal in name, of the given class."""

    class Changed(Guide):
        def z(self, frames: Tensor, s: Tensor) -> Any:
            q = super().z(frames, s).base_dist
            return kind(q.loc + self.shift.sum(), 1.5 * q.scale).to_event(1)

    Changed.__name__ = kind.__name__
    return Changed


class UnusedParameter(Guide):
    def __init__(self, model: LinearGaussian) -> None:
        super().__init__(model)
        self.spare = nn.Parameter(torch.zeros(3))


class InfiniteGradient(Guide):
    def start(self) -> Tensor:
        return self.shift + (self.shift - self.shift.detach()).sqrt()


class WrongGradient(Guide):
    def start(self) -> Tensor:
        return 2 * self.shift - self.shift.detach()


class Counts(Guide):
    calls = 0

    def start(self) -> Tensor:
        self.calls += 1
        return self.shift


class DriftsWithCalls(Guide):
    """Counts in a list, which is the same list afterwards."""

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__(model)
        self.calls: list[int] = [0]

    def start(self) -> Tensor:
        self.calls[0] += 1
        return self.shift * self.calls[0]


class OwnNoise(Guide):
    """Draws that no seed governs."""

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__(model)
        self.generator = [torch.Generator()]

    def __deepcopy__(self, memo: Any) -> "OwnNoise":
        return OwnNoise(memo.get(id(self._model[0]), self._model[0]))

    def start(self) -> Tensor:
        return self.shift + torch.randn(2, generator=self.generator[0])


class RemembersEpisodes(Guide):
    """Keeps what it computed for the first episodes that it saw."""

    def z(self, frames: Tensor, s: Tensor) -> Any:
        if not hasattr(self, "kept"):
            self.kept = frames[0, 0].mean().item()
        q = super().z(frames, s).base_dist
        return dist.Normal(q.loc + self.kept, q.scale).to_event(1)


class PlainTensor(Guide):
    def __init__(self, model: LinearGaussian) -> None:
        super().__init__(model)
        self.offset = torch.tensor([0.3, 0.4])

    def start(self) -> Tensor:
        return self.shift + self.offset


class NotSaved(Guide):
    """Starts elsewhere in every new pair, and does not write down where."""

    number = 0

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__(model)
        NotSaved.number += 1
        self.where = float(NotSaved.number)

    def start(self) -> Tensor:
        return self.shift + self.where


class TiedCopies(Guide):
    def __deepcopy__(self, memo: Any) -> "TiedCopies":
        return self


class SinglePrecisionSite(Guide):
    def s(self, episodes: Episodes) -> Any:
        return dist.Normal(torch.zeros(len(episodes), 1, episodes.num_steps, 2), 1.0).to_event(2)

    def z(self, frames: Tensor, s: Tensor) -> Any:
        return super().z(frames, s.to(frames.dtype))


class SharedPath(Guide):
    def s(self, episodes: Episodes) -> Any:
        loc = torch.zeros(len(episodes), 1, episodes.num_steps, 2, dtype=self.shift.dtype)
        return SharedNoise(loc, self.width).to_event(2)


class LeaksAcrossParticles(Guide):
    """Scores each particle with the mean of all."""

    def z(self, frames: Tensor, s: Tensor) -> Any:
        return super().z(frames, s.mean(tuple(range(s.dim() - 3)), keepdim=True).expand_as(s) if s.dim() > 3 else s)


class LeaksAcrossEpisodes(Guide):
    """Centres frames by the mean of the batch."""

    def z(self, frames: Tensor, s: Tensor) -> Any:
        return super().z(frames - frames.mean(0), s)


class DefaultDevice(Guide):
    def start(self) -> Tensor:
        return self.shift + torch.zeros(2, dtype=self.shift.dtype)
