"""The commands. Each is a call of the library, and one way to print what came back."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

import lake
from lake.anatomy import human
from lake.cli.demo import run_demo
from lake.cli.run import run
from lake.cli.show import emit, grid
from lake.errors import CorruptTable, InvalidInput, NotFound
from lake.index import BuildReport
from lake.table.inputs import infer

_INTERRUPTED = 130

app = typer.Typer(
    help="A vector data lake: tables, indexes and searches as open files on object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Root = Annotated[str, typer.Argument(help="A folder, or a URL such as s3://bucket/lake.", envvar="LAKE_ROOT")]
Name = Annotated[str, typer.Argument(help="The table's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Storage option key=value; credentials are better left in the environment."),
]
At = Annotated[str | None, typer.Option("--at", help="A version, a tag, or a time in ISO 8601.")]


@app.command()
def ls(root: Root, option: Option = None, as_json: Json = False) -> None:
    """List the tables of a lake."""
    lk = _connect(root, option)
    headings = ("table", "version", "rows", "columns", "key")
    lines: list[tuple[object, ...]] = []
    damaged: list[tuple[str, str]] = []
    for name in lk:
        try:
            t = lk.open_table(name)
            lines.append((name, t.version, len(t), len(t.schema), ", ".join(t.schema.key)))
        except NotFound:  # dropped since it was listed
            continue
        except CorruptTable as error:  # one damaged table must not hide the others
            damaged.append((name, str(error)))
    data = [dict(zip(headings, line, strict=True)) for line in lines]
    data += [{"table": name, "error": error} for name, error in damaged]
    lines += [(name, "damaged", "", "", "") for name, _ in damaged]
    emit(grid(lk.uri, headings, lines), as_json=as_json, data=data)


@app.command()
def describe(root: Root, name: Name, at: At = None, option: Option = None, as_json: Json = False) -> None:
    """Show what a table means, and what a version of it is made of."""
    anatomy = _open(root, name, option, at).describe()
    emit(anatomy, as_json=as_json, data=anatomy.to_dict())


@app.command()
def ingest(
    root: Root,
    name: Name,
    files: Annotated[list[str], typer.Argument(help="Parquet files or folders.")],
    key: Annotated[list[str] | None, typer.Option(help="Column of the entity key, if the table is new.")] = None,
    merge: Annotated[bool, typer.Option(help="Upsert by entity key instead of appending.")] = False,
    commit_id: Annotated[str | None, typer.Option(help="Running again with the same id does nothing.")] = None,
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Bring Parquet files into a table; it is created if it is not there."""
    lk = _connect(root, option)
    new = name not in lk
    if new and merge:
        if not key:
            raise InvalidInput(f"ingest --merge: {name} is new, so name its entity key with --key")
        # Created empty: rows that fill a new table are appended, and nobody would look for a key that is there twice.
        lk.create_table(name, infer(files)[0], key=key, exist_ok=True)
    elif not new and key and (known := list(lk.open_table(name).schema.key)) != key:
        raise InvalidInput(f"ingest --key {', '.join(key)}: {name} is there, and its entity key is {known or 'none'}")
    if new and not merge:
        table = lk.create_table(name, files, key=key, commit_id=commit_id)
        data: dict[str, Any] = {"version": table.version, "inserted": len(table), "created": True}
        text = f"created {name}: {len(table):,} rows, version {table.version}"
    else:
        table = lk.open_table(name)
        write = table.merge if merge else table.append
        receipt = write(files, commit_id=commit_id)
        data = receipt.to_dict() | ({"created": True} if new else {})
        text = (
            ("created " if new else "")
            + f"{name} version {receipt.version}: {receipt.inserted:,} inserted, {receipt.updated:,} updated, "
            f"{human(receipt.bytes)}, {receipt.seconds:.1f} s" + (" (done before)" if receipt.repeated else "")
        )
    emit(text, as_json=as_json, data=data)


