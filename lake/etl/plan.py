"""The plan of a load: made once, kept in the job's folder, so that a job that goes on later does the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lake.errors import AlreadyExists, InvalidInput, NotFound
from lake.etl.partition import check_key
from lake.etl.read import Reader
from lake.etl.slices import Slice, of_files, of_table
from lake.etl.spec import Into, Load
from lake.etl.tasks import Work
from lake.etl.transform import Steps, check_filter, check_names, flat_names
from lake.etl.types import as_type
from lake.run import keeper
from lake.schema import Schema
from lake.storage import Files, Location, require_put_if_absent, table_name
from lake.table import history
from lake.table.commit import pinned
from lake.table.inputs import check_columns, infer
from lake.table.snapshot import Snapshot
from lake.table.write import create_table

PLAN = "load.json"
_PARTITION_BYTES = 64 << 20
_PARTITIONS = 512
_OLDEST = timedelta(days=6)  # expiry takes files that no version names for garbage when they are a week old


@dataclass(frozen=True)
class Plan:
    """What a load does.

    Parameters
    ----------
    work : Work
        What its tasks share.
    slices : tuple of Slice
        One task each.
    """

    work: Work
    slices: tuple[Slice, ...]

    @property
    def bytes(self) -> int:
        """Stored size of what is read."""
        return sum(part.bytes for part in self.slices)

    def save(self, files: Files) -> None:
        """Keep it in the job's folder. Nothing in it is secret: options are given anew."""
        work, source = self.work, self.work.reader.snapshot
        plan = {
            "slices": [part.to_json() for part in self.slices],
            "target": _identity(work.target),
            "source": None if source is None else [source.location.uri, *_identity(source)],
            "read": _schema_text(work.reader.schema),
            "types": _schema_text(work.types),
            "columns": work.columns,
            "key": work.key,
            "partitions": work.partitions,
            "begun": datetime.now(UTC).isoformat(),
        }
        files.write(PLAN, json.dumps(plan).encode())

    @classmethod
    def load(cls, root: Location, spec: Load, job: str, folder: Location) -> Plan | None:
        """Take up the plan of a job that was interrupted.

        Returns
        -------
        Plan or None
            ``None`` if there is none, if it was for a table that was dropped or whose version has expired, or if it is
            so old that `lake.Table.expire` may have removed what its tasks wrote.
        """
        files = Files(folder)
        if not files.exists(PLAN):
            return None
        plan = json.loads(files.read(PLAN))
        target = _same(_target(root, spec), plan["target"])
        if target is None or datetime.now(UTC) - datetime.fromisoformat(plan["begun"]) > _OLDEST:
            return None
        reader = Reader(spec.source, _source_location(root, spec), None, _schema_of(plan["read"]), _lenient(spec))
        if plan["source"] is not None:
            uri, *identity = plan["source"]
            snapshot = _same(Location(uri, reader.location.options), identity)
            if snapshot is None:
                return None
            reader = replace(reader, snapshot=snapshot)
        types = _schema_of(plan["types"]) or pa.schema([])
        columns, key = tuple(plan["columns"]), tuple(plan["key"])
        work = Work(job, spec, reader, types, target, folder, columns, key, plan["partitions"])
        return cls(work, tuple(map(Slice.from_json, plan["slices"])))


