"""Starting values, found from frames and actions: strategies that a training is given."""

from gtm_pyro.initialisation.automatic import Automatic
from gtm_pyro.initialisation.flow import FlowSearch
from gtm_pyro.initialisation.rotation import MemorySearch
from gtm_pyro.initialisation.translation import LoopClosure

__all__ = ["Automatic", "FlowSearch", "LoopClosure", "MemorySearch"]
