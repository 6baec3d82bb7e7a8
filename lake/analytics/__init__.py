"""Analyses of a table's vectors, on top of the kNN join."""

from lake.analytics.calibrate import calibrate, calibrate_new
from lake.analytics.classify import classify
from lake.analytics.cluster import cluster
from lake.analytics.dedup import dedup
from lake.analytics.drift import drift
from lake.analytics.drifted import DriftReport
from lake.analytics.mine import mine
from lake.analytics.outliers import outliers
from lake.analytics.report import DedupReport
from lake.analytics.reports import ClassifyReport, MineReport, OutlierReport
from lake.analytics.sizes import ClusterReport

__all__ = ["dedup", "DedupReport", "outliers", "OutlierReport", "classify", "ClassifyReport", "mine", "MineReport"]
__all__ += ["cluster", "ClusterReport", "drift", "DriftReport", "calibrate", "calibrate_new"]