def make(root: Location, spec: Load, job: str, folder: Location) -> Plan:
    """Look at the source and at the table, which is made if it is not there, and decide what each task does.

    Raises
    ------
    NotFound
        No file, table or column of a name that is given.
    InvalidInput
        The source does not fit the table.
    """
    target = _target(root, spec)
    require_put_if_absent(target)
    location = _source_location(root, spec)
    reader = Reader(spec.source, location, _source_snapshot(root, spec, location, folder), lenient=_lenient(spec))
    slices = of_files(spec.source, location) if reader.snapshot is None else of_table(reader.snapshot)
    table = _existing(target, spec)
    sample = _sample(reader, slices)
    known = None if table is None else table.schema.to_arrow()
    types = _types(spec, sample, known)
    reader = replace(reader, schema=_read_schema(spec, reader, types, slices))
    check_filter(spec.transform.filter, types)
    columns = Steps(spec.transform, types).selected(types.names)
    if table is None:
        table = _create(target, spec.into, pa.schema([types.field(name) for name in columns]))
    schema = table.schema
    given = pa.schema([types.field(name) for name in columns])
    check_columns(given, schema.to_arrow(), partial=spec.into.mode == "merge")
    written = tuple(schema.names) if spec.into.mode == "append" else tuple(n for n in schema.names if n in columns)
    key = _key(spec, schema, written)
    size = sum(part.bytes for part in slices)
    partitions = min(_PARTITIONS, 1 + size // _PARTITION_BYTES) if key else 0
    return Plan(Work(job, spec, reader, types, table, folder, written, key, partitions), tuple(slices))


def _target(root: Location, spec: Load) -> Location:
    return root.join(table_name(spec.into.table) + ".lance")


def _source_location(root: Location, spec: Load) -> Location:
    options = spec.source.storage_options
    return root if options is None else Location.of(root.uri, options)


def _source_snapshot(root: Location, spec: Load, base: Location, folder: Location) -> Snapshot | None:
    source = spec.source
    for engine, asked in (("spark", source.spark), ("ray", source.ray)):
        if asked is not None:
            kept = folder.join("source.lance")
            keeper(engine)(asked, kept)
            return pinned(kept)
    if source.table is None:
        return None
    path = (
        Location.of(source.table, base.options)
        if "/" in source.table
        else root.join(table_name(source.table) + ".lance")
    )
    return pinned(path) if source.version is None else history.resolve(path, None, source.version)


def _lenient(spec: Load) -> bool:
    return spec.transform.select is not None


def _existing(location: Location, spec: Load) -> Snapshot | None:
    """Return the table as it is, if it is there and means what the load says."""
    try:
        found = pinned(location)
    except NotFound:
        return None
    schema, into = found.schema, spec.into
    if into.key and tuple(into.key) != schema.key:
        raise InvalidInput(f"into.key: {into.table} is there, and its entity key is {schema.key or 'none'}")
    for name, vector in into.embeddings.items():
        if schema.column(name).embedding != vector.embedding():
            raise InvalidInput(f"into.embeddings: {name!r} of {into.table} is {schema.column(name).embedding}")
    return found


def _create(location: Location, into: Into, columns: pa.Schema) -> Snapshot:
    """Make the table without rows: they come in one commit, which bears the job's id."""
    embeddings = {name: vector.embedding() for name, vector in into.embeddings.items()}
    schema = Schema.from_arrow(columns, key=into.key or None, roles=into.roles, embeddings=embeddings)
    with suppress(AlreadyExists):  # another job was faster
        create_table(location, schema)
    return pinned(location)


def _sample(reader: Reader, slices: Sequence[Slice]) -> pa.RecordBatch:
    """Return the first rows that there are; of a source without any, its columns."""
    for part in slices:
        sample = reader.sample(part)
        if sample.schema.names:
            return sample
    if reader.snapshot is None:
        raise NotFound(f"the files {list(reader.source.files)} hold no rows")
    return pa.RecordBatch.from_pylist([], reader.snapshot.dataset.schema)


def _types(spec: Load, sample: pa.RecordBatch, known: pa.Schema | None) -> pa.Schema:
    """Choose what each column is cast to: as the load says, as the table has it, or as the first rows are."""
    transform, source = spec.transform, spec.source
    for name in source.types:
        _find(name, sample.schema.names, "source.types")
    for name in source.columns or ():
        _find(name, sample.schema.names, "source.columns")
    outlined = Steps(transform, pa.schema([])).outline(sample)
    names = outlined.schema.names
    check_names(transform, flat_names(sample, transform), names)
    guessed = infer(pa.Table.from_batches([outlined]))[0]
    given = {transform.rename.get(name, name): text for name, text in source.types.items()} | dict(transform.cast)
    fields = []
    for field in guessed:
        vector = spec.into.embeddings.get(field.name)
        if field.name in given:
            kind = as_type(given[field.name])
        elif known is not None and field.name in known.names:
            kind = known.field(field.name).type
        elif vector is not None and not pa.types.is_fixed_size_list(field.type):
            kind = pa.list_(pa.float32(), vector.dimension)
        else:
            kind = field.type
        if pa.types.is_null(kind):
            raise InvalidInput(
                f"column {field.name!r} has no value in the first rows: give its type under transform.cast"
            )
        fields.append(pa.field(field.name, kind, field.nullable))
    return pa.schema(fields)


def _read_schema(spec: Load, reader: Reader, types: pa.Schema, slices: Sequence[Slice]) -> pa.Schema | None:
    """Say what text is read as: CSV as text, JSON as its first rows are."""
    texts = [part for part in slices if part.kind in {"csv", "jsonl"}]
    kinds = {part.kind for part in texts}
    if not texts:
        return None
    if len(kinds) > 1:
        raise InvalidInput("the source has CSV and JSON lines, which say nothing of each other's types: make two jobs")
    sample = _sample(reader, texts)
    if kinds == {"csv"}:
        return pa.schema([pa.field(name, pa.string()) for name in sample.schema.names])
    fields = []
    for field in sample.schema:
        name = spec.transform.rename.get(field.name, field.name)
        final = types.field(name).type if name in types.names else field.type
        wider = pa.types.is_floating(final) and pa.types.is_integer(field.type)
        unknown = pa.types.is_null(field.type) and not pa.types.is_fixed_size_list(final)
        fields.append(field.with_type(final if wider or unknown else field.type))
    return pa.schema(fields)


def _key(spec: Load, schema: Schema, written: tuple[str, ...]) -> tuple[str, ...]:
    """Return by what rows are compared; nothing where they are not."""
    if spec.into.mode == "append" and spec.deduplicate is None:
        return ()
    rule = spec.deduplicate
    key = schema.key if rule is None or rule.key is None else rule.key
    if spec.into.mode == "merge":
        if not schema.key:
            raise InvalidInput(f"into.mode: {spec.into.table} has no entity key to merge by; use append")
        if tuple(key) != schema.key:
            raise InvalidInput(f"deduplicate.key: a merge compares rows by the entity key {list(schema.key)}")
    if not key:
        raise InvalidInput("deduplicate: the table has no entity key; give deduplicate.key")
    arrow = schema.to_arrow()
    check_key(pa.schema([arrow.field(name) for name in written]), key)
    if rule is not None and rule.order_by is not None:
        _find(rule.order_by, written, "deduplicate.order_by")
    return tuple(key)


def _find(name: str, names: Any, place: str) -> None:
    if name not in names:
        raise InvalidInput(f"{place}: there is no column {name!r}; there are {list(names)}")


def _identity(snapshot: Snapshot) -> list[Any]:
    return [snapshot.version, str(snapshot.time)]


def _same(location: Location, identity: list[Any]) -> Snapshot | None:
    """Return a version, if it is the one that was seen before."""
    version, time = identity
    try:
        found = Snapshot(location, version)
    except NotFound:
        return None
    return found if str(found.time) == time else None


def _schema_text(schema: pa.Schema | None) -> str | None:
    return None if schema is None else base64.b64encode(schema.serialize()).decode()


def _schema_of(text: str | None) -> pa.Schema | None:
    return None if text is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def parameters(root: Location, spec: Load) -> Mapping[str, Any]:
    """Return what makes a load the same load: all but credentials, and how many refused rows are too many."""
    shown = spec.model_dump(mode="json", exclude={"source": {"storage_options"}, "refused": {"at_most"}})
    return {"lake": root.uri, **shown}
