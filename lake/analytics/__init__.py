"""Analyses of a table's vectors, on top of the kNN join."""

from lake.analytics.classify import ClassifyReport, classify
from lake.analytics.dedup import dedup
from lake.analytics.mine import MineReport, mine
from lake.analytics.outliers import OutlierReport, outliers
from lake.analytics.report import DedupReport

__all__ = ["dedup", "DedupReport", "outliers", "OutlierReport", "classify", "ClassifyReport", "mine", "MineReport"]
