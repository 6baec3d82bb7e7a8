"""The command line: ``lake``."""

from lake.cli.main import main

__all__ = ["main"]
