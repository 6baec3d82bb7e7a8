"""Reading one slice: batches with the number of each row, and what is no row at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from lake.errors import InvalidInput, StorageError
from lake.etl.bisect import bad_rows
from lake.etl.slices import Slice
from lake.etl.spec import Source
from lake.storage import Location, filesystem
from lake.table.snapshot import Snapshot, store_errors
from lake.table.sql import sql_errors, whole

_BLOCK = 8 << 20
_ROW_ID = "_rowid"


class Malformed(NamedTuple):
    """A piece of text that is no row."""

    row: int
    why: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """Some rows of a slice.

    Parameters
    ----------
    rows : pyarrow.RecordBatch
        As the source has them.
    at : numpy.ndarray, shape (n,)
        The number of each row in its file, from 0; of tables, Lance's row id.
    malformed : list of Malformed
        What stands between them and is no row.
    """

    rows: pa.RecordBatch
    at: npt.NDArray[np.int64]
    malformed: list[Malformed] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """Reads slices of a source.

    Parameters
    ----------
    source : Source
    location : Location
        Whose options reach the files.
    snapshot : Snapshot, optional
        The table, if it is one.
    schema : pyarrow.Schema, optional
        What text is read as; CSV is read as strings, and only the names count.
    lenient : bool
        Ignore fields of JSON that the schema lacks, instead of refusing the row.
    """

    source: Source
    location: Location
    snapshot: Snapshot | None = None
    schema: pa.Schema | None = None
    lenient: bool = False

    def read(self, part: Slice) -> Iterator[Chunk]:
        """Yield the rows of a slice, in bounded memory.

        Raises
        ------
        InvalidInput
            The file is not of its format.
        StorageError
            The store fails.
        """
        how: dict[str, Callable[[Slice], Iterator[Chunk]]] = {
            "parquet": self._parquet,
            "csv": self._csv,
            "jsonl": self._json_lines,
            "table": self._table,
        }
        try:
            yield from how[part.kind](part)
        except (pa.ArrowException, OSError) as error:
            raise _failed(part, error) from error

    def sample(self, part: Slice) -> pa.RecordBatch:
        """Return the first rows, as they are without a schema: what a new table's columns follow."""
        if part.kind in {"parquet", "table"}:
            return next((chunk.rows for chunk in self.read(part)), None) or self._empty(part)
        try:
            with self._open(part) as stream:
                return self._infer(part, stream)
        except (pa.ArrowException, OSError) as error:
            raise _failed(part, error) from error

    def _open(self, part: Slice) -> pa.NativeFile:
        system, path = filesystem(Location.of(part.name, self.location.options))
        return system.open_input_stream(path, compression="gzip" if path.endswith(".gz") else None)

    def _empty(self, part: Slice) -> pa.RecordBatch:
        if self.snapshot is not None:
            return self.snapshot.dataset.schema.empty_table().to_batches()[0]
        system, path = filesystem(Location.of(part.name, self.location.options))
        return pa.RecordBatch.from_pylist([], pq.read_schema(path, filesystem=system))

    def _parquet(self, part: Slice) -> Iterator[Chunk]:
        system, path = filesystem(Location.of(part.name, self.location.options))
        with system.open_input_file(path) as stream:
            file = pq.ParquetFile(stream)
            names = [n for n in self.source.columns or file.schema_arrow.names if n in file.schema_arrow.names]
            width = max(1, part.bytes // max(1, sum(file.metadata.row_group(g).num_rows for g in part.groups)))
            rows = min(1 << 17, max(1 << 10, _BLOCK * 2 // width))
            first = part.first_row
            for batch in file.iter_batches(rows, row_groups=list(part.groups), columns=names):
                yield Chunk(batch, np.arange(first, first + batch.num_rows))
                first += batch.num_rows

    def _table(self, part: Slice) -> Iterator[Chunk]:
        assert self.snapshot is not None  # noqa: S101  slices of tables are made from one
        dataset = self.snapshot.dataset
        columns = list(self.source.columns) if self.source.columns else dataset.schema.names
        where = None if self.source.where is None else whole(self.source.where, dataset.schema.names)
        # What the store does wrong must not look like wrong data, which are not tried again.
        with store_errors(self.snapshot.location, self.snapshot.branch), sql_errors(self.source.where):
            batches = dataset.scanner(
                columns=columns,
                filter=where,
                fragments=[dataset.get_fragment(group) for group in part.groups],
                with_row_id=True,
                scan_in_order=True,
                blob_handling="all_binary",
            ).to_batches()
            for batch in batches:
                at = batch.column(_ROW_ID).to_numpy().astype(np.int64)
                yield Chunk(batch.drop_columns([_ROW_ID]), at)

    def _csv(self, part: Slice) -> Iterator[Chunk]:
        odd: list[Malformed] = []
        taken: set[int] = set()

        def skip(row: pacsv.InvalidRow) -> str:
            number = row.number - 2  # counted from 1, the header too
            taken.add(number)
            odd.append(Malformed(number, f"{row.actual_columns} fields, not {row.expected_columns}", row.text))
            return "skip"

        assert self.schema is not None  # noqa: S101  the plan gives it
        convert = pacsv.ConvertOptions(
            # Bytes, which any text is: what is not UTF-8 must refuse a row, not the file.
            column_types={name: pa.binary() for name in self.schema.names},
            strings_can_be_null=True,
            null_values=list(self.source.nulls),
            check_utf8=False,
        )
        following = 0
        with self._open(part) as stream:
            for batch in pacsv.open_csv(
                stream,
                pacsv.ReadOptions(use_threads=False, block_size=_BLOCK),
                pacsv.ParseOptions(delimiter=self.source.delimiter, newlines_in_values=True, invalid_row_handler=skip),
                convert,
            ):
                at = np.arange(following, following + batch.num_rows + len(taken))
                at = np.setdiff1d(at, list(taken))[: batch.num_rows]
                following = int(at[-1]) + 1 if len(at) else following
                yield _decoded(Chunk(batch, at, list(odd)))
                odd.clear()
        if odd:
            yield Chunk(pa.RecordBatch.from_pylist([], self.schema), np.empty(0, np.int64), odd)

    def _json_lines(self, part: Slice) -> Iterator[Chunk]:
        assert self.schema is not None  # noqa: S101  the plan gives it
        with self._open(part) as stream:
            first = 0
            for block in _lines(stream):
                lines = block.split(b"\n")
                numbers = [n for n, line in enumerate(lines) if line.strip()]
                yield self._parse([lines[n] for n in numbers], first + np.array(numbers, np.int64))
                first += len(lines) - block.endswith(b"\n")

    def _parse(self, lines: list[bytes], at: npt.NDArray[np.int64]) -> Chunk:
        def parsed(begin: int, end: int) -> pa.RecordBatch:
            return _json(lines[begin:end], self.schema, lenient=self.lenient)

        batches, bad = bad_rows(len(lines), parsed)
        rows = pa.Table.from_batches(batches, self.schema).combine_chunks().to_batches()
        odd = [Malformed(int(at[n]), why, lines[n].decode(errors="replace")) for n, why in bad]
        kept = np.delete(at, [n for n, _ in bad])
        return Chunk(rows[0] if rows else pa.RecordBatch.from_pylist([], self.schema), kept, odd)

    def _infer(self, part: Slice, stream: pa.NativeFile) -> pa.RecordBatch:
        if part.kind == "csv":
            options = pacsv.ReadOptions(use_threads=False, block_size=_BLOCK)
            parse = pacsv.ParseOptions(
                delimiter=self.source.delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip"
            )
            convert = pacsv.ConvertOptions(
                strings_can_be_null=True, null_values=list(self.source.nulls), check_utf8=False
            )
            with pacsv.open_csv(stream, options, parse, convert) as reader:
                return reader.read_next_batch() if reader.schema.names else pa.RecordBatch.from_pylist([])
        block = next(_lines(stream), b"")
        lines = [line for line in block.split(b"\n") if line.strip()]
        batches, _ = bad_rows(len(lines), lambda begin, end: _json(lines[begin:end], None, lenient=True))
        return _united(batches)


def _united(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Join batches whose types may contradict each other: what contradicts the more frequent is left out."""
    rows: Counter[str] = Counter()
    for batch in batches:
        rows[str(batch.schema)] += batch.num_rows
    found = pa.table({})
    for batch in sorted(batches, key=lambda batch: -rows[str(batch.schema)]):
        with suppress(pa.ArrowInvalid, pa.ArrowTypeError):
            found = pa.concat_tables([found, pa.Table.from_batches([batch])], promote_options="permissive")
    return (found.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], found.schema)])[0]


def _decoded(chunk: Chunk) -> Chunk:
    """Read the bytes of a CSV chunk as text; rows that are not UTF-8 are no rows."""
    rows, odd = chunk.rows, list(chunk.malformed)
    texts = []
    broken: dict[int, str] = {}
    for name in rows.schema.names:
        column = rows.column(name)

        def text(begin: int, end: int, column: pa.Array = column) -> pa.Array:
            return column.slice(begin, end - begin).cast(pa.string())

        pieces, bad = bad_rows(len(column), text)
        broken |= {n: f"column {name!r}: not UTF-8" for n, _ in bad}
        texts.append(pieces[0] if pieces else column.cast(pa.string()))
    if not broken:
        return Chunk(pa.RecordBatch.from_arrays(texts, rows.schema.names), chunk.at, odd)
    for n, why in broken.items():
        shown = {k: (v or b"").decode(errors="replace") for k, v in rows.slice(n, 1).to_pylist()[0].items()}
        odd.append(Malformed(int(chunk.at[n]), why, str(shown)))
    keep = np.ones(rows.num_rows, bool)
    keep[list(broken)] = False
    return _decoded(Chunk(rows.filter(pa.array(keep)), chunk.at[keep], odd))


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    """Yield blocks of whole lines."""
    rest = b""
    while block := stream.read(_BLOCK):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            yield rest + head + newline
            rest = tail
        else:
            rest += block
    if rest:
        yield rest


def _json(lines: list[bytes], schema: pa.Schema | None, *, lenient: bool) -> pa.RecordBatch:
    """Parse lines, each of which must be one object."""
    data = b"\n".join(lines) + b"\n"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid("not UTF-8") from error
    unknown = "infer" if schema is None else "ignore" if lenient else "error"
    found = pajson.read_json(
        pa.BufferReader(data),
        pajson.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 1 << 10)),
        pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unknown),
    )
    if found.num_rows != len(lines):
        raise pa.ArrowInvalid("not one JSON object on one line")
    if schema is not None:
        found = found.select(schema.names)
    batches = found.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], found.schema)


def _failed(part: Slice, error: Exception) -> Exception:
    """Tell what is wrong with the data from what another attempt may do without."""
    if isinstance(error, OSError | MemoryError):
        return StorageError(f"cannot read {part.name}: {error}")
    return InvalidInput(f"cannot read {part.name} as {part.kind}: {error}")
