"""Tables of many column types, and brute force over what they hold."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from lake import index
from lake.run import Callback, Event, LocalExecutor, Stage, TaskDone, TaskResult, TaskSkipped
from lake.schema import Column, Embedding, Schema, geo_point
from lake.storage import Location
from lake.table.commit import pinned
from lake.table.snapshot import Snapshot

DIMENSION = 16

SCHEMA = Schema(
    [
        Column("id", pa.int64()),
        Column("number", pa.int64()),
        Column("ratio", pa.float32()),
        Column("flag", pa.bool_()),
        Column("price", pa.decimal128(12, 2)),
        Column("day", pa.date32()),
        Column("at", pa.timestamp("us")),
        Column("code", pa.binary()),
        Column("category", pa.string(), "category"),
        Column("label", pa.dictionary(pa.int32(), pa.string())),
        Column("text", pa.string()),
        Column("tags", pa.list_(pa.string())),
        Column("place", geo_point(), "geo"),
        Column("facts", dict),
        Column("vector", Embedding(DIMENSION)),
        Column("half", pa.list_(pa.float16(), DIMENSION)),
        Column("double", pa.list_(pa.float64(), DIMENSION), embedding=Embedding(DIMENSION, metric="cosine")),
        Column("signed", pa.list_(pa.int8(), DIMENSION)),
        Column("bits", pa.list_(pa.uint8(), DIMENSION)),
        Column("many", pa.list_(pa.list_(pa.float32(), DIMENSION))),
    ],
    key="id",
)


def vectors(ids: Sequence[int], salt: int) -> np.ndarray:
    """Vectors that depend on the row's id and a salt alone."""
    return np.stack([np.random.default_rng([i, salt]).standard_normal(DIMENSION) for i in ids]).astype(np.float32)


def rows(ids: Sequence[int], salt: int = 0) -> pa.Table:
    """Rows whose values depend on their ids and a salt; salted values never equal unsalted ones."""
    shifted = [i + 1_000_000 * salt for i in ids]
    x = vectors(ids, salt)

    def fixed(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), DIMENSION)

    columns: dict[str, Any] = {
        "id": list(ids),
        "number": shifted,
        "ratio": [float(i) for i in shifted],
        "flag": [i % 2 == 0 for i in shifted],
        "price": [decimal.Decimal(i) for i in shifted],
        "day": [dt.date(2000, 1, 1) + dt.timedelta(days=i % 3000 + 5000 * salt) for i in ids],
        "at": [dt.datetime(2000, 1, 1) + dt.timedelta(seconds=i) for i in shifted],  # noqa: DTZ001
        "code": [b"%d" % i for i in shifted],
        "category": [f"c{i % 5}-{salt}" for i in ids],
        "label": pa.array([f"c{i % 5}-{salt}" for i in ids]).dictionary_encode(),
        "text": [f"word{i} common{salt} thing{i % 7}" for i in shifted],
        "tags": [[f"t{i % 7}-{salt}", "shared"] for i in ids],
        "place": [{"x": i % 180 - 90.0 + salt, "y": i % 90 - 45.0} for i in ids],
        "facts": [f'{{"n": {i}}}' for i in shifted],
        "vector": fixed(x, pa.float32()),
        "half": fixed(x.astype(np.float16), pa.float16()),
        "double": fixed(x.astype(np.float64), pa.float64()),
        "signed": fixed((x * 20).astype(np.int8), pa.int8()),
        "bits": fixed((np.abs(x) * 60).astype(np.uint8), pa.uint8()),
        "many": [[v.tolist(), (v + 1).tolist()] for v in x],
    }
    arrow = SCHEMA.to_arrow()
    arrays = []
    for field in arrow:
        value = columns[field.name]
        if field.name == "facts":
            value = pa.array(value).cast(pa.json_())
        elif not isinstance(value, pa.Array):
            value = pa.array(value, field.type)
        arrays.append(value)
    return pa.table(arrays, schema=arrow)


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def done(self, stage: str = "segments") -> list[str]:
        return [e.key for e in self.events if isinstance(e, TaskDone) and e.stage == stage]

    def skipped(self, stage: str = "segments") -> list[str]:
        return [e.key for e in self.events if isinstance(e, TaskSkipped) and e.stage == stage]


