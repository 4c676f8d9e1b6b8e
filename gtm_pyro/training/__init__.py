"""Fitting: stages, their loop, and its checks."""
