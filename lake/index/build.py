"""Building: from the declared indexes to segments in the manifest, in one commit.

A job plans on one pinned snapshot, prepares a model for each vector index, builds segments as tasks of an
executor, and commits all of them at once, with its id as the commit's. Its folder ``_jobs/<job>/<table>`` holds the
plan's version, the models and the receipts, so a job that died goes on where it stopped.

A failing index is left out and the others are committed; the same job, run again, goes on with what failed.
The pin keeps the lake's own compaction away from the fragments. If another writer rewrites some nevertheless,
their segments are left out of the commit and built in another round, whose commit is ``<job>.2``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lake.errors import Conflict, JobError, NotFound
from lake.index.jobs import PLAN, job_folder, sweep, write_plan
from lake.index.plan import plan_build, unbuildable
from lake.index.publish import VERB, Published, publish
from lake.index.report import BuildReport, IndexReport, add
from lake.index.spec import read_specs
from lake.index.work import Work, Workshop
from lake.run import Callback, Executor, JobCommitted, LocalExecutor, listening, resolve
from lake.run.task import job_name
from lake.storage import Files, Location
from lake.table import pins
from lake.table.commit import COMMIT_ID, find, latest_verb, pinned
from lake.table.snapshot import Snapshot, open_head

_ROUNDS = 3


class BuildFailed(JobError):
    """Some indexes could not be built; the others were, and are committed.

    Parameters
    ----------
    report : BuildReport
        What was done for each index.
    """

    def __init__(self, message: str, report: BuildReport) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.report)


@dataclass(frozen=True)
class _Round:
    """What a job works on; it is kept in the job's folder until the job is done."""

    number: int
    snapshot: Snapshot
    names: tuple[str, ...] | None
    parts: int

    def commit_id(self, job: str) -> str:
        """Return the id of the commit that ends the round."""
        return job if self.number == 1 else f"{job}.{self.number}"

    def save(self, files: Files) -> None:
        plan = {
            "round": self.number,
            "version": self.snapshot.version,
            "time": str(self.snapshot.time),
            "names": self.names,
            "parts": self.parts,
        }
        write_plan(files, self.snapshot, plan)

    @classmethod
    def load(cls, files: Files, table: Snapshot) -> _Round | None:
        """Take up an interrupted job; forget it if its version has expired, or was of a table now replaced."""
        if not files.exists(PLAN):
            return None
        plan = json.loads(files.read(PLAN))
        snapshot = None
        with suppress(NotFound):
            snapshot = Snapshot(table.location, plan["version"], table.branch)
        if snapshot is None or str(snapshot.time) != plan["time"]:
            for name in list(files.names()):
                files.delete(name)
            return None
        names = None if plan["names"] is None else tuple(plan["names"])
        return cls(plan["round"], snapshot, names, plan["parts"])


