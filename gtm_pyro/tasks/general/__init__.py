"""The task of episodes that name none: recorded ones, a user's own."""

from gtm_pyro.tasks.general.task import GeneralTask

__all__ = ["GeneralTask"]
