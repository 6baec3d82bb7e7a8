"""What a person may hand to a write, turned into Arrow batches of the table's own schema.

Memory stays bounded whatever the input's size: everything is a stream of batches, and a batch that is
too large is cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from lake.errors import InvalidInput

BATCH_BYTES = 32 << 20
_PARQUET_ROWS = 16_384

Data = Any  # whatever `batches` documents


def batches(data: Data) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Open any input as a stream of Arrow batches.

    Parameters
    ----------
    data
        An Arrow table, batch, reader, dataset or scanner; anything with ``__arrow_c_stream__`` (pandas,
        polars, DuckDB, a search result); a polars lazy frame; a mapping of columns (2-D numpy arrays are
        vectors) or a sequence of dicts; a path or a list of paths of Parquet files or folders; an
        iterable of any of the first three.

    Returns
    -------
    tuple of pyarrow.Schema and iterator of pyarrow.RecordBatch
        The schema of the input, and its batches of at most about `BATCH_BYTES`.

    Raises
    ------
    InvalidInput
        Not something that holds rows.
    """
    schema, stream = _open(data)
    return schema, chain.from_iterable(map(_cut, stream))


def _open(data: Data) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if isinstance(data, pa.RecordBatch):
        return data.schema, iter([data])
    if isinstance(data, pa.Table):
        return data.schema, iter(data.to_batches())
    if isinstance(data, pads.Scanner):
        return data.projected_schema, iter(data.to_batches())
    if isinstance(data, pads.Dataset):
        return _scan(data)
    if isinstance(data, str | os.PathLike):
        return _parquet([data])
    if isinstance(data, Mapping):
        return _open(_columns(data))
    if hasattr(data, "collect_schema") and hasattr(data, "collect"):  # a polars lazy frame: let polars stream it
        data = data.collect(engine="streaming")
    if hasattr(data, "__arrow_c_stream__"):
        return _stream(data)
    if isinstance(data, Iterable):
        return _open_iterable(data)
    raise InvalidInput(f"cannot read rows from {type(data).__name__}; {_ACCEPTED}")


_ACCEPTED = (
    "give an Arrow table, reader or dataset, a pandas or polars frame, a dict of columns, a list of dicts, "
    "Parquet paths, or a generator of Arrow batches"
)


