"""Rows that were refused, each with its reason: the dead-letter table."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from lake.etl.read import Malformed
from lake.schema import Column, Schema
from lake.table.validate import Problem

SCHEMA = Schema(
    [
        Column("job", str, nullable=False),
        Column("source", str, nullable=False),
        Column("row", int, nullable=False),
        Column("column", str),
        Column("reason", str, "description", nullable=False),
        Column("data", str, nullable=False),
    ]
)
"""Of the dead-letter table: the job, the file or table, the row's number in it, what was wrong, the row as JSON."""


class RefusedFile:
    """An Arrow file of refused rows, which is made when the first of them comes.

    Parameters
    ----------
    path : Path
        On this machine.
    job, source : str
        For the columns of these names.
    """

    def __init__(self, path: Path, job: str, source: str) -> None:
        self.path = path
        self.rows = 0
        self._job, self._source = job, source
        self._sink: Any = None
        self._writer: Any = None

    def add(self, problems: Iterable[Problem], rows: pa.RecordBatch, at: Sequence[int]) -> None:
        """Add rows of a batch; `at` gives the number in the source of each of its rows."""
        found = [(int(n), problem.column, problem.why) for problem in problems for n in problem.rows]
        texts = as_json(rows.take(pa.array([n for n, _, _ in found], pa.int64())))
        self._write([(int(at[n]), column, why, text) for (n, column, why), text in zip(found, texts, strict=True)])

    def add_malformed(self, found: Iterable[Malformed]) -> None:
        """Add pieces of text that are no rows."""
        self._write([(bad.row, None, bad.why, json.dumps(bad.text, ensure_ascii=False)) for bad in found])

    def _write(self, rows: list[tuple[int, str | None, str, str]]) -> None:
        if not rows:
            return
        if self._writer is None:
            self._sink = pa.OSFile(str(self.path), "wb")
            self._writer = pa.ipc.new_file(self._sink, SCHEMA.to_arrow())
        at, column, why, data = zip(*rows, strict=True)
        same = [[self._job] * len(rows), [self._source] * len(rows)]
        arrays = [pa.array(v, f.type) for v, f in zip([*same, at, column, why, data], SCHEMA.to_arrow(), strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA.to_arrow()))
        self.rows += len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()


def as_json(rows: pa.RecordBatch) -> Iterator[str]:
    """Write each row as one JSON object."""
    for row in rows.to_pylist():
        yield json.dumps(_plain(row), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Turn a value into what strict JSON holds: it has no NaN, no infinity, no bytes and no dates."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
