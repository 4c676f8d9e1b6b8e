"""Sequences of digits in which earlier ones come again: Gemici et al. 2017, sections 5.1 to 5.5 and appendix D."""

from gtm_pyro.tasks.recall.source import PerfectRecall

__all__ = ["PerfectRecall"]
