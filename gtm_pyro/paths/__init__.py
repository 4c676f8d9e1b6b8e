"""Distributions over whole paths."""