@app.command()
def search(
    root: Root,
    name: Name,
    text: Annotated[str | None, typer.Option(help="Words to look for (BM25).")] = None,
    like: Annotated[str | None, typer.Option(help="Key of a row: look for rows with a similar vector.")] = None,
    vector: Annotated[Path | None, typer.Option(help="A .npy file with the query vector.")] = None,
    where: Annotated[str | None, typer.Option(help="A SQL filter.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    recall: Annotated[float | None, typer.Option(help="Of a vector search, where the index is calibrated.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas.")] = None,
    explain: Annotated[bool, typer.Option(help="Only tell what would be done.")] = False,
    at: At = None,
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Search by vector, text, both, or a filter; the caption says what was covered."""
    table = _open(root, name, option, at)
    query: dict[str, Any] = {"text": text, "where": where, "k": k}
    if like is not None:
        query["like"] = _key(table.schema, like)
    if vector is not None:
        query["vector"] = _load(vector)
    if recall is not None:
        query["recall"] = recall
    if columns:
        query["columns"] = [c.strip() for c in columns.split(",")]
    if explain:
        emit(table.explain(**query), as_json=as_json)
        return
    result = table.search(**query)
    data = {"rows": result.to_pylist(), "coverage": result.coverage.to_dict()}
    emit(result, as_json=as_json, data=data)


@app.command()
def history(
    root: Root,
    name: Name,
    limit: Annotated[int, typer.Option(help="How many versions.")] = 20,
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Show the versions of a table, newest first."""
    versions = _open(root, name, option).versions(limit)
    lines = [
        (v.version, f"{v.time:%Y-%m-%d %H:%M:%S}", v.verb, v.rows, v.fragments, ", ".join(v.tags), v.commit_id[:12])
        for v in versions
    ]
    shown = grid(name, ("version", "time (UTC)", "what", "rows", "fragments", "tags", "commit"), lines)
    emit(shown, as_json=as_json, data=[v.to_dict() for v in versions])


@app.command()
def index(
    root: Root,
    name: Name,
    column: Annotated[str | None, typer.Argument(help="Declare an index on this column.")] = None,
    kind: Annotated[str, typer.Option(help="Kind of index; 'auto' chooses and says why.")] = "auto",
    metric: Annotated[str | None, typer.Option(help="Of a vector index.")] = None,
    build: Annotated[bool, typer.Option(help="Build what is declared.")] = True,
    calibrate: Annotated[bool, typer.Option(help="Measure recall, so that searches can ask for one.")] = False,
    drop: Annotated[str | None, typer.Option(help="Drop the index of this name; others are left alone.")] = None,
    job_id: Annotated[str | None, typer.Option(help="The same id resumes a build that was cut short.")] = None,
    executor: Annotated[str, typer.Option(help="Where the build runs.")] = "local",
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Declare an index, build what is declared, and show what the indexes cover."""
    table = _open(root, name, option)
    if drop is not None:
        table.drop_index(drop)
    if column is not None:
        table.create_index(column, kind, metric=metric)
    only_drop = drop is not None and column is None
    if build and not only_drop and table.indexes():
        report = _build(table, executor, job_id or f"index-{uuid.uuid4().hex[:12]}")
        if not as_json:
            emit(report, as_json=False)
    curve = table.calibrate(executor=executor) if calibrate else None
    if curve is not None and not as_json:
        emit(curve, as_json=False)
    coverage = table.coverage()
    told = {"calibration": curve.to_dict()} if curve is not None else {}
    emit(coverage, as_json=as_json, data=coverage.to_dict() | told)


@app.command()
def compact(
    root: Root,
    name: Name,
    target_rows: Annotated[int, typer.Option(help="Rows that a fragment should have.")] = 1 << 20,
    executor: Annotated[str, typer.Option(help="Where fragments are rewritten.")] = "local",
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Rewrite small fragments into large ones."""
    done = _open(root, name, option).compact(target_rows=target_rows, executor=executor)
    text = (
        f"{name} version {done.version}: {done.fragments_removed} fragments became {done.fragments_added}"
        + (f", {done.fenced} left alone for running jobs" if done.fenced else "")
        + (f", {done.conflicts} planned again since others changed the table" if done.conflicts else "")
        + f", {done.seconds:.1f} s"
    )
    emit(text, as_json=as_json, data=done.to_dict())


@app.command()
def expire(
    root: Root,
    name: Name,
    days: Annotated[float, typer.Option(help="Remove versions older than this.")] = 14.0,
    keep: Annotated[int, typer.Option(help="Keep at least the newest so many.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only tell.")] = False,
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Remove old versions and the files that only they name."""
    done = _open(root, name, option).expire(_age(days), keep=keep, dry_run=not yes)
    verb = "would remove" if done.dry_run else "removed"
    text = (
        f"{verb} {len(done.versions)} versions, {done.files} files, {human(done.bytes)}; {done.kept} versions stay"
        + (f", of those {list(done.protected)} because of tags, pins or branches" if done.protected else "")
        + ("; add --yes to do it" if done.dry_run and done.versions else "")
    )
    emit(text, as_json=as_json, data=done.to_dict())


app.command()(run)


@app.command()
def demo(
    root: Annotated[str, typer.Argument(help="Where to put the lake.")] = "./demo-lake",
    as_json: Json = False,
) -> None:
    """Load 8,000 Debian packages, build two indexes, search, and show the history."""
    run_demo(root, as_json=as_json)


def _connect(root: str, option: list[str] | None) -> lake.Lake:
    pairs = [o.partition("=") for o in option or []]
    if any(not sep for _, sep, _ in pairs):
        raise InvalidInput("--option: write key=value")
    return lake.connect(root, {key: value for key, _, value in pairs})


def _open(root: str, name: str, option: list[str] | None, at: str | None = None) -> lake.Table:
    table = _connect(root, option).open_table(name)
    if at is None:
        return table
    return table.at(int(at) if at.isdecimal() else at)


def _key(schema: lake.Schema, text: str) -> Any:
    """Read the key of a row as its column has it; a key of several columns is written as a JSON object."""
    if not schema.key:
        raise InvalidInput("--like: the table has no entity key; search with --vector instead")
    if len(schema.key) == 1:
        return _value(schema[schema.key[0]], text)
    try:
        given = json.loads(text)
    except json.JSONDecodeError:
        given = None
    if not isinstance(given, dict) or set(given) != set(schema.key):
        example = json.dumps(dict.fromkeys(schema.key, "…"), ensure_ascii=False)
        raise InvalidInput(f"--like {text}: the key has {len(schema.key)} columns; write {example}")
    return {name: _value(schema[name], str(value)) for name, value in given.items()}


def _value(column: lake.Column, text: str) -> Any:
    try:
        return pa.scalar(text).cast(column.type).as_py()
    except (pa.ArrowException, ValueError) as error:
        raise InvalidInput(f"--like {text}: the key {column.name!r} is {column.type}") from error


def _age(days: float) -> timedelta:
    try:
        age = timedelta(days=days)
        datetime.now(UTC) - age
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"--days {days}: give a number of days, such as 14") from error
    return age


def _build(table: lake.Table, executor: str, job_id: str) -> BuildReport:
    try:
        return table.build(executor=executor, job_id=job_id)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; run again with --job-id {job_id} to resume", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def _load(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        loaded: np.ndarray[Any, np.dtype[Any]] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--vector {path}: not a .npy file of numbers: {error}") from error
    return loaded
