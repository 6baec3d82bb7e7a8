"""The semantic schema as Arrow metadata, which Lance keeps in its manifest.

What Lance 14 does to that metadata [all tested in test_survives_lance]:

=======================================  ==============================================================
operation                                metadata
=======================================  ==============================================================
append, delete, merge, compaction,       kept; that of the appended data is ignored
update_config, drop_columns, rename
add_columns                              that of the new fields is taken over, of the schema merged in
alter_columns with a new ``data_type``   **that of the field is lost**, the key's mark too; the writer must
                                         put it back with ``update_field_metadata``
=======================================  ==============================================================

So what a column means travels with its field, where a rename cannot break it. The entity key is marked by
Lance's own primary-key metadata, with positions. Names that are kept inside other metadata (`Embedding.of`,
`Derivation.inputs`) do not follow a rename: whoever renames rewrites them. The schema's ``lake.key`` repeats
the key's names for readers that know nothing of marks, and stands in for a mark that a cast has lost.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from operator import itemgetter
from typing import Any, TypeVar

import pyarrow as pa

from lake.errors import CorruptTable, InvalidInput, NotSupported
from lake.schema.column import (
    DERIVATION,
    DESCRIPTION,
    EMBEDDING,
    KEY_MARK,
    KEY_POSITION,
    OURS,
    ROLE,
    Column,
    Derivation,
    Embedding,
)
from lake.schema.roles import Role

T = TypeVar("T")

FORMAT_VERSION = 1
VERSION = "lake.format_version"
KEY = "lake.key"

_DIGITS = 9  # of a number in metadata; Python refuses to read thousands


def encode_field(column: Column, position: int) -> pa.Field:
    """Encode a column; `position` is its place in the key, from 1, or 0."""
    metadata = dict(column.metadata) | {ROLE: column.role.value}
    if column.description:
        metadata[DESCRIPTION] = column.description
    for name, record in ((EMBEDDING, column.embedding), (DERIVATION, column.derivation)):
        if record is not None:
            metadata[name] = json.dumps(asdict(record), sort_keys=True)
    if position:
        metadata |= {KEY_MARK: "true", KEY_POSITION: str(position)}
    return pa.field(column.name, column.type, column.nullable, metadata)


def decode_field(field: pa.Field, *, role: str | None = None, embedding: Embedding | None = None) -> Column:
    """Decode a column; `role` and `embedding`, where given, replace those in the metadata."""
    metadata = texts(field.metadata, f"column {field.name!r}")
    overridden = role is not None or embedding is not None
    if role is None and embedding is None and metadata.get(ROLE) != Role.KEY:  # keys follow from the marks
        role = metadata.get(ROLE)
    if embedding is None and EMBEDDING in metadata and role in {None, Role.VECTOR}:
        embedding = _record(field.name, EMBEDDING, metadata[EMBEDDING], Embedding)
    derivation = None
    if DERIVATION in metadata:
        derivation = _record(field.name, DERIVATION, metadata[DERIVATION], Derivation)
    try:
        return Column(
            field.name,
            field.type,
            role,
            nullable=field.nullable,
            embedding=embedding,
            derivation=derivation,
            description=metadata.get(DESCRIPTION, ""),
            metadata={k: v for k, v in metadata.items() if k not in OURS},
        )
    except InvalidInput as error:
        if overridden or not {ROLE, EMBEDDING} & metadata.keys():
            raise
        raise CorruptTable(f"the metadata of a column contradicts it: {error}") from error


def encode_schema_metadata(key: tuple[str, ...], metadata: Mapping[str, str]) -> dict[str, str]:
    """Encode what belongs to no single column."""
    ours = {VERSION: str(FORMAT_VERSION)} | ({KEY: json.dumps(key)} if key else {})
    return dict(metadata) | ours


def decode_schema_metadata(schema: pa.Schema) -> tuple[dict[str, str], tuple[str, ...]]:
    """Decode the user's metadata and the key.

    Raises
    ------
    NotSupported
        A newer lake wrote the table.
    CorruptTable
        The metadata cannot be what a lake wrote.
    """
    metadata = texts(schema.metadata, "the schema")
    version = metadata.pop(VERSION, str(FORMAT_VERSION))
    if not (version.isascii() and version.isdigit()):
        raise CorruptTable(f"the table's {VERSION} is {version!r}, not a number")
    if len(version) > _DIGITS or int(version) > FORMAT_VERSION:
        raise NotSupported(
            f"the table has the lake format {version[:20]}, this library reads up to {FORMAT_VERSION}: "
            "install a newer semlake"
        )
    declared = _parse(f"the schema's {KEY}", metadata.pop(KEY, "[]"))
    if not isinstance(declared, list) or not all(isinstance(name, str) for name in declared):
        raise CorruptTable(f"the schema's {KEY} is {declared!r}, not a list of names")
    return metadata, _key(schema, declared)


def _key(schema: pa.Schema, declared: list[str]) -> tuple[str, ...]:
    """Join the fields' marks, which follow renames, with the declared names, which survive casts."""
    marks = []
    for field in schema:
        metadata = texts(field.metadata, f"column {field.name!r}")
        mark, position = metadata.get(KEY_MARK, ""), metadata.get(KEY_POSITION, "0")
        if mark.casefold() in {"true", "1", "yes"} or KEY_POSITION in metadata:  # as Lance reads them
            if not (position.isascii() and position.isdigit() and len(position) <= _DIGITS):
                raise CorruptTable(f"column {field.name!r}: {KEY_POSITION} is {position[:20]!r}, not a position")
            marks.append((int(position), field.name))
    key = [name for _, name in sorted(marks, key=itemgetter(0))]
    if len(key) < len(declared):
        marked = dict(marks)
        key = [marked.get(position, name) for position, name in enumerate(declared, 1)]
    lost = set(key) - set(schema.names)
    if lost or len(set(key)) < len(key):
        raise CorruptTable(
            f"the entity key {key} has lost {sorted(lost)}: the column was dropped, or cast after a rename. "
            f"Give dataset.update_schema_metadata the right JSON list as {KEY!r}, or None for no key"
        )
    return tuple(key)


def texts(metadata: Mapping[bytes, bytes] | None, where: str) -> dict[str, str]:
    """Decode Arrow metadata; Lance stores only UTF-8."""
    try:
        return {k.decode(): v.decode() for k, v in (metadata or {}).items()}
    except UnicodeDecodeError as error:
        raise InvalidInput(f"metadata of {where} is not UTF-8 ({error}); encode it, say in base64") from None


def _record(column: str, name: str, text: str, build: Callable[..., T]) -> T:
    """Build an `Embedding` or `Derivation` from JSON, leaving out what this version does not know."""
    where = f"column {column!r}: {name}"
    payload = _parse(where, text)
    if not isinstance(payload, dict):
        raise CorruptTable(f"{where} is not a JSON object")
    known = {k: v for k, v in payload.items() if k in build.__annotations__}
    try:
        return build(**known)
    except (TypeError, ValueError, AttributeError) as error:  # InvalidInput is a ValueError
        raise CorruptTable(f"{where} is not valid: {error}") from error


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptTable(f"{where} is not JSON: {error}") from error
