"""Loading: a source, through a transform, into a table, exactly once.

Tasks read slices and write files that no version names. When all are done, one commit adds the refused rows to the
dead-letter table, and then one adds the others to the table. Both bear the job's id, so each takes effect once however
often the job is run. The job's folder ``_jobs/<job>/<table>`` holds the plan and the receipts, so a job that died goes
on where it stopped, and in the end its report, so a job that was done says so.

Rows are compared (to deduplicate, or to merge) in partitions by a hash of the key: tasks write rows apart, others bring
a partition together.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace

from lance.fragment import FragmentMetadata

from lake.errors import AlreadyExists, InvalidInput, JobError, LakeError, NotFound
from lake.etl import plan as planning
from lake.etl.plan import Plan
from lake.etl.refused import SCHEMA
from lake.etl.report import LoadReport
from lake.etl.spec import Load
from lake.etl.tasks import Deduplicate, Done, ReadSlice, read_file, unique_file
from lake.index.jobs import job_folder
from lake.run import (
    Callback,
    Executor,
    JobCommitted,
    Ledger,
    LocalExecutor,
    Stage,
    Task,
    TaskResult,
    listening,
    resolve,
    run_stage,
)
from lake.run.task import job_name
from lake.storage import Files, Location, table_name
from lake.table import merge, pins, write
from lake.table.commit import earlier
from lake.table.parts import Part, PartedWrite
from lake.table.snapshot import open_head

REPORT = "report.json"
_MEMORY = 512 << 20  # of one task: batches of a few megabytes, and the keys of one partition
_SMALL = 32 << 20  # what this process reads before worker processes would have started


def load(
    root: Location,
    spec: Load,
    *,
    executor: str | Executor = "local",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> LoadReport:
    """Bring rows of a source into a table.

    Parameters
    ----------
    root : Location
        The lake.
    spec : Load
        What to read, what to make of it, where to write it.
    executor : str or Executor
        Where tasks run.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        The source does not fit the table, a job of that id does something else, or more rows were refused than allowed.
    TaskFailed
        A task failed for good; the same job id goes on with it.
    Conflict
        The table's columns were changed meanwhile.
    """
    started = time.monotonic()
    job = job_name("etl", job_id)
    table = root.join(table_name(spec.into.table) + ".lance")
    files = Files(job_folder(table, job))
    digest = hashlib.sha256(json.dumps(planning.parameters(root, spec), sort_keys=True).encode()).hexdigest()
    if job_id is not None and (done := _before(files, table)) is not None:
        Ledger(files, job, Done.encode, Done.decode, digest)  # refuses what another job was called
        return replace(done, seconds=time.monotonic() - started, repeated=True)
    runner = resolve(executor)
    plan = Plan.load(root, spec, job, files.location) if job_id is not None else None
    if plan is None:
        if job_id is not None and (version := _committed(table, job)) is not None:
            seconds = time.monotonic() - started
            return LoadReport.forgotten(job, spec.into.table, version, spec.dead_letters, seconds)
        _clear(files)
    ledger = Ledger(files, job, Done.encode, Done.decode, digest)
    if plan is None:
        plan = planning.make(root, spec, job, files.location)
        plan.save(files)
    with ExitStack() as stack:
        listen = stack.enter_context(listening(on_event))
        if isinstance(runner, LocalExecutor) and runner is not executor and plan.bytes < _SMALL:
            runner = LocalExecutor(1)
        if isinstance(runner, AbstractContextManager) and runner is not executor:
            stack.enter_context(runner)
        for snapshot in (plan.work.target, plan.work.reader.snapshot):
            if snapshot is not None:
                stack.enter_context(pins.pin(snapshot, job=job))
        report = replace(_run_or_find(plan, runner, ledger, listen, files), seconds=time.monotonic() - started)
    files.write(REPORT, json.dumps(report.to_dict()).encode())
    _clear(files, keep=() if job_id is None else (REPORT, "_job.json"))
    return report


def _run_or_find(plan: Plan, executor: Executor, ledger: Ledger[Done], on_event: Callback, files: Files) -> LoadReport:
    """Run the job; or return what another driver of it did, which was faster, and took away what tasks here read."""
    try:
        return _run(plan, executor, ledger, on_event)
    except LakeError:
        if (done := _before(files, plan.work.target.location)) is None:
            raise
        return replace(done, repeated=True)


def _run(plan: Plan, executor: Executor, ledger: Ledger[Done], on_event: Callback) -> LoadReport:
    """Run the stages, and commit what they made."""
    work, spec = plan.work, plan.work.spec
    first = _stage(executor, "read", [ReadSlice(work, part) for part in plan.slices], ledger, on_event)
    last = first
    if work.partitions:
        last = _stage(executor, "deduplicate", _partitions(plan, first), ledger, on_event)
    read = [result.value for result in first]
    kept = [result.value for result in last]
    refused = sum(done.refused for done in read) + (sum(done.refused for done in kept) if work.partitions else 0)
    report = LoadReport(
        work.job,
        spec.into.table,
        work.target.version,
        sum(done.read for done in read),
        sum(done.written for done in kept),
        sum(done.filtered for done in read),
        sum(done.duplicates for done in kept),
        refused,
        spec.dead_letters,
        len(plan.slices),
        sum(result.attempts == 0 for result in ([*first, *last] if work.partitions else first)),
        0,
        0.0,
    )
    if report.read != report.written + report.filtered + report.duplicates + report.refused:
        raise JobError(f"{work.job}: the counts do not add up, so nothing is committed: {report}")
    _commit_refused(plan, refused)
    if spec.refused.at_most is not None and refused > spec.refused.at_most:
        raise InvalidInput(
            f"{work.job}: {refused:,} of {report.read:,} rows were refused, more than refused.at_most "
            f"({spec.refused.at_most:,}), so nothing was written to {spec.into.table}; {spec.dead_letters} says why"
        )
    version, size = _commit(plan, kept, report.written)
    on_event(JobCommitted(work.job, version))
    return replace(report, version=version, bytes=size)


def _stage(
    executor: Executor, name: str, tasks: list[Task[Done]], ledger: Ledger[Done], on_event: Callback
) -> list[TaskResult[Done]]:
    """Run a stage to its end; results in the order of their keys."""
    stage = Stage(name, tasks, _MEMORY)
    with closing(run_stage(executor, stage, ledger, on_event)) as results:
        return sorted(results, key=lambda result: result.key)


def _partitions(plan: Plan, read: list[TaskResult[Done]]) -> list[Task[Done]]:
    """Make a task of each partition that got rows."""
    tasks: list[Task[Done]] = []
    for partition in range(plan.work.partitions):
        parts = [part for part, done in zip(plan.slices, read, strict=True) if partition in done.value.partitions]
        if parts:
            tasks.append(Deduplicate(plan.work, partition, tuple(parts)))
    return tasks


def _commit_refused(plan: Plan, rows: int) -> None:
    """Add the refused rows to the dead-letter table, which is made for the first of them."""
    work, spec = plan.work, plan.work.spec
    if not rows:
        return
    folder = Files(work.folder)

    def batches() -> Iterator[object]:
        for name in folder.names("refused"):
            yield from read_file(folder, name)

    name = table_name(spec.dead_letters) + ".lance"
    table = work.target.location.lake.join(name)
    commit_id = f"{work.job}.refused"
    try:
        open_head(table)
    except NotFound:
        try:
            write.create_table(table, SCHEMA, batches(), commit_id=commit_id)
        except AlreadyExists:  # another job was faster
            write.append(table, None, batches(), commit_id=commit_id)
    else:
        write.append(table, None, batches(), commit_id=commit_id)


def _commit(plan: Plan, kept: list[Done], rows: int) -> tuple[int, int]:
    """Add the rows to the table; return its version, and the bytes of the files."""
    work = plan.work
    target, commit_id = work.target, f"{work.job}.rows"
    if not rows:
        return target.version, 0
    if work.spec.into.mode == "append":
        fragments = tuple(FragmentMetadata.from_json(text) for done in kept for text in done.fragments)
        part = Part(fragments, rows)
        done = PartedWrite(target.location, None, "append", target.schema, target, commit_id).commit([part])
        return done.version, part.bytes
    folder = Files(work.folder)

    def batches() -> Iterator[object]:
        for partition in range(work.partitions):
            if folder.exists(unique_file(partition)):
                yield from read_file(folder, unique_file(partition))

    return merge.merge(target.location, None, batches(), commit_id=commit_id).version, 0


def _before(files: Files, table: Location) -> LoadReport | None:
    """Return the report of a job that was done, if its table is still there."""
    if not files.exists(REPORT):
        return None
    try:
        open_head(table)
        return LoadReport(**json.loads(files.read(REPORT)))
    except (NotFound, ValueError, TypeError):  # a report that is torn says nothing; the table's history does
        return None


def _committed(table: Location, job: str) -> int | None:
    """Return the version that a job made whose folder was removed since."""
    try:
        head = open_head(table)
    except NotFound:
        return None
    done = earlier(head, table, None, f"{job}.rows")
    return None if done is None else done.version


def _clear(files: Files, keep: tuple[str, ...] = ()) -> None:
    for name in list(files.names()):
        if name not in keep:
            files.delete(name)
