"""Words in, words out: the command line."""

from gtm_pyro.cli.parser import BAD_INPUT, main

__all__ = ["BAD_INPUT", "main"]
