"""`knn_join`: tables, snapshots or arrays in, a table or a stream of rows out."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lake.errors import InvalidInput, StorageError
from lake.join import knn
from lake.join.folder import JobFolder
from lake.join.report import JoinReport
from lake.join.result import JoinResult
from lake.join.workers import abreast, cores
from lake.run import Callback, Executor, resolve
from lake.run.task import job_name
from lake.schema import Column, Embedding, Schema
from lake.storage import Files, Location, table_name
from lake.table import write
from lake.table.snapshot import Snapshot, drop, open_head

_MATRIX = 2


@runtime_checkable
class HasSnapshot(Protocol):
    """A `lake.Table`, or whatever else stands for one version of a table."""

    def snapshot(self) -> Snapshot:
        """Pin a version."""
        ...


Rows = HasSnapshot | Snapshot | npt.ArrayLike


def knn_join(
    left: Rows,
    right: Rows,
    k: int = 10,
    *,
    left_column: str | None = None,
    right_column: str | None = None,
    left_where: str | None = None,
    right_where: str | None = None,
    left_columns: Sequence[str] = (),
    right_columns: Sequence[str] = (),
    metric: str | None = None,
    within: float | None = None,
    on: Sequence[str] = (),
    apart: bool | None = None,
    recall: float = 0.95,
    nprobe: int | None = None,
    into: str | None = None,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
    dry_run: bool = False,
) -> Any:
    """Find, for every row of one side, its k nearest rows of the other.

    Parameters
    ----------
    left, right : Table, Snapshot or array
        What is joined. A matrix, shape (n, d), stands for a table whose key ``row`` is the row's number.
    k : int
        From 1 to 1,000.
    left_column, right_column : str, optional
        The vector columns, where a table has several.
    left_where, right_where : str, optional
        SQL: only rows that pass take part, and they are chosen before the nearest are.
    left_columns, right_columns : sequence of str
        What the result carries besides the keys, as ``left_<name>`` and ``right_<name>``.
    metric : {"l2", "cosine", "dot"}, optional
        What the columns of tables declare by default; l2 for arrays alone. Distances are squared l2, 1 - cosine,
        1 - dot: smaller is nearer.
    within : float, optional
        Only pairs with ``distance < within``.
    on : sequence of str
        Conditions on pairs, such as ``"left.category == right.category"`` or ``"left.time > right.time"``. Rows in
        which such a column is null take no part; the report counts those of the left side.
    apart : bool, optional
        Leave each row itself out; by default if both sides are the same table.
    recall : float
        The share of the true neighbours to find, 0.95 by default; 1.0 compares every pair. A sample whose exact
        neighbours are found tells how many partitions that takes, a standard error of the sample to spare, so that
        all rows rarely reach less. The report tells what was measured. Shares very close to 1 are beyond what a
        sample can tell.
    nprobe : int, optional
        Partitions that each row looks into, instead of `recall`.
    into : str, optional
        Write the result into a new table of this name beside the left one. Otherwise it lives as long as the
        object that is returned.
    executor : str or Executor
        Where tasks run: ``"local"``, ``"ray"``, ``"spark"``. All give the same rows.
    memory : int or str
        What each worker may hold, whatever the tables' sizes.
    job_id : str, optional
        The same id resumes a join that was interrupted, with the versions that it read, and does nothing after it
        was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.
    dry_run : bool
        Only tell what would be done: returns a `Forecast`.

    Returns
    -------
    JoinResult or Forecast
        Columns ``left_<key>, right_<key>, rank, distance``, and then what is carried. Rank counts from 0, ties go to
        the smaller row id.

    Raises
    ------
    InvalidInput
        Wrong dimensions, metrics, conditions; columns that declare different metrics, and none is given; NaN; a zero
        vector under cosine; a job of that id did something else.
    NotFound
        A version that an interrupted job of that id read has expired.
    AlreadyExists
        There is a table of the name `into`.
    MemoryExceeded
        `memory` is too little for any join of these tables.
    """
    for name, given in (("left_columns", left_columns), ("right_columns", right_columns), ("on", on)):
        if isinstance(given, str) or not all(isinstance(one, str) for one in given):
            raise InvalidInput(f"{name}={given!r}: give a list of texts")
    places = [_place(side) for side in (left, right) if isinstance(side, HasSnapshot | Snapshot)]
    if into is not None and not places:
        raise InvalidInput("into= names a table beside the left one, and both sides are arrays; leave it out")
    engine = executor if executor == "local" else resolve(executor)
    asked = {
        "k": k,
        "columns": (left_column, right_column, tuple(left_columns), tuple(right_columns)),
        "where": (left_where, right_where),
        "metric": metric,
        "within": within,
        "on": tuple(on),
        "apart": apart,
        "recall": (recall, nprobe),
        "into": into,
    }
    with ExitStack() as stack:
        root = places[0] if places else Location.of(stack.enter_context(_folder()))
        sides = [_snapshot(side, root, name, stack) for side, name in ((left, "left"), (right, "right"))]
        job = job_name("join", job_id)
        work = root.join("_jobs", job)
        kept = JobFolder(job, "knn_join", work) if job_id is not None and places else None
        tables = [at for at, side in enumerate((left, right)) if isinstance(side, HasSnapshot | Snapshot)]
        if kept is not None and not dry_run:
            asked["arrays"] = [_digest(side) for side in (left, right) if not isinstance(side, HasSnapshot | Snapshot)]
            begun = kept.begun(asked, [sides[at] for at in tables])
            sides = [begun[tables.index(at)] if at in tables else side for at, side in enumerate(sides)]
        a = knn.side(sides[0], left_column, left_where, left_columns, "left")
        b = knn.side(sides[1], right_column, right_where, right_columns, "right")
        same = (a.snapshot.location.uri, a.snapshot.branch) == (b.snapshot.location.uri, b.snapshot.branch)
        if apart and not same:
            raise InvalidInput("apart=True leaves out each row itself, and the sides are different tables")
        plan, conditions = knn.plan_join(
            a,
            b,
            _whole(k),
            metric=metric or knn.declared(*([a, b][at] for at in tables)),
            within=_bound(within),
            on=on,
            recall=recall,
            nprobe=None if nprobe is None else _whole(nprobe),
            memory=memory,
            workers=abreast(engine),
        )
        scratch = work.join("rows.lance") if into is None else None
        place = scratch or root.join(f"{table_name(str(into))}.lance")
        target = knn.target(plan, place, job)
        if dry_run:
            return knn.forecast(plan, cores(engine, plan.tasks))
        if job_id is None:  # nobody can take it up again
            stack.callback(_clear, work.join("join"))
        if kept is not None:
            kept.note(asked, [sides[at] for at in tables])
        report = knn.join(
            plan,
            conditions,
            target,
            apart=same if apart is None else apart,
            job=job,
            folder=work.join("join"),
            executor=engine,
            on_event=on_event,
        )
        if kept is not None:
            report = _kept(kept, report)
        keeper = stack.pop_all() if not places and scratch is not None else None
        return JoinResult(Snapshot.of(open_head(place), place, None), report, scratch, keeper)


def _kept(kept: JobFolder, report: JoinReport) -> JoinReport:
    """Keep what a join told; tell it again where it was done before."""
    if not report.repeated:
        kept.finish(report.to_dict())
    elif (told := kept.report()) is not None:
        return JoinReport.of(told)
    return report


def _whole(number: Any) -> int:
    """Take numpy's whole numbers too; `check` refuses what is none."""
    return int(number) if isinstance(number, np.integer) else number


