"""Roles: what a column means to searches, joins and indexes, beyond its type."""

from collections.abc import Callable, Mapping
from enum import StrEnum

import pyarrow as pa
import pyarrow.types as pt

from lake.errors import InvalidInput
from lake.schema.arrow import BLOB, EXTENSION, vector_layout


class Role(StrEnum):
    """What a column means.

    A role that is not given follows from the column's type. These do not, since a type cannot tell them
    from others, and are always given: `DESCRIPTION`, `CATEGORY` (but for dictionaries), `GEO` (but for
    columns that GeoArrow has marked) and `BLOB` (but for columns that Lance has marked).
    """

    KEY = "key"
    """Part of the entity key."""
    TEXT = "text"
    """Words to search."""
    DESCRIPTION = "description"
    """Text that says what the entity is: what one would embed."""
    VECTOR = "vector"
    """One vector, or one list of vectors, in each row."""
    TAGS = "tags"
    """A list of labels."""
    CATEGORY = "category"
    """One of few values: to filter and to group by."""
    NUMBER = "number"
    TIME = "time"
    GEO = "geo"
    """A GeoArrow geometry."""
    JSON = "json"
    BLOB = "blob"
    """Large binary objects, kept apart from the other columns and read lazily."""
    BOOLEAN = "boolean"
    OTHER = "other"
    """No meaning that the lake knows."""


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _is_tags(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind)) and _is_text(kind.value_type)


def _is_key(kind: pa.DataType) -> bool:
    exact = pt.is_integer(kind) or pt.is_decimal(kind) or pt.is_temporal(kind)
    raw = pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind)
    return bool(exact or raw or _is_text(kind) or pt.is_dictionary(kind) or kind == pa.uuid())


def _is_category(kind: pa.DataType) -> bool:
    return bool(_is_text(kind) or pt.is_integer(kind) or pt.is_boolean(kind) or pt.is_dictionary(kind))


def _is_json(kind: pa.DataType) -> bool:
    return bool(kind == pa.json_())


_STRINGS = "cast it to string"
_FITS: dict[Role, tuple[Callable[[pa.DataType], bool], str]] = {
    Role.KEY: (
        _is_key,
        "choose integers, strings, binary, uuid, dates or decimals: values with one equality",
    ),
    Role.TEXT: (_is_text, _STRINGS),
    Role.DESCRIPTION: (_is_text, _STRINGS),
    Role.VECTOR: (
        lambda kind: vector_layout(kind) is not None,
        "cast it to a fixed-size list of floats, int8 or uint8, such as pa.list_(pa.float32(), dimension)",
    ),
    Role.TAGS: (_is_tags, "cast it to list<string>"),
    Role.CATEGORY: (_is_category, "cast it to string, integer, boolean or a dictionary"),
    Role.NUMBER: (_is_number, "cast it to an integer, float or decimal"),
    Role.TIME: (pt.is_temporal, "cast it to a timestamp, date, time or duration"),
    Role.JSON: (_is_json, "cast it to pa.json_()"),
    Role.BLOB: (pt.is_large_binary, "cast it to large_binary"),
    Role.BOOLEAN: (pt.is_boolean, "cast it to bool"),
}
_INFERRED = (Role.JSON, Role.VECTOR, Role.TEXT, Role.TAGS, Role.NUMBER, Role.BOOLEAN, Role.TIME)


def as_role(column: str, role: str) -> Role:
    """Parse a role, or raise `InvalidInput` with the roles that there are."""
    try:
        return Role(role)
    except ValueError:
        raise InvalidInput(f"column {column!r}: no role {role!r}; there are {', '.join(Role)}") from None


def infer(kind: pa.DataType, metadata: Mapping[str, str]) -> Role:
    """Find the role that a type and its field's metadata imply."""
    if metadata.get(BLOB) == "true":
        return Role.BLOB
    if metadata.get(EXTENSION, "").startswith("geoarrow."):
        return Role.GEO
    if pt.is_dictionary(kind):
        return Role.CATEGORY
    return next((role for role in _INFERRED if _FITS[role][0](kind)), Role.OTHER)


def settle(
    column: str, role: Role, kind: pa.DataType, metadata: Mapping[str, str]
) -> tuple[pa.DataType, dict[str, str]]:
    """Give the type and the field metadata by which Lance stores a column of this role.

    Strings become JSON and binary becomes blobs where the role asks for it: Arrow's cast does the rest.

    Raises
    ------
    InvalidInput
        The role is impossible for the type.
    """
    marks = dict(metadata)
    if role is Role.GEO:
        marks.setdefault(EXTENSION, _geometry(kind))
        possible, remedy = marks[EXTENSION].startswith("geoarrow."), "use lake.schema.geo_point(), WKB or WKT"
    elif role is Role.OTHER:
        possible, remedy = True, ""
    else:
        if role is Role.JSON and _is_text(kind):
            kind = pa.json_()
        elif role is Role.BLOB and (pt.is_binary(kind) or pt.is_large_binary(kind)):
            kind, marks[BLOB] = pa.large_binary(), "true"
        fits, remedy = _FITS[role]
        possible = fits(kind) and not (role is Role.KEY and BLOB in marks)
    if not possible:
        raise InvalidInput(f"column {column!r} of type {kind} cannot have the role {role.value!r}: {remedy}")
    return kind, marks


def _geometry(kind: pa.DataType) -> str:
    """Name the GeoArrow extension of a type, or nothing."""
    if pt.is_struct(kind) and [f.name for f in kind][:2] == ["x", "y"] and all(f.type == pa.float64() for f in kind):
        return "geoarrow.point"
    if pt.is_binary(kind) or pt.is_large_binary(kind):
        return "geoarrow.wkb"
    return "geoarrow.wkt" if _is_text(kind) else ""
