"""Searches as table functions of SQL.

``vector_search(table, query, k, …)``, ``text_search(table, text, k, …)``, ``hybrid_search(table, query, text, k, …)``.
``table`` and the named arguments are constants; query, text and ``k`` may be columns of a lateral join. All rows of one
statement are searched in one version, that of its planning. Distances and scores are those of `lake.search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np
from pyspark.sql.types import DoubleType, FloatType, StructField, StructType
from pyspark.sql.udtf import AnalyzeArgument, AnalyzeResult

from lake.errors import InvalidInput
from lake.schema import Role
from lake.search import Query, search
from lake.storage import Location
from lake.table.commit import pinned
from lake.table.snapshot import Snapshot
from lake_spark.sealed import Sealed
from lake_spark.types import arrow_schema, is_vector, spark_schema, to_spark

_DISTANCE = StructField("_distance", FloatType())
_SCORE = StructField("_score", FloatType())
_POSITIONAL = {
    "vector_search": ("table", "query", "k"),
    "text_search": ("table", "text", "k"),
    "hybrid_search": ("table", "query", "text", "k"),
}
_WANTED = {"vector_search": ("vector",), "text_search": ("text",), "hybrid_search": ("vector", "text")}
_MEASURES = {
    "vector_search": [_DISTANCE],
    "text_search": [_SCORE],
    "hybrid_search": [_DISTANCE, _SCORE, StructField("_relevance_score", DoubleType())],
}
_OF_VECTORS = {"vector_column", "metric", "nprobe", "refine", "ef"}
_OF_TEXT = {"text_columns"}
_OF_ALL = {"columns", "where", "version", "branch", "use_index", "indexed_only"}
_NAMED = {
    "vector_search": _OF_ALL | _OF_VECTORS,
    "text_search": _OF_ALL | _OF_TEXT,
    "hybrid_search": _OF_ALL | _OF_VECTORS | _OF_TEXT | {"candidates"},
}
_DEFAULT_K = 10
T = TypeVar("T")


@dataclass
class Analyzed(AnalyzeResult):
    """What is known of a search before it runs."""

    snapshot: Snapshot | None = None
    wanted: tuple[str, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


def functions(storage: Sealed[Mapping[str, str]]) -> dict[str, type]:
    """Make the classes of the table functions, which reach stores by the options given."""
    return {name: _function(name, storage) for name in _POSITIONAL}


def _function(function: str, storage: Sealed[Mapping[str, str]]) -> type:
    class TableFunction:
        def __init__(self, analyzed: Analyzed) -> None:
            self._searcher = Searcher(analyzed)

        @staticmethod
        def analyze(*given: AnalyzeArgument, **named: AnalyzeArgument) -> Analyzed:
            return analyze(function, storage.open(), _bound(function, given, named))

        def eval(self, *given: Any, **named: Any) -> Iterator[tuple[Any, ...]]:
            bound = _bound(function, given, named)
            return self._searcher.rows(bound.get("k", _DEFAULT_K), bound.get("query"), bound.get("text"))

    return TableFunction


def _bound(function: str, given: tuple[T, ...], named: Mapping[str, T]) -> dict[str, T]:
    positions = _POSITIONAL[function]
    if len(given) > len(positions):
        raise InvalidInput(f"{function}({', '.join(positions)}, …): name what comes after these, such as where => '…'")
    bound = dict(zip(positions, given, strict=False)) | dict(named)
    missing = [name for name in positions if name not in bound and name != "k"]
    if missing:
        raise InvalidInput(f"{function}({', '.join(positions)}, …) needs {' and '.join(missing)}")
    return bound


def analyze(function: str, storage: Mapping[str, str], bound: Mapping[str, AnalyzeArgument]) -> Analyzed:
    """Choose version and columns: the key, those asked for (all but vectors and blobs by default), the measures.

    Raises
    ------
    InvalidInput
        An argument is not known or no constant.
    NotFound
        There is no such table, version or column.
    """
    table = bound["table"]
    if not isinstance(table.value, str):
        raise InvalidInput(f"{function}: the first argument is the table's URI, a constant string")
    given = {n: _constant(function, n, argument) for n, argument in bound.items() if n not in _POSITIONAL[function]}
    location, branch = Location.of(table.value, storage), given.pop("branch", None)
    version = given.pop("version", None)
    snapshot = pinned(location, branch) if version is None else Snapshot(location, int(version), branch)
    schema = snapshot.schema
    asked = given.pop("columns", None)
    if asked is None:
        asked = [c.name for c in schema if not is_vector(c) and c.role is not Role.BLOB]
    columns = list(dict.fromkeys([*schema.key, *asked]))
    fields = [*spark_schema(schema, columns).fields, *_MEASURES[function]]
    given["columns"] = columns
    return Analyzed(StructType(fields), snapshot=snapshot, wanted=_WANTED[function], named=given)


def _constant(function: str, name: str, argument: AnalyzeArgument) -> Any:
    known = sorted(_NAMED[function])
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
        raise InvalidInput(f"{function} has no argument {name!r}; {hint}")
    if not argument.isConstantExpression:
        raise InvalidInput(f"{function}: {name} must be a constant; only query, text and k may differ by row")
    return argument.value


class Searcher:
    """Runs the searches of one task."""

    def __init__(self, analyzed: Analyzed) -> None:
        assert analyzed.snapshot is not None  # noqa: S101  `analyze` gives one
        self._snapshot = analyzed.snapshot
        self._named = analyzed.named
        self._wanted = analyzed.wanted
        self._target = arrow_schema(analyzed.schema)

    def rows(self, k: int | None, vector: Any, text: str | None) -> Iterator[tuple[Any, ...]]:
        """Search, and yield the best rows first; nothing is found for a null."""
        query = {"vector": vector, "text": text}
        wanted = {name: query[name] for name in self._wanted}
        if k is None or any(value is None for value in wanted.values()):
            return
        if vector is not None:
            wanted["vector"] = _vector(vector)
        found = search(self._snapshot, Query(k=k, **wanted, **self._named)).to_arrow()
        for batch in found.select(self._target.names).to_batches():
            columns = [c.to_pylist(maps_as_pydicts="strict") for c in to_spark(batch, self._target).columns]
            yield from zip(*columns, strict=True)


def _vector(given: Any) -> Any:
    if None in given:  # numpy would read NaN
        raise InvalidInput("the query is no vector: it holds a null; give an array of numbers")
    try:
        return np.asarray(given, np.float64)  # SQL's literals are decimals
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the query is no vector: {error}; give an array of numbers") from error
