"""The numbers of a diagnosis that runs are compared by; ``advice`` says in sentences what all of them mean."""

from gtm_pyro.inference.capabilities import Capability
from gtm_pyro.tasks.base import Measure, Truth

_PATH = Capability.PATH

MEASURES = (
    Measure(
        "khat_median", "k-hat, median", "Pareto k-hat of the guide's path: below 0.7 it is a good proposal",
        better="lower", needs=(_PATH,), form=".2f", column="k-hat", command="diagnose",
    ),
    Measure(
        "khat_share_above_0.7", "k-hat over 0.7", "share of episodes",
        better="lower", needs=(_PATH,), form=".2f", column="k-hat > 0.7", command="diagnose",
    ),
    Measure(
        "coverage_90", "coverage of 90% regions", "share of true positions inside the guide's 90% regions",
        needs=(_PATH, Truth.POSES), form=".2f", column="coverage 90%", command="diagnose",
    ),
)  # fmt: skip
