"""Columns of a table as Spark knows them, and back.

Spark has no fixed-size lists, no half floats, no unsigned integers and no dictionaries: they are read as the next type
that holds all their values, and written back through the table's own schema. The table's own field travels in the
Spark field's metadata (``lake.field``, beside ``dimension`` for people), so that a new table can be made from a
DataFrame that came from one.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_schema
from pyspark.sql.types import StructField, StructType

from lake.errors import CorruptTable, InvalidInput
from lake.schema import Column, Schema
from lake.schema.arrow import vector_layout

FIELD = "lake.field"
DIMENSION = "dimension"
_WIDER = {
    pa.float16(): pa.float32(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.time32("s"): pa.time64("ns"),
    pa.time32("ms"): pa.time64("ns"),
    pa.time64("us"): pa.time64("ns"),
}
_DIGITS = 38  # of Spark's decimals


def readable(column: str, kind: pa.DataType) -> pa.DataType:
    """Return the Arrow type as which Spark reads a stored type.

    Raises
    ------
    InvalidInput
        Spark has no type that holds the values.
    """
    if kind in _WIDER:
        return _WIDER[kind]
    if isinstance(kind, pa.BaseExtensionType):
        return readable(column, kind.storage_type)
    if pt.is_dictionary(kind):
        return readable(column, kind.value_type)
    if pt.is_fixed_size_list(kind) or pt.is_list(kind) or pt.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(readable(column, kind.value_type)))
    if pt.is_struct(kind):
        return pa.struct([f.with_type(readable(column, f.type)) for f in kind])
    if pt.is_map(kind):
        item = kind.item_field.with_type(readable(column, kind.item_type))
        return pa.map_(readable(column, kind.key_type), item)
    return _readable_flat(column, kind)


def _readable_flat(column: str, kind: pa.DataType) -> pa.DataType:
    if pt.is_timestamp(kind):
        return pa.timestamp("us", kind.tz and "UTC")
    if pt.is_duration(kind):
        return pa.duration("us")
    if pt.is_fixed_size_binary(kind):
        return pa.binary()
    if pt.is_decimal(kind) and not 0 <= kind.scale <= kind.precision <= _DIGITS:
        raise InvalidInput(
            f"column {column!r}: Spark's decimals have up to {_DIGITS} digits, and no negative scale, unlike {kind}; "
            "leave the column out with .option('columns', …)"
        )
    return pa.decimal128(kind.precision, kind.scale) if pt.is_decimal(kind) else kind


def spark_field(column: Column, stored: pa.Field) -> StructField:
    """Describe a column to Spark.

    Parameters
    ----------
    stored : pyarrow.Field
        The column as ``Schema.to_arrow()`` has it.
    """
    metadata: dict[str, Any] = {FIELD: base64.b64encode(pa.schema([stored]).serialize()).decode()}
    if column.embedding is not None:
        metadata[DIMENSION] = column.embedding.dimension
    kind = from_arrow_type(readable(column.name, column.type), prefer_timestamp_ntz=True)
    return StructField(column.name, kind, column.nullable, metadata)


def spark_schema(schema: Schema, names: list[str] | None = None) -> StructType:
    """Describe a table, or some of its columns, to Spark."""
    stored = schema.to_arrow()
    chosen = schema.names if names is None else names
    return StructType([spark_field(schema.column(n), stored.field(schema.column(n).name)) for n in chosen])


def stored_field(field: StructField) -> pa.Field | None:
    """Return the table's field that a Spark column came from, if its metadata tells."""
    encoded = (field.metadata or {}).get(FIELD)
    if encoded is None:
        return None
    try:
        found: pa.Field = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded))).field(0)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise CorruptTable(f"column {field.name!r}: its metadata {FIELD!r} cannot be read: {error}") from error
    return found.with_name(field.name)


def arrow_schema(schema: StructType) -> pa.Schema:
    """Return the Arrow schema in which Spark takes and gives rows."""
    found: pa.Schema = to_arrow_schema(schema, timezone="UTC")
    return found


def to_spark(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Bring stored rows to the types of Spark's columns.

    Raises
    ------
    InvalidInput
        A value has no exact form there, such as a time in nanoseconds.
    """
    return pa.RecordBatch.from_arrays([_converted(batch.column(f.name), f) for f in schema], schema=schema)


def _converted(array: pa.Array, field: pa.Field) -> pa.Array:
    if array.type.equals(field.type):
        return array
    try:
        if isinstance(array, pa.ExtensionArray):
            return _converted(array.storage, field)
        if isinstance(array, pa.DictionaryArray):
            return _converted(array.dictionary.take(array.indices), field)
        if pt.is_fixed_size_list(array.type) and pt.is_list(field.type) and not pt.is_nested(array.type.value_type):
            return _lists(array, field.type)
        return array.cast(field.type)
    except pa.ArrowException as error:
        raise InvalidInput(
            f"column {field.name!r}: {array.type} cannot be read as {field.type} without loss: {error}"
        ) from error


def _lists(array: pa.FixedSizeListArray, kind: pa.ListType) -> pa.ListArray:
    """Vectors as lists, without a copy of their elements."""
    size = array.type.list_size
    values = array.flatten().cast(kind.value_type)  # without those of null vectors
    ends = np.arange(len(array) + 1, dtype=np.int32) * np.int32(size)
    mask = None
    if array.null_count:
        mask = pc.is_null(array)
        ends[1:] = np.cumsum(~np.asarray(mask), dtype=np.int32) * size
    return pa.ListArray.from_arrays(pa.array(ends), values, type=kind, mask=mask)


def is_vector(column: Column) -> bool:
    """Whether a column holds vectors."""
    return vector_layout(column.type) is not None