class Pair:
    """Runs tasks in this process, and lets the plan think that two share them."""

    workers = 2

    def __init__(self) -> None:
        self._executor = LocalExecutor(1)

    def run(self, stage: Stage[Any], on_event: Callback) -> Generator[TaskResult[Any], None, None]:
        return self._executor.run(stage, on_event)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small tables be divided into several segments."""
    monkeypatch.setattr("lake.index.plan._TASK_ROWS", 100)


@dataclass
class Lake:
    """One table, and the verbs of this room on its newest version."""

    location: Location

    @property
    def head(self) -> Snapshot:
        return pinned(self.location)

    @property
    def dataset(self) -> lance.LanceDataset:
        return self.head.dataset

    def append(self, table: pa.Table) -> None:
        options = dict(self.location.options) or None
        lance.write_dataset(
            table, self.location.uri, mode="append", storage_options=options, enable_stable_row_ids=True
        )

    def upsert(self, table: pa.Table) -> None:
        merge = self._own().merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(table)

    def update(self, values: dict[str, str], where: str) -> None:
        self._own().update(values, where=where)

    def delete(self, where: str) -> None:
        self._own().delete(where)

    def compact(self) -> None:
        self._own().optimize.compact_files(target_rows_per_fragment=1 << 20)

    def declare(self, column: str, kind: str = "auto", **more: Any) -> index.IndexSpec:
        return index.declare(self.head, column, kind, **more)

    def build(self, names: Sequence[str] | None = None, **more: Any) -> index.BuildReport:
        more = {"executor": LocalExecutor(1), "on_event": Listener(), **more}
        return index.build(self.head, names, **more)

    def coverage(self) -> index.CoverageTable:
        return index.coverage(self.head)

    def segments(self, name: str) -> dict[str, set[int]]:
        """The fragments of each segment."""
        return {
            str(s.uuid): set(s.fragment_ids)
            for d in self.dataset.describe_indices()
            if d.name == name
            for s in d.segments
        }

    def ids(self, where: str, *, scan: bool = False) -> list[int]:
        """Ids of the rows that a filter selects, in order: through the index, or by a scan."""
        found = self.dataset.scanner(columns=["id"], filter=where, use_scalar_index=not scan).to_table()
        return sorted(found["id"].to_pylist())

    def words(self, query: str) -> list[int]:
        """Ids of the rows that a text search finds."""
        found = self.dataset.scanner(columns=["id"], full_text_query=query, limit=1 << 20).to_table()
        return sorted(found["id"].to_pylist())

    def near(self, column: str, query: Any, k: int = 10, **more: Any) -> list[int]:
        """Ids of the nearest rows through every partition."""
        nearest = {"column": column, "q": query, "k": k, "nprobes": 1 << 16} | more
        return list(self.dataset.scanner(columns=["id", "_distance"], nearest=nearest).to_table()["id"].to_pylist())

    def uses(self, name: str, column: str = "", *, where: str = "", query: Any = None) -> bool:
        """Whether Lance plans to use an index."""
        if query is None:
            return f"@{name}(" in self.dataset.scanner(columns=["id"], filter=where).explain_plan()
        nearest = {"column": column, "q": query, "k": 3}
        return f"name={name}" in self.dataset.scanner(columns=["id"], nearest=nearest).explain_plan()

    def _own(self) -> lance.LanceDataset:
        return lance.dataset(self.location.uri, storage_options=dict(self.location.options) or None)


def make_lake(location: Location, fragments: int = 3, each: int = 300, columns: Sequence[str] | None = None) -> Lake:
    for number in range(fragments):
        table = rows(range(number * each, (number + 1) * each))
        if columns is not None:
            table = table.select(["id", *columns])
        mode = "append" if number else "create"
        options = dict(location.options) or None
        lance.write_dataset(table, location.uri, mode=mode, storage_options=options, enable_stable_row_ids=True)
    return Lake(location)


@pytest.fixture
def lake_table(tmp_path: Path) -> Lake:
    """A table of 900 rows in three fragments."""
    return make_lake(Location.of(tmp_path / "lake" / "t.lance"))
