"""Arrow types as Lance keeps them: what a type comes back as, and what Lance cannot hold.

A `Schema` holds only *stored* types, those that a Lance dataset gives back for a column. So a schema that
is written and opened again is equal to the one in memory.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from lake.errors import InvalidInput

EXTENSION = "ARROW:extension:name"
EXTENSION_METADATA = "ARROW:extension:metadata"
BLOB = "lance-encoding:blob"

_PYTHON: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.large_binary(),
    dict: pa.json_(),
    dt.datetime: pa.timestamp("us", tz="UTC"),
    dt.date: pa.date32(),
    dt.time: pa.time64("us"),
    dt.timedelta: pa.duration("us"),
}

# Refused by Lance 14 ("Unsupported data type"), each with what holds the same values.
_UNSUPPORTED = (
    (pt.is_interval, "duration(us)"),
    (pt.is_list_view, "a list"),
    (pt.is_large_list_view, "a large_list"),
    (pt.is_decimal32, "decimal128"),
    (pt.is_decimal64, "decimal128"),
    (pt.is_run_end_encoded, "its value type or a dictionary"),
    (pt.is_union, "a struct with one field for each variant, or json"),
)


def arrow_type(column: str, spec: Any) -> pa.DataType:
    """Turn a Python annotation or an Arrow type into the Arrow type that Lance stores.

    Parameters
    ----------
    column : str
        The column's name, for messages.
    spec : pa.DataType or type
        An Arrow type, or `str`, `int`, `float`, `bool`, `bytes`, `dict` (JSON), `datetime`, `date`, `time`,
        `timedelta`, and lists of those.

    Raises
    ------
    InvalidInput
        Lance cannot store the type, or no Arrow type is known for the annotation.
    """
    if isinstance(spec, pa.DataType):
        return _stored(column, spec)
    origin = get_origin(spec) or spec
    if origin in (list, Sequence) and get_args(spec):
        return pa.list_(arrow_type(column, get_args(spec)[0]))
    if origin is Mapping:
        origin = dict
    if isinstance(origin, type) and origin in _PYTHON:
        return _PYTHON[origin]
    raise InvalidInput(f"column {column!r}: no Arrow type is known for {spec!r}; give a pyarrow type")


def unwrap(column: str, kind: Any, metadata: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """Undo what Lance and GeoArrow make of a field: give the type and marks that one would write.

    Blobs come back from Lance as ``lance.blob.v2``, a struct; they are written as large_binary with a mark.
    JSON is stored as ``lance.json`` and comes back as ``arrow.json``. GeoArrow's own Python package registers
    types, so the same column reads as one of them or as its storage, whichever is installed.
    """
    marks = dict(metadata)
    extended = isinstance(kind, pa.BaseExtensionType)
    extension = kind.extension_name if extended else marks.get(EXTENSION, "")
    if extension.startswith("geoarrow.") and extended:
        marks |= {EXTENSION: extension, EXTENSION_METADATA: kind.__arrow_ext_serialize__().decode()}
        return kind.storage_type, marks
    if extension in {"arrow.json", "lance.json", "lance.blob.v2"}:
        marks = {k: v for k, v in marks.items() if k not in {EXTENSION, EXTENSION_METADATA}}
        if extension != "lance.blob.v2":
            return pa.json_(), marks
        return pa.large_binary(), marks | {BLOB: "true"}
    if marks.get(BLOB) == "true" and isinstance(kind, pa.DataType) and pt.is_struct(kind):
        raise InvalidInput(
            f"column {column!r} holds the places of blobs, not the blobs: "
            "read the table with blob_handling='all_binary'"
        )
    return kind, marks


def _stored(column: str, kind: pa.DataType) -> pa.DataType:
    """Give the type that Lance 14 returns for `kind`, to any depth."""
    for unsupported, remedy in _UNSUPPORTED:
        if unsupported(kind):
            raise InvalidInput(f"column {column!r}: Lance does not store {kind}; cast it to {remedy}")
    if pt.is_nested(kind):
        return _stored_nested(column, kind)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.json_() if kind.extension_name == "arrow.json" else kind
    if pt.is_dictionary(kind):  # Lance forgets that a dictionary is ordered
        return pa.dictionary(kind.index_type, _stored(column, kind.value_type))
    if pt.is_string_view(kind):
        return pa.string()
    return pa.binary() if pt.is_binary_view(kind) else kind


def _stored_nested(column: str, kind: pa.DataType) -> pa.DataType:
    if pt.is_fixed_size_list(kind):
        return _stored_fixed_size_list(column, kind)
    if pt.is_list(kind):
        return pa.list_(_stored_field(column, kind.value_field))
    if pt.is_large_list(kind):
        return pa.large_list(_stored_field(column, kind.value_field))
    if pt.is_map(kind):  # Lance refuses sorted keys
        return pa.map_(_stored(column, kind.key_type), _stored_field(column, kind.item_field))
    return pa.struct([_stored_field(column, kind.field(i)) for i in range(kind.num_fields)])


def _stored_field(column: str, field: pa.Field) -> pa.Field:
    return field.with_type(_stored(column, field.type))


def _stored_fixed_size_list(column: str, kind: pa.DataType) -> pa.DataType:
    value = kind.value_type
    if kind.list_size < 1:
        raise InvalidInput(f"column {column!r}: {kind} has no elements; a fixed-size list holds at least one")
    fixed = pt.is_primitive(value) or pt.is_fixed_size_binary(value) or pt.is_decimal(value)
    if not (fixed or pt.is_struct(value) or pt.is_fixed_size_list(value)):
        # Lance 14 panics in its encoder (strings, binary) or refuses (lists).
        raise InvalidInput(f"column {column!r}: Lance does not store {kind}; cast it to list<{value}>")
    # Of elements other than structs Lance forgets that they are not nullable.
    element = _stored_field(column, kind.value_field) if pt.is_struct(value) else _stored(column, value)
    return pa.list_(element, kind.list_size)


def vector_layout(kind: pa.DataType) -> tuple[pa.DataType, int, bool] | None:
    """Say how a type holds vectors.

    Returns
    -------
    tuple of (element type, dimension, many) or None
        `many` is true for multi-vectors, ``list<fixed_size_list<float>[d]>``: any number of vectors in each
        row. None when the type holds no vectors. The dimension of binary (uint8) vectors counts bytes.
    """
    many = pt.is_list(kind)
    inner = kind.value_type if many else kind
    if not pt.is_fixed_size_list(inner):
        return None
    element = inner.value_type
    legal = pt.is_floating(element) or (not many and (pt.is_int8(element) or pt.is_uint8(element)))
    return (element, inner.list_size, many) if legal else None


def geo_point() -> pa.DataType:
    """Give the type of a GeoArrow point: ``struct<x: double, y: double>``, longitude and latitude in degrees.

    A column of this type with the role ``geo`` takes an RTREE index and answers ``st_intersects`` and the
    like. It carries no coordinate reference system: Lance 14 cannot build an RTREE over a column whose
    ``ARROW:extension:metadata`` names one.
    """
    return pa.struct([("x", pa.float64()), ("y", pa.float64())])


def points(longitude: Any, latitude: Any) -> pa.StructArray:
    """Build an array of points.

    Parameters
    ----------
    longitude, latitude : array-like of float, shape (n,)
        Degrees, within [-180, 180] and [-90, 90]. Where either is null, so is the point.

    Returns
    -------
    pa.StructArray, length n, of type `geo_point()`

    Raises
    ------
    InvalidInput
        The lengths differ, or a coordinate is out of range or not a number; the message names the row.
    """
    x, y = pa.array(longitude, pa.float64()), pa.array(latitude, pa.float64())
    if len(x) != len(y):
        raise InvalidInput(f"{len(x)} longitudes but {len(y)} latitudes; give one of each for every point")
    for name, degrees, limit in (("longitude", x, 180.0), ("latitude", y, 90.0)):
        _check_degrees(name, degrees, limit)
    return pa.StructArray.from_arrays([x, y], fields=list(geo_point()), mask=_or(x.is_null(), y.is_null()))


def _check_degrees(name: str, degrees: pa.Array, limit: float) -> None:
    values: NDArray[np.float64] = degrees.fill_null(0.0).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~(np.abs(values) <= limit))
    if bad.size:
        row = int(bad[0])
        raise InvalidInput(f"{name} in row {row} is {values[row]}; degrees lie within ±{limit:g}")


def _or(left: pa.Array, right: pa.Array) -> pa.Array:
    return pa.array(left.to_numpy(zero_copy_only=False) | right.to_numpy(zero_copy_only=False))


def numpy_dtype(element: pa.DataType) -> np.dtype[np.generic]:
    """Return numpy's name for a number type; Arrow's own ``to_pandas_dtype`` needs pandas."""
    dtype: np.dtype[np.generic] = pa.array([], element).to_numpy().dtype
    return dtype
