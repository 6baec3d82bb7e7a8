"""Indexes: declared in the manifest, built by jobs, never in the way of a write.

`declare` says what should be, `build` brings it about, `coverage` tells what is. Whatever an index does not
cover yet is scanned by searches, so an index changes how fast an answer comes, and never which.
"""

from lake.index.build import BuildFailed, build
from lake.index.calibration import Calibration, Point, calibration, model_of, record
from lake.index.coverage import CoverageTable, IndexCoverage, coverage
from lake.index.declare import declare, declared, redeclare, require_unindexed, undeclare
from lake.index.report import BuildReport, IndexReport
from lake.index.spec import IndexSpec

__all__ = [
    "declare",
    "undeclare",
    "redeclare",
    "declared",
    "require_unindexed",
    "IndexSpec",
    "build",
    "BuildReport",
    "IndexReport",
    "BuildFailed",
    "coverage",
    "CoverageTable",
    "IndexCoverage",
    "Calibration",
    "Point",
    "calibration",
    "model_of",
    "record",
]