def _bound(within: Any) -> float | None:
    if within is None:
        return None
    if isinstance(within, bool) or not isinstance(within, int | float | np.number) or np.isnan(within):
        raise InvalidInput(f"within={within!r}: give a distance")
    return float(within)


@contextmanager
def _folder() -> Iterator[str]:
    """Keep a folder of this machine's while arrays are joined, and their result is in use."""
    folder = tempfile.mkdtemp(prefix="lake-join-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(folder: Location) -> None:
    with suppress(StorageError):
        for name in list(Files(folder).names()):
            Files(folder).delete(name)


def _place(side: HasSnapshot | Snapshot) -> Location:
    """Return the lake that a table lies in, or that a join of its tables has left its rows in."""
    return (side if isinstance(side, Snapshot) else side.snapshot()).location.lake


def _matrix(given: Rows, name: str) -> npt.NDArray[Any]:
    if isinstance(given, pa.ChunkedArray):
        given = given.combine_chunks()
    if isinstance(given, pa.FixedSizeListArray) and not given.null_count:
        return given.flatten().to_numpy(zero_copy_only=False).reshape(len(given), -1)  # type: ignore[no-any-return]
    try:
        matrix = np.asarray(given)
        if matrix.dtype == object and matrix.ndim == 1 and len(matrix):  # of a data frame: an array in each row
            matrix = np.stack([np.asarray(row) for row in matrix])
    except ValueError as error:
        raise InvalidInput(f"{name}: the rows of the array are not of one length: {error}") from error
    return matrix


def _digest(given: Rows) -> str:
    """Tell arrays apart, by what they hold."""
    matrix = np.ascontiguousarray(_matrix(given, "array"), np.float32)
    return f"{matrix.shape}: {hashlib.sha256(matrix.tobytes()).hexdigest()}"


def _snapshot(given: Rows, root: Location, name: str, stack: ExitStack) -> Snapshot:
    """Pin a table; an array becomes one, for as long as the join runs."""
    if isinstance(given, Snapshot):
        return given
    if isinstance(given, HasSnapshot):
        return given.snapshot()
    matrix = _matrix(given, name)
    if matrix.dtype.kind not in "iuf":
        raise InvalidInput(
            f"{name}: give a table, a snapshot, or an array of numbers, not {type(given).__name__}; of a data frame "
            "give the column of vectors, or make a table with create_table"
        )
    if matrix.ndim != _MATRIX or not matrix.size:
        raise InvalidInput(f"{name}: the array has the shape {matrix.shape}; give (rows, dimension), one row at least")
    dimension = matrix.shape[1]
    place = root.join("_jobs", f"{name}-{uuid.uuid4().hex}.lance")
    schema = Schema([Column("row", pa.int64()), Column("vector", Embedding(dimension))], key="row")
    flat = np.ascontiguousarray(matrix, np.float32).reshape(-1)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), dimension)
    write.create_table(place, schema, pa.table({"row": pa.array(np.arange(len(matrix))), "vector": vectors}))
    stack.callback(drop, place)
    return Snapshot.of(open_head(place), place, None)
