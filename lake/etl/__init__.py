"""Loads: rows of files, tables and engines, transformed and checked, into a table, exactly once."""

from lake.etl.loading import load
from lake.etl.report import LoadReport
from lake.etl.spec import Deduplicate, Into, Load, Refused, Source, Transform, Vector

__all__ = ["Deduplicate", "Into", "Load", "LoadReport", "Refused", "Source", "Transform", "Vector", "load"]
