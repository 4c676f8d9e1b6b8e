"""What is measured of models that recall."""

from gtm_pyro.evaluation.evaluation import Evaluation
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.inference.capabilities import Capability
from gtm_pyro.tasks.base import Measure, Measures
from gtm_pyro.tasks.general import GeneralTask

RECALL_MEASURES = (
    Measure(
        "recall_accuracy",
        "right item recalled",
        "share of recalled frames that look more like the item that was to be recalled than like any other memorised",
        better="higher",
        needs=(Capability.IMAGINES,),
        form=".4f",
        column="recalled",
    ),
    Measure(
        "kl_recall_ratio",
        "KL in recall over before",
        "KL of posterior and prior, mean of recalled steps over mean of memorised ones; 0 where memory tells all",
        better="lower",
        needs=(Capability.KL_STEPS,),
        form=".3f",
        column="KL ratio",
    ),
    Measure(
        "kl_last_step",
        "KL of the last step",
        "KL of posterior and prior at the step that is the most predictable",
        unit="nats",
        better="lower",
        needs=(Capability.KL_STEPS,),
        form=".2f",
        column="KL last",
    ),
)


class RecallTask(GeneralTask):
    """The predicted steps show memorised frames again, in the order of their first appearance."""

    measures = (*RECALL_MEASURES, *MEASURES)

    def measure(self, data: object, evaluation: Evaluation, *, seed: int) -> Measures:
        """Whether the right item is recalled, and what the memory saves of the KL divergence."""
        episodes, metrics = evaluation.episodes, {}
        if evaluation.predicted_frames is not None:
            shown, items = (x.flatten(2) for x in (evaluation.predicted_frames, episodes.observed.frames))
            apart = (shown.unsqueeze(2) - items.unsqueeze(1)).square().sum(-1)
            # a digit that was drawn twice is right whichever of the two it is
            right = apart.diagonal(dim1=1, dim2=2) <= apart.amin(-1)
            metrics["recall_accuracy"] = float(right.double().mean())
        if evaluation.kl_steps is not None:
            before, recalled = evaluation.kl_steps.double().tensor_split([episodes.num_observed], 1)
            metrics["kl_recall_ratio"] = float(recalled.mean() / before.mean())
            metrics["kl_last_step"] = float(recalled[:, -1].mean())
        return Measures(metrics, {})
