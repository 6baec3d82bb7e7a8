"""Batch kNN joins: every row of one table, its nearest rows in another."""

from lake.join.api import knn_join
from lake.join.plan import Plan
from lake.join.recall import Recall
from lake.join.report import Forecast, JoinReport
from lake.join.result import JoinResult

__all__ = ["knn_join", "JoinResult", "JoinReport", "Forecast", "Plan", "Recall"]
