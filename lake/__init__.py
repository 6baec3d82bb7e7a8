"""A vector data lake: semantic wide tables, indexes and searches as open files on object storage.

>>> import lake
>>> lk = lake.connect("./demo-lake")
>>> packages = lk.create_table("packages", "packages.parquet", key="name")
>>> packages.create_index("embedding", metric="cosine")
>>> packages.build()
>>> packages.search(vector=query, where="section = 'net'", k=5)

Names are loaded when they are first used, so that ``import lake`` costs nothing.
"""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.analytics import ClassifyReport as ClassifyReport
    from lake.analytics import ClusterReport as ClusterReport
    from lake.analytics import DedupReport as DedupReport
    from lake.analytics import DriftReport as DriftReport
    from lake.analytics import MineReport as MineReport
    from lake.analytics import OutlierReport as OutlierReport
    from lake.analytics import classify as classify
    from lake.analytics import cluster as cluster
    from lake.analytics import dedup as dedup
    from lake.analytics import drift as drift
    from lake.analytics import mine as mine
    from lake.analytics import outliers as outliers
    from lake.catalog import Lake as Lake
    from lake.catalog import connect as connect
    from lake.errors import AlreadyExists as AlreadyExists
    from lake.errors import CommitUnknown as CommitUnknown
    from lake.errors import Conflict as Conflict
    from lake.errors import CorruptTable as CorruptTable
    from lake.errors import InvalidInput as InvalidInput
    from lake.errors import JobError as JobError
    from lake.errors import LakeError as LakeError
    from lake.errors import NotFound as NotFound
    from lake.errors import NotSupported as NotSupported
    from lake.errors import StorageError as StorageError
    from lake.errors import UnsafeStore as UnsafeStore
    from lake.handle import Table as Table
    from lake.join import JoinResult as JoinResult
    from lake.join import knn_join as knn_join
    from lake.schema import Column as Column
    from lake.schema import Derivation as Derivation
    from lake.schema import Embedding as Embedding
    from lake.schema import Role as Role
    from lake.schema import Schema as Schema
    from lake.schema import geo_point as geo_point
    from lake.schema import points as points
    from lake.search import Boolean as Boolean
    from lake.search import Match as Match
    from lake.search import Phrase as Phrase
    from lake.search import Result as Result
    from lake.table.receipt import Receipt as Receipt
    from lake.table.snapshot import Snapshot as Snapshot
    from lake.table.sql import Sql

    sql = Sql

try:
    __version__ = version("semlake")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0"

# Lance writes a line to stderr for every partition that a build leaves empty. It reads this when it is first used.
os.environ.setdefault("LANCE_LOG", "error")

_HOMES = {
    "connect": "lake.catalog",
    "Lake": "lake.catalog",
    "Table": "lake.handle",
    "Column": "lake.schema",
    "Derivation": "lake.schema",
    "Embedding": "lake.schema",
    "Role": "lake.schema",
    "Schema": "lake.schema",
    "geo_point": "lake.schema",
    "points": "lake.schema",
    "Receipt": "lake.table.receipt",
    "Snapshot": "lake.table.snapshot",
    "knn_join": "lake.join",
    "JoinResult": "lake.join",
    "cluster": "lake.analytics",
    "ClusterReport": "lake.analytics",
    "drift": "lake.analytics",
    "DriftReport": "lake.analytics",
    "dedup": "lake.analytics",
    "DedupReport": "lake.analytics",
    "outliers": "lake.analytics",
    "OutlierReport": "lake.analytics",
    "classify": "lake.analytics",
    "ClassifyReport": "lake.analytics",
    "mine": "lake.analytics",
    "MineReport": "lake.analytics",
    "sql": "lake.table.sql:Sql",
    "Match": "lake.search",
    "Phrase": "lake.search",
    "Boolean": "lake.search",
    "Result": "lake.search",
    "LakeError": "lake.errors",
    "InvalidInput": "lake.errors",
    "NotFound": "lake.errors",
    "AlreadyExists": "lake.errors",
    "Conflict": "lake.errors",
    "CommitUnknown": "lake.errors",
    "StorageError": "lake.errors",
    "UnsafeStore": "lake.errors",
    "CorruptTable": "lake.errors",
    "JobError": "lake.errors",
    "NotSupported": "lake.errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  literal names, from the table above


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lake' has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
