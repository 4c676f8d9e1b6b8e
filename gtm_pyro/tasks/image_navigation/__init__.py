"""Walks over a large image that is seen through a small window."""

from gtm_pyro.tasks.image_navigation.source import ImageNavigation

__all__ = ["ImageNavigation"]
