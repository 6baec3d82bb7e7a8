"""Spark: the lake's tasks on a cluster, its tables as a data source, its searches as SQL functions.

>>> lake_spark.register(spark)
>>> spark.read.format("lake").load("s3://bucket/lake/packages.lance")

Names are loaded when they are first used: workers import modules of this package, and need few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake_spark.executor import SparkExecutor as SparkExecutor
    from lake_spark.user import errors as errors
    from lake_spark.user import receipt as receipt
    from lake_spark.user import register as register

_HOMES = {"SparkExecutor": "executor", "errors": "user", "receipt": "user", "register": "user"}

__all__ = ["SparkExecutor", "errors", "receipt", "register"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lake_spark' has no attribute {name!r}")
    return getattr(import_module(f"lake_spark.{home}"), name)