def _stream(data: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    try:
        reader = pa.RecordBatchReader.from_stream(data)
    except (pa.ArrowException, TypeError) as error:
        raise InvalidInput(f"cannot read the {type(data).__name__}: {error}") from error
    # Pandas gives row labels without a name (any filtered frame has them) as columns.
    named = [name for name in reader.schema.names if not name.startswith("__index_level_")]
    if named == reader.schema.names:
        return reader.schema, iter(reader)
    return pa.schema([reader.schema.field(n) for n in named]), (batch.select(named) for batch in reader)


def _open_iterable(data: Iterable[Any]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    rest = iter(data)
    first = next(rest, None)
    if first is None:
        raise InvalidInput(f"the input is empty and has no schema; {_ACCEPTED}")
    if isinstance(first, str | os.PathLike):
        return _parquet([first, *rest])
    if isinstance(first, Mapping):
        if not isinstance(data, Sequence):
            raise InvalidInput("a generator of dicts is not read row by row: yield Arrow batches, or give a list")
        return _open(_from_rows(data))
    schema, stream = _open(first)
    return schema, chain(stream, chain.from_iterable(_open(part)[1] for part in rest))


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _columns({name: [row.get(name) for row in rows] for name in names})


def _columns(data: Mapping[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in data.items():
        if isinstance(values, np.ndarray) and values.ndim == 2:  # noqa: PLR2004  rows of vectors
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            try:
                arrays[name] = values if isinstance(values, pa.ChunkedArray) else pa.array(values)
            except (pa.ArrowException, TypeError) as error:
                raise InvalidInput(f"column {name!r}: {error}") from error
    if len({len(a) for a in arrays.values()}) > 1:
        raise InvalidInput(f"columns differ in length: { {n: len(a) for n, a in arrays.items()} }")
    return pa.table(arrays)


def _parquet(paths: Sequence[str | os.PathLike[str]]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    names = [os.fspath(p) for p in paths]
    for name in names:
        if "://" not in name and not Path(name).exists():
            raise InvalidInput(f"there is no file or folder {name!r}")
    try:
        found = pads.dataset(names[0] if len(names) == 1 else names, format="parquet")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {names[0]!r} as Parquet: {error}") from error
    return _scan(found)


def _scan(found: pads.Dataset) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    # Little read-ahead: the writer is slower than the reader, which would fill the memory meanwhile.
    options = {"batch_size": _PARQUET_ROWS, "batch_readahead": 2, "fragment_readahead": 1}
    return found.schema, iter(found.to_batches(**options))


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= BATCH_BYTES or batch.num_rows <= 1:
        yield batch
        return
    rows = max(1, batch.num_rows * BATCH_BYTES // batch.nbytes)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def conform(batch: pa.RecordBatch, schema: pa.Schema, first_row: int) -> pa.RecordBatch:
    """Bring a batch to a table's schema: order, missing nullable columns, safe casts, fixed-size vectors.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        As the caller gave it; its columns are known to be in the schema.
    schema : pyarrow.Schema
        What to bring it to.
    first_row : int
        Number of the batch's first row in the input, for messages.

    Raises
    ------
    InvalidInput
        A column cannot be cast, a vector has the wrong length.
    """
    if batch.schema.equals(schema):
        return batch
    arrays = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        if at < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            arrays.append(cast_column(batch.column(at), field, first_row))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def aligned(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Copy the columns whose values do not lie where their type wants them.

    Buffers that came from a file, a socket or Ray's object store may begin anywhere; Lance panics at them.
    """
    if all(map(_is_aligned, batch.columns)):
        return batch
    columns = [c if _is_aligned(c) else pa.concat_arrays([c, c.slice(0, 0)]) for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _is_aligned(array: pa.Array) -> bool:
    bytes_ = 16 if "decimal" in str(array.type) else 8
    return all(buffer is None or buffer.address % bytes_ == 0 for buffer in array.buffers())


def check_columns(given: pa.Schema, schema: pa.Schema, *, partial: bool = False) -> None:
    """Refuse unknown and repeated columns, and missing ones that cannot be null."""
    names = given.names
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise InvalidInput(f"columns {repeated} appear more than once in the input")
    unknown = [n for n in names if n not in schema.names]
    if unknown:
        raise InvalidInput(
            f"the table has no columns {unknown}; it has {schema.names}. Add them first (add_columns), or leave "
            "them out"
        )
    missing = [f.name for f in schema if f.name not in names and not f.nullable]
    if missing and not partial:
        raise InvalidInput(f"columns {missing} are not nullable and missing in the input")


def cast_column(array: pa.Array, field: pa.Field, first_row: int) -> pa.Array:
    """Bring one column to a table's type, as `conform` does."""
    target = field.type
    if array.type.equals(target):
        return array
    try:
        if pa.types.is_fixed_size_list(target):
            return _vector(array, field, first_row)
        if isinstance(target, pa.BaseExtensionType):
            storage = array.storage if isinstance(array, pa.ExtensionArray) else array
            return pa.ExtensionArray.from_storage(target, storage.cast(target.storage_type))
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if isinstance(array, pa.DictionaryArray):  # Arrow cannot decode one of string views
            return array.dictionary.cast(target).take(array.indices)
        return array.cast(target)
    except pa.ArrowException as error:
        raise InvalidInput(
            f"column {field.name!r}: cannot cast {array.type} to {target} without loss "
            f"(rows {first_row}-{first_row + len(array) - 1}): {error}"
        ) from error


def _vector(array: pa.Array, field: pa.Field, first_row: int) -> pa.Array:
    """Cast lists to fixed-size lists, naming the first row whose length is wrong."""
    dim, value = field.type.list_size, field.type.value_type
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        if pa.types.is_fixed_size_list(array.type) and array.type.list_size != dim:
            raise InvalidInput(f"column {field.name!r}: vectors have {array.type.list_size} dimensions, not {dim}")
        return array.cast(field.type)
    lengths = pc.list_value_length(array)
    wrong = pc.fill_null(pc.not_equal(lengths, dim), fill_value=False)
    if pc.any(wrong).as_py():
        row = int(np.argmax(wrong.to_numpy(zero_copy_only=False)))
        raise InvalidInput(
            f"column {field.name!r}, row {first_row + row}: the vector has {lengths[row].as_py()} dimensions, not {dim}"
        )
    vectors = pa.FixedSizeListArray.from_arrays(array.flatten().cast(value), dim)  # without those of null lists
    if not array.null_count:
        return vectors
    valid = np.asarray(array.is_valid())
    return vectors.take(pa.array(np.cumsum(valid) - 1, mask=~valid))


def infer(data: Data) -> tuple[pa.Schema, pa.RecordBatchReader]:
    """Choose a table's columns from the data that is to fill it, and give the data back as a reader.

    Lists of floats that all have one length in the first batch are vectors; vectors are float32 unless they
    are float16 or integers; text is plain strings, whatever layout a frame library had chosen for it.
    """
    given, stream = batches(data)
    first = next(stream, None)
    fields = []
    for field in given:
        column = None if first is None else first.column(given.get_field_index(field.name))
        fields.append(field.with_type(_stored(field.type, column)))
    rows = stream if first is None else chain([first], stream)
    return pa.schema(fields, given.metadata), pa.RecordBatchReader.from_batches(given, rows)


def _stored(kind: pa.DataType, column: pa.Array | None) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _stored(kind.value_type, None)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_element(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = kind.value_type
        if pa.types.is_floating(value) and column is not None:
            lengths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
            if len(lengths) == 1 and lengths[0] > 1:
                return pa.list_(_element(value), lengths[0])
        return pa.list_(_stored(value, None))
    return kind


def _element(value: pa.DataType) -> pa.DataType:
    return pa.float32() if pa.types.is_float64(value) else value
