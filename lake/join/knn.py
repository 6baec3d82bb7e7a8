"""The batch kNN join: every row of one side, its nearest rows of the other."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from lake.errors import InvalidInput
from lake.join.conditions import Condition, parse
from lake.join.plan import Plan, check
from lake.join.report import Forecast, JoinReport
from lake.join.run import run
from lake.join.side import ROW_ID, Side, named
from lake.join.source import choose
from lake.join.work import Work
from lake.nearest.device import kernel
from lake.run import Callback, Executor, listening
from lake.run.threads import Hands
from lake.schema import Column, Schema
from lake.storage import Files, Location
from lake.table.parts import PartedWrite, begin
from lake.table.snapshot import Snapshot
from lake.table.sql import both, quote, whole

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)?", re.IGNORECASE)
_TRIED = 6 << 20  # numbers, compared to see how fast that is
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(size: int | str) -> int:
    """Read a size such as ``"1GiB"``; a plain number is bytes. KB and KiB are both 1,024.

    Raises
    ------
    InvalidInput
        It is not a size.
    """
    found = _SIZE.fullmatch(str(size).strip())
    if found is None:
        raise InvalidInput(f"memory={size!r}: give bytes, or a size such as '1GiB'")
    return int(float(found[1]) * _UNITS[(found[2] or "")[:1].lower()])


def plan_join(
    left: Side,
    right: Side,
    k: int,
    *,
    metric: str | None,
    within: float | None,
    on: Sequence[str],
    recall: float | None,
    nprobe: int | None,
    memory: int | str,
    workers: int,
) -> tuple[Plan, tuple[Condition, ...]]:
    """Check a join, and settle how it is run."""
    chosen = metric or declared(left, right)
    target = None if nprobe is not None else recall
    check(left, right, k=k, metric=chosen, recall=target, probes=nprobe, within=within)
    conditions = tuple(parse(text) for text in on)
    for condition in conditions:
        left.snapshot.schema.column(condition.left)
        right.snapshot.schema.column(condition.right)
    # Neither null nor NaN fulfils a condition, so such rows take no part.
    passed = sum(left.fragments().values()) if conditions else None
    left = _known(left, [c.left for c in conditions])
    right = _known(right, [c.right for c in conditions])
    left_rows, right_rows = left.fragments(), right.fragments()
    source = choose(sum(left_rows.values()), right, right_rows, chosen, target, given=nprobe)
    plan = Plan(
        left,
        right,
        k,
        chosen,
        within,
        target,
        nprobe,
        source,
        left_rows,
        right_rows,
        parse_bytes(memory),
        workers,
        left.payload_bytes(),
        len(conditions),
        without_value=0 if passed is None else passed - sum(left_rows.values()),
    )
    return plan, conditions


def declared(*sides: Side) -> str:
    """Find the metric that the columns of some sides declare; l2 where there is none.

    Raises
    ------
    InvalidInput
        They declare different ones.
    """
    metrics = {side.vectors.embedding.metric: side for side in sides if side.vectors.embedding}
    if len(metrics) > 1:
        told = ", ".join(f"{side.snapshot.location.uri}: {side.column!r} {name}" for name, side in metrics.items())
        raise InvalidInput(f"the columns declare different metrics ({told}): choose with metric=")
    return next(iter(metrics), "l2")


def _known(side: Side, columns: Sequence[str]) -> Side:
    where = side.where
    for name in dict.fromkeys(columns):
        where = both(where, f"{quote(name)} IS NOT NULL")
        if pa.types.is_floating(side.snapshot.schema.column(name).type):
            where = both(where, f"NOT isnan({quote(name)})")
    return replace(side, where=where)


def side(snapshot: Snapshot, column: str | None, where: str | None, carry: Sequence[str], which: str) -> Side:
    """Make a side out of what a caller gave.

    Raises
    ------
    InvalidInput
        The table has no vector column, or several and none was named.
    """
    schema = snapshot.schema
    if column is None:
        vectors = [c.name for c in schema.vectors]
        if len(vectors) != 1:
            choose = f"{which}_column=" if which else "column="
            raise InvalidInput(f"{snapshot.location.uri} has the vector columns {vectors}: choose with {choose}")
        [column] = vectors
    schema.column(column)
    return Side(snapshot, column, whole(where, schema.names) if where else None, tuple(carry))


def result_schema(plan: Plan) -> Schema:
    """Return the schema of the result: keys of both sides, rank and distance, and then what is carried."""
    sides = (("left_", plan.left), ("right_", plan.right))
    keys = [_column(one, name, prefix) for prefix, one in sides for name in one.key]
    others = [_column(one, name, prefix) for prefix, one in sides for name in one.named if name not in one.key]
    found = [Column("rank", pa.int32()), Column("distance", pa.float32())]
    return Schema([*keys, *found, *others], key=[column.name for column in keys])


def _column(side: Side, name: str, prefix: str) -> Column:
    if name == ROW_ID:
        return Column(named(prefix, name), pa.int64())
    return carried(side.snapshot.schema.column(name), prefix)


def carried(known: Column, prefix: str) -> Column:
    """Return what a column of a table is called in a result, with what its values mean."""
    embedding = known.embedding and replace(known.embedding, of=None)
    name, nullable = prefix + known.name, known.nullable
    return Column(name, known.type, known.role, nullable=nullable, embedding=embedding, metadata=known.metadata)


def forecast(plan: Plan, cores: int) -> Forecast:
    """Tell what a join would do with so many cores."""
    dimension = plan.left.dimension
    drawn = np.random.default_rng(0).standard_normal((max(1024, _TRIED // dimension), dimension), np.float32)
    asked, ids, seconds = drawn[:512], np.arange(len(drawn)), []
    with Hands() as hands:
        for _ in range(3):
            started = time.perf_counter()
            found = kernel(asked, plan.k, "l2", None, hands)
            found.meet_all(found.prepare(drawn, ids, len(asked), hands), hands=hands)
            seconds.append(time.perf_counter() - started)
    gflops = 2e-9 * drawn.size * len(asked) / min(seconds)
    # All threads share the GPU.
    return Forecast(plan, gflops / hands.count, cores) if found.device == "cpu" else Forecast(plan, gflops, 1)


def target(plan: Plan, into: Location, job: str) -> PartedWrite:
    """Begin the table of the result.

    Raises
    ------
    AlreadyExists
        There is a table, and it is not this job's.
    """
    return begin(into, None, "create", result_schema(plan), commit_id=job)


def join(
    plan: Plan,
    conditions: tuple[Condition, ...],
    target: PartedWrite,
    *,
    apart: bool,
    job: str,
    folder: Location,
    executor: str | Executor,
    on_event: Callback | None,
) -> JoinReport:
    """Run a join into a new table, with one commit that bears the job's id."""
    if target.done is not None:
        for name in list(Files(folder).names()):  # of a driver that died between its commit and its end
            Files(folder).delete(name)
        left, right = plan.rows
        return JoinReport(
            job,
            target.location.uri,
            target.done.version,
            left,
            right,
            0,
            0,
            0,
            None,
            0,
            0,
            plan.source.why,
            0,
            0,
            0.0,
            {},
            repeated=True,
        )
    with listening(on_event) as listen:
        return run(Work(plan, conditions, apart, job, folder, target, executor, listen))