def build(
    snapshot: Snapshot,
    names: Collection[str] | None = None,
    *,
    executor: str | Executor = "local",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> BuildReport:
    """Bring the declared indexes of a table up to date.

    Parameters
    ----------
    snapshot : Snapshot
        What to index; a resumed job goes on with the snapshot that it began with.
    names : collection of str, optional
        Only these indexes.
    executor : str or Executor
        Where tasks run.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    BuildFailed
        Some indexes failed; the others are committed.
    NotFound
        A name that is not declared.
    Conflict
        Other writers rewrote fragments again and again while they were being indexed.
    """
    started = time.monotonic()
    job = job_name("index", job_id)
    files = Files(job_folder(snapshot.location, job))
    current = _Round.load(files, snapshot) if job_id is not None else None
    before = None
    if job_id is not None:
        before = find(open_head(snapshot.location, snapshot.branch), current.commit_id(job) if current else job)
    if current is None:
        _check_names(snapshot, names)
        if before is not None:
            return BuildReport(job, before, (), time.monotonic() - started, repeated=True)
        executor = executor if executor == "local" else resolve(executor)
        parts = getattr(executor, "workers", None) or LocalExecutor().workers
        current = _Round(1, snapshot, None if names is None else tuple(sorted(names)), parts)
    with listening(on_event) as listen:
        version, reports, errors = _run_rounds(current, files.location, job, executor, listen)
    # Of a driver that died between its commit and its end, nothing was left to do.
    repeated = version == before and not errors
    report = BuildReport(job, version, tuple(reports.values()), time.monotonic() - started, repeated=repeated)
    if errors:
        causes = "; ".join(f"{name}: {error.__cause__ or error}" for name, error in errors.items())
        raise BuildFailed(
            f"could not build {len(errors)} of {len(reports)} indexes, the others are done: {causes}", report
        ) from next(iter(errors.values()))
    return report


def _run_rounds(
    current: _Round, folder: Location, job: str, executor: str | Executor, on_event: Callback
) -> tuple[int, dict[str, IndexReport], dict[str, Exception]]:
    """Work until nothing is left out; return the version, and for each index its report or its error."""
    reports: dict[str, IndexReport] = {}
    errors: dict[str, Exception] = {}
    begun = current.snapshot
    for _ in range(_ROUNDS):
        shop = Workshop(current.snapshot, folder, job, executor, on_event)
        work, published = _run(shop, current)
        reports |= {name: add(reports.get(name), _report(w, published)) for name, w in work.items()}
        errors |= {name: w.error for name, w in work.items() if w.error}
        following = replace(current, number=current.number + (published.version > current.snapshot.version))
        if not published.left_out:
            break
        newest = pinned(current.snapshot.location, current.snapshot.branch)
        current = replace(following, snapshot=newest, names=tuple(sorted(published.left_out)))
    else:
        raise Conflict(
            f"{folder.uri}: other writers rewrote what was being indexed in each of {_ROUNDS} rounds; searches "
            f"scan what is still missing of {', '.join(sorted(published.left_out))}",
            ours=VERB,
            theirs=_theirs(begun, job),
        )
    if errors:
        replace(following, names=tuple(sorted(errors))).save(Files(folder))
    elif Files(folder).exists(PLAN):
        shop.ledger().clear()
    if published.version > begun.version:
        sweep(begun, job)
    return published.version, reports, errors


def _run(shop: Workshop, current: _Round) -> tuple[dict[str, Work], Published]:
    """Plan, build and commit once."""
    snapshot = current.snapshot
    work = {plan.declared.name: Work(plan) for plan in plan_build(snapshot, current.names, current.parts)}
    for name, w in work.items():
        if reason := unbuildable(w.plan.declared, snapshot.schema):
            w.error = JobError(f"index {name!r}: {reason}")
    published = Published(snapshot.version)
    if all(w.error or w.plan.empty for w in work.values()):
        return work, published
    fragments = {f for w in work.values() for group in w.plan.groups for f in group}
    # The pin keeps expiry from this version, compaction from these fragments, and `sweep` from the job's folder.
    with pins.pin(snapshot, job=shop.job, fragments=fragments):
        current.save(Files(shop.folder))
        shop.run(work)
        ready = [w for w in work.values() if not w.error and not w.plan.empty]
        if ready:
            published = publish(snapshot, ready, current.commit_id(shop.job))
            shop.on_event(JobCommitted(shop.job, published.version))
    return work, published


def _theirs(begun: Snapshot, job: str) -> str:
    """Say what another writer did last since a job began."""

    def ours(properties: Mapping[str, str]) -> bool:
        commit_id = properties.get(COMMIT_ID, "")
        return commit_id == job or commit_id.startswith(f"{job}.")

    return latest_verb(begun.location, begun.branch, begun.version, ours)


def _check_names(snapshot: Snapshot, names: Collection[str] | None) -> None:
    known = read_specs(snapshot.dataset)
    for name in names or ():
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "none is"
            raise NotFound(f"no index {name!r} is declared; {there}")


def _report(w: Work, published: Published) -> IndexReport:
    plan, name = w.plan, w.plan.declared.name
    notes = [plan.note]
    if w.error:
        notes = [str(w.error.__cause__ or w.error)]
    if name in published.left_out:
        notes.append("another writer rewrote some fragments meanwhile")
    if name in published.unwanted:
        notes.append("dropped or declared otherwise meanwhile")
    return IndexReport(
        name,
        plan.declared.column,
        plan.spec.kind,
        _done(w),
        "; ".join(filter(None, notes)),
        w.partitions,
        len(w.indexes),
        w.rows,
        sum(file.size_bytes for index in w.indexes for file in index.files or []),
        w.resumed,
        dict(w.seconds),
    )


def _done(w: Work) -> str:
    if w.error:
        return "failed"
    if w.plan.empty:
        return "up to date" if w.plan.seen else "empty"
    if not w.plan.seen:
        return "built"
    return "rebuilt" if w.plan.seen == w.plan.replaced else "extended"
