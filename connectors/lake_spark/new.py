"""The schema of a table that is to be made from a DataFrame."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import pyarrow.types as pt
from pyspark.sql.types import StructField, StructType

from lake.errors import InvalidInput, NotFound
from lake.schema import Column, Embedding, Schema
from lake_spark.options import names
from lake_spark.types import DIMENSION, arrow_schema, readable, stored_field


def new_schema(schema: StructType, given: Mapping[str, str]) -> Schema:
    """Choose the columns of a table from those of a DataFrame.

    A column that came from a lake table keeps its type and meaning. Otherwise an array of floats needs its dimension:
    ``.option("embedding.v", "384")``, or JSON for more (``{"dimension": 384, "of": "text", "metric": "cosine"}``), or
    ``dimension`` in the field's metadata; or ``.option("role.v", "other")`` if it holds no vectors. ``key`` names the
    entity key, ``role.<column>`` a role. Columns outside the key are nullable: that Spark knows of no null yet is
    no promise.

    Raises
    ------
    InvalidInput
        A column's meaning is not clear, or not legal.
    NotFound
        An option names a column that is not there.
    """
    embeddings = {n: Embedding(**_parsed(n, text)) for n, text in _of(given, "embedding.", schema.names).items()}
    roles = _of(given, "role.", schema.names)
    arrow = arrow_schema(schema)
    columns = [_column(f, arrow.field(f.name), embeddings.get(f.name), roles.get(f.name)) for f in schema]
    known = {column.name for column in columns}
    return Schema((_selfstanding(column, known) for column in columns), names(given.get("key")))


def require_agreement(stored: Schema, columns: list[str], given: Mapping[str, str]) -> None:
    """Accept the options that would make a table on one that is there, if it is made so: a job may run again.

    Raises
    ------
    InvalidInput
        The table has another key, or a column another meaning.
    """
    key = names(given.get("key"))
    if key is not None and tuple(key) != stored.key:
        raise InvalidInput(f"option 'key' is {key}, but the table's entity key is {list(stored.key)}; leave it out")
    for name, text in _of(given, "embedding.", columns).items():
        wanted, found = _parsed(name, text), stored.column(name).embedding
        if found is None or any(getattr(found, part) != value for part, value in wanted.items()):
            raise InvalidInput(f"option 'embedding.{name}' is {text!r}, but the table has {found}; leave it out")
    for name, role in _of(given, "role.", columns).items():
        if stored.column(name).role != role:
            raise InvalidInput(
                f"option 'role.{name}' is {role!r}, but the table has {stored.column(name).role.value!r}; leave it out"
            )


def _of(given: Mapping[str, str], prefix: str, columns: list[str]) -> dict[str, str]:
    """Options of one kind by column; Spark forgets the case of an option's name."""
    low = {column.lower(): column for column in columns}
    found = {name[len(prefix) :]: value for name, value in given.items() if name.lower().startswith(prefix)}
    for name in found:
        if name.lower() not in low:
            raise NotFound(f"option {prefix + name!r}: there is no column {name!r}; there are {columns}")
    return {low[name.lower()]: value for name, value in found.items()}


def _parsed(column: str, text: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(text)
        found = {"dimension": found} if isinstance(found, int) else dict(found)
        Embedding(**found)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"option 'embedding.{column}' is {text!r}; give a dimension, or JSON such as "
            f'{{"dimension": 384, "metric": "cosine"}}: {error}'
        ) from error
    return cast("dict[str, Any]", found)


def _column(field: StructField, arrow: pa.Field, embedding: Embedding | None, role: str | None) -> Column:
    stored = stored_field(field)
    if stored is not None and embedding is None and role is None:
        column = Schema.decode(pa.schema([stored])).columns[0]
        if readable(field.name, column.type).equals(arrow.type):
            return column
    if embedding is None and DIMENSION in (field.metadata or {}):
        embedding = Embedding(int(field.metadata[DIMENSION]))
    kind = _plain(arrow.type)
    floats = pt.is_list(kind) and pt.is_floating(kind.value_type)
    if floats and embedding is None and role is None:
        raise InvalidInput(
            f"column {field.name!r} holds arrays of floats: give their dimension, .option('embedding.{field.name}', "
            f"'384'), or say that they are no vectors, .option('role.{field.name}', 'other')"
        )
    if embedding is not None:
        if not floats:
            raise InvalidInput(f"column {field.name!r} of type {arrow.type} holds no vectors; cast it to array<float>")
        kind = pa.list_(pa.float32(), embedding.dimension)
    return Column(field.name, kind, role, embedding=embedding)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Give lists Lance's own name for their elements."""
    if pt.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _selfstanding(column: Column, known: set[str]) -> Column:
    """Forget sources that the DataFrame left out."""
    if column.embedding is not None and column.embedding.of is not None and column.embedding.of not in known:
        column = replace(column, embedding=replace(column.embedding, of=None))
    if column.derivation is not None and not set(column.derivation.inputs) <= known:
        column = replace(column, derivation=None)
    return column
