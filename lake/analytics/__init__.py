"""Analyses of a table's vectors, on top of the kNN join."""

from lake.analytics.dedup import dedup
from lake.analytics.report import DedupReport

__all__ = ["dedup", "DedupReport"]
