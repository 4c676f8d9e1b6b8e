"""What is said of walks on images; what is measured and drawn is what any episodes have."""

from collections.abc import Mapping

from gtm_pyro.tasks.base import Caption
from gtm_pyro.tasks.general import GeneralTask
from gtm_pyro.tasks.general.words import with_captions

_ROLLOUT = Caption(
    "rollout.gif",
    "A rollout",
    "One held-out episode after memorisation. The model sees actions only. Left: where the agent is (blue, "
    "with its crop) and where the model believes it to be (orange, inside the blue dot where both agree). "
    "Right: what the agent sees and what the model predicts.",
)
_WALK = Caption(
    "walk.png",
    "The walk",
    "Where the agent really went, on the image it walked on. Positions are spread a little, so that "
    "several passes through one cell can be told apart.",
)


class ImageNavigationTask(GeneralTask):
    """Crops of images, with the image known."""

    def captions(self, metrics: Mapping[str, float]) -> tuple[Caption, ...]:
        return with_captions(super().captions(metrics), _ROLLOUT, _WALK)
