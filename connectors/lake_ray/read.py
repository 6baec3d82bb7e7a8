"""A table as a Ray dataset: read tasks of about equal size over the fragments of one version."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from lake.errors import InvalidInput
from lake.storage import Location
from lake.table.commit import pinned
from lake.table.history import resolve
from lake.table.snapshot import Snapshot, store_errors
from lake.table.sql import both, sql_errors, whole

_TASK_BYTES = 128 << 20  # in memory, and no more rows than that: what a task reads can be in flight many times
_LEAST_BYTES = 4 << 20  # a smaller task costs more to start than to run
_BLOCK_BYTES = 16 << 20
_VARIABLE = 64  # bytes that a text or list is taken to have
_PICKLED = "ray.data.arrow_pickled_object"  # Ray registers the type, and unpickles what a file says is of it


def read_lake(
    uri: str,
    columns: Sequence[str] | None = None,
    filter: str | None = None,  # noqa: A002  as `ray.data` calls it
    version: int | str | None = None,
    *,
    branch: str | None = None,
    storage_options: Mapping[str, object] | None = None,
    override_num_blocks: int | None = None,
    concurrency: int | None = None,
    **remote: Any,
) -> Dataset:
    """Read a table as a Ray dataset.

    The version is pinned by the call, so that all tasks read one state of the table, however often the dataset
    is executed. It can be read until it expires; `lake.Table.pin` keeps it longer.

    Each task reads a run of fragments, or a range of rows of a large one, and gives Arrow blocks whose vectors
    are fixed-size lists (in batches of NumPy, which is what `Dataset.map_batches` gives by default, Ray makes them
    arrays of arrays: ``np.stack(batch["vector"])``). `Dataset.select_columns` is pushed into the read.

    Parameters
    ----------
    uri : str
        Where the table lies: ``table.uri``, such as ``s3://bucket/lake/products.lance``.
    columns : sequence of str, optional
        What to read; everything by default, blobs as bytes.
    filter : str, optional
        A SQL predicate; see `lake.table.sql` for what is refused.
    version : int or str, optional
        A version's number, a tag, or a time in ISO 8601; the newest by default.
    branch : str, optional
        The branch that `version` is on.
    storage_options : mapping, optional
        Of the object store; never printed.
    override_num_blocks : int, optional
        How many read tasks; by default two for each CPU or one for each 128 MiB, whichever is more.
    concurrency : int, optional
        How many of them run at a time.
    **remote
        More for `ray.data.read_datasource`: ``num_cpus``, ``memory``, ``runtime_env`` …

    Raises
    ------
    NotFound
        No such table, version, tag or column.
    InvalidInput
        The filter is not legal.
    """
    location = Location.of(uri, storage_options)
    snapshot = pinned(location, branch) if version is None else resolve(location, branch, version)
    source = _LakeDatasource(snapshot, None if columns is None else list(columns), filter)
    blocks = override_num_blocks or source.suggested_tasks()
    return ray.data.read_datasource(source, override_num_blocks=blocks, concurrency=concurrency, **remote)


@dataclass(frozen=True)
class _Run:
    """Whole fragments, or physical rows ``start`` to ``stop`` of one."""

    fragments: tuple[int, ...]
    start: int = 0
    stop: int | None = None

    @property
    def where(self) -> str | None:
        """The range as a predicate, which Lance turns into a range of pages."""
        if self.stop is None:
            return None
        first = self.fragments[0] << 32
        return f"_rowaddr >= {first + self.start} AND _rowaddr < {first + self.stop}"


class _LakeDatasource(Datasource):  # type: ignore[misc]
    def __init__(self, snapshot: Snapshot, columns: list[str] | None, predicate: str | None) -> None:
        super().__init__()
        self._projection_map = None
        self._snapshot = snapshot
        self._columns = columns
        self._filter = None if predicate is None else whole(predicate, snapshot.schema.names)
        for name in columns or ():
            snapshot.schema.column(name)
        pickled = [field.name for field in self._schema() if _holds_pickles(field.type)]
        if pickled:
            raise InvalidInput(
                f"columns {pickled} hold pickled Python objects, which are not safe to load: leave them out"
            )

    def get_name(self) -> str:
        return "Lake"

    def supports_projection_pushdown(self) -> bool:
        return True

    def estimate_inmemory_data_size(self) -> int:
        rows: int = self._snapshot.dataset.count_rows()
        return rows * _row_bytes(self._schema())

    def suggested_tasks(self) -> int:
        """Two for each CPU, so that the last ones end together; more where tasks would be too large."""
        size = self.estimate_inmemory_data_size()
        if not ray.is_initialized():
            ray.init()
        cpus = int(ray.cluster_resources().get("CPU", 1))
        return max(1, min(2 * cpus, size // _LEAST_BYTES), math.ceil(size / _TASK_BYTES))

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,  # noqa: ARG002  Ray's signature
    ) -> list[ReadTask]:
        dataset, schema = self._snapshot.dataset, self._schema()
        sizes = [(f.fragment_id, f.physical_rows, f.num_deletions) for f in dataset.get_fragments()]
        deletions = {fragment: deleted for fragment, _, deleted in sizes}
        physical = {fragment: rows for fragment, rows, _ in sizes}
        width = _row_bytes(schema)
        tasks = []
        for runs in _divide([(fragment, rows) for fragment, rows, _ in sizes], parallelism) or [[]]:
            most = sum(physical[f] if run.stop is None else run.stop - run.start for run in runs for f in run.fragments)
            dead = sum(deletions[f] for run in runs for f in run.fragments)
            certain = not dead or all(run.stop is None for run in runs)
            count = most - dead if self._filter is None and certain else None
            metadata = BlockMetadata(num_rows=count, size_bytes=most * width, input_files=None, exec_stats=None)
            read = functools.partial(
                _read, self._snapshot, tuple(runs), self._names(), self._filter, max(1, _BLOCK_BYTES // width)
            )
            tasks.append(ReadTask(read, metadata, schema=schema, per_task_row_limit=per_task_row_limit))
        return tasks

    def _names(self) -> list[str] | None:
        chosen = self._get_data_columns()
        if chosen == []:  # to count rows, which Ray loses where it joins blocks without columns
            everything = _scanner(self._snapshot, self._columns, None).projected_schema
            return [min(everything, key=lambda field: _width(field.type)).name]
        return self._columns if chosen is None else chosen

    def _schema(self) -> pa.Schema:
        return _scanner(self._snapshot, self._names(), None).projected_schema


def _scanner(snapshot: Snapshot, columns: list[str] | None, predicate: str | None, **more: Any) -> Any:
    return snapshot.dataset.scanner(columns=columns, filter=predicate, blob_handling="all_binary", **more)


def _read(
    snapshot: Snapshot, runs: Iterable[_Run], columns: list[str] | None, predicate: str | None, block_rows: int
) -> Iterator[pa.Table]:
    """Yield blocks in the order of the rows; at least one, which carries the schema."""
    empty = True
    with sql_errors(predicate), store_errors(snapshot.location, snapshot.branch):
        for run in runs:
            fragments = [snapshot.dataset.get_fragment(f) for f in run.fragments]
            where = both(predicate, run.where)
            scan = _scanner(snapshot, columns, where, fragments=fragments, batch_size=block_rows)
            for batch in scan.to_batches():
                if batch.num_rows:
                    empty = False
                    yield pa.Table.from_batches([batch])
        if empty:
            yield _scanner(snapshot, columns, None).projected_schema.empty_table()


def _divide(sizes: Sequence[tuple[int, int]], parts: int) -> list[list[_Run]]:
    """Divide fragments, given with their rows, into about so many parts of about equal size.

    Only fragments that are larger than a part are cut.
    """
    total = sum(rows for _, rows in sizes)
    each = max(1, math.ceil(total / max(1, parts)))
    divided: list[list[_Run]] = [[]]
    filled = 0
    for fragment, rows in sizes:
        if rows > each:
            pieces = math.ceil(rows / each)
            cuts = [rows * i // pieces for i in range(pieces + 1)]
            runs = [_Run((fragment,), a, b) for a, b in pairwise(cuts)]
            divided += [[run] for run in runs] + [[]]
            filled = 0
            continue
        if filled + rows > each and filled:
            divided.append([])
            filled = 0
        last = divided[-1]
        joined = (*last.pop().fragments, fragment) if last else (fragment,)
        last.append(_Run(joined))
        filled += rows
    return [runs for runs in divided if runs]


def _holds_pickles(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name == _PICKLED or _holds_pickles(kind.storage_type)
    return any(_holds_pickles(kind.field(i).type) for i in range(kind.num_fields))


def _row_bytes(schema: pa.Schema) -> int:
    return max(1, sum(_width(field.type) for field in schema))


def _width(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if pa.types.is_struct(kind):
        return sum(_width(field.type) for field in kind)
    return max(1, kind.bit_width // 8) if pa.types.is_primitive(kind) else _VARIABLE
