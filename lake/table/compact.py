"""Compaction: small fragments into large ones, deleted rows out of the files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import lance
from lance.optimize import Compaction

from lake.errors import Conflict, InvalidInput, LakeError, NotSupported, TaskFailed
from lake.run import Callback, Executor, JobCommitted, Stage, engage, listening, run_stage
from lake.run.task import job_name
from lake.storage import Location, require_put_if_absent
from lake.table import pins
from lake.table.commit import latest_verb
from lake.table.rewrite import RewriteFragments, put
from lake.table.snapshot import Snapshot, open_head, store_errors

_ATTEMPTS = 5
_READERS = 2  # batches that Lance holds at once for each thread
_LITTLE = 256 << 20  # bytes; fewer are rewritten before worker processes have started
_COMMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Parameters
    ----------
    version : int
        The version that it made, or found when there was nothing to do.
    fragments_removed, fragments_added : int
        Fragments rewritten, and what became of them.
    files_removed, files_added : int
        Their data and deletion files.
    fenced : int
        Fragments left alone because a job works on them.
    seconds : float
        Wall time.
    commits : int
        Versions that it made.
    conflicts : int
        Rewrites that were thrown away, and planned again, since somebody had changed their fragments meanwhile.
    """

    version: int
    fragments_removed: int = 0
    fragments_added: int = 0
    files_removed: int = 0
    files_added: int = 0
    fenced: int = 0
    seconds: float = 0.0
    commits: int = 0
    conflicts: int = 0

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields as a plain dict, for JSON."""
        return asdict(self)


def compact(
    location: Location,
    branch: str | None = None,
    *,
    target_rows: int = 1 << 20,
    deleted: float = 0.1,
    memory_bytes: int = 1 << 30,
    executor: str | Executor = "local",
    on_event: Callback | None = None,
) -> Compacted:
    """Rewrite small fragments and those with many deleted rows; the rows and their ids stay the same.

    Fragments that a running index build is working on are left as they are. Indexes go on covering
    rewritten rows. What is done is committed every minute: a compaction that was interrupted loses no more than that,
    and the next one goes on from there. Other writers are not held up; what they change meanwhile is planned again.

    Parameters
    ----------
    target_rows : int
        Rows that a fragment should have.
    deleted : float
        Share of deleted rows from which on a fragment is rewritten.
    memory_bytes : int
        Memory of each worker for the batches in flight.
    executor : str or Executor
        Where fragments are rewritten: ``"local"``, ``"ray"``, ``"spark"``.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        A number that makes no sense.
    NotSupported
        A branch that has indexes.
    Conflict
        Other writers changed the same fragments again and again; what they left alone is compacted.
    """
    if target_rows < 1 or not 0 <= deleted <= 1 or memory_bytes < 1:
        raise InvalidInput(
            f"compact(target_rows={target_rows}, deleted={deleted}, memory_bytes={memory_bytes}): positive numbers, "
            "and a share 0..1"
        )
    started = time.monotonic()
    require_put_if_absent(location)
    if branch is not None and open_head(location, branch).describe_indices():
        # Lance 14 writes the remapped index into the branch, and looks for it in the main line.
        raise NotSupported(f"compact: branch {branch!r} has indexes, and Lance would lose them; drop them there first")
    options = {
        "target_rows_per_fragment": target_rows,
        "materialize_deletions_threshold": deleted,
        "num_threads": 1,
    }
    work = _Compaction(location, branch, options, memory_bytes, job_name("compact", None), executor)
    done = Compacted(0)
    with listening(on_event) as listen:
        for _ in range(_ATTEMPTS):
            before = done.conflicts
            done = work.round(done, listen)
            if done.conflicts == before:
                if done.commits:
                    listen(JobCommitted(work.job, done.version))
                return replace(done, seconds=time.monotonic() - started)
    theirs = latest_verb(location, branch)
    raise Conflict(
        f"compact on {location.uri}: other writers changed fragments while they were rewritten, {_ATTEMPTS} times, "
        f"last by {theirs}; {done.fragments_removed} others are compacted; try when they are quieter",
        ours="compact",
        theirs=theirs,
    )


@dataclass(frozen=True)
class _Compaction:
    location: Location
    branch: str | None
    options: Mapping[str, Any]
    memory_bytes: int
    job: str
    executor: str | Executor

    def round(self, done: Compacted, on_event: Callback) -> Compacted:
        """Plan, rewrite, commit; what did not come to that is counted among the conflicts."""
        with store_errors(self.location, self.branch):
            head = open_head(self.location, self.branch)
            fence = pins.fenced(head)
            rows = {"batch_size": _batch_rows(head, self.memory_bytes), "excluded_fragment_ids": sorted(fence)}
            planned = Compaction.plan(head, {**self.options, **rows}).tasks
            done = replace(done, version=head.version, fenced=len(fence))
            # An index of a table whose row ids do not stay would be written anew by each commit.
            often = head.has_stable_row_ids
        if not planned:
            return done
        snapshot = Snapshot.of(head, self.location, self.branch)
        tasks = [RewriteFragments.of(snapshot, number, task) for number, task in enumerate(planned)]
        stage = Stage("rewrite", tasks, self.memory_bytes)
        waiting: list[str] = []
        since = time.monotonic()
        little = len(tasks) == 1 or sum(task.bytes for task in tasks) < _LITTLE
        try:
            with (
                pins.pin(snapshot, job=self.job),
                engage(self.executor, little=little) as engine,
                closing(run_stage(engine, stage, None, on_event)) as results,
            ):
                for result in results:
                    waiting.append(result.value)
                    if often and time.monotonic() - since > _COMMIT_SECONDS:
                        done = self._put(done, waiting)
                        waiting, since = [], time.monotonic()
                return self._put(done, waiting)
        except TaskFailed as error:
            if isinstance(error.__cause__, LakeError):
                raise error.__cause__ from error
            raise

    def _put(self, done: Compacted, written: Sequence[str]) -> Compacted:
        made = put(self.location, self.branch, written, self.options)
        done = replace(done, version=made.version, conflicts=done.conflicts + len(written) - made.rewrites)
        if made.metrics is None:
            return done
        return replace(
            done,
            fragments_removed=done.fragments_removed + made.metrics.fragments_removed,
            fragments_added=done.fragments_added + made.metrics.fragments_added,
            files_removed=done.files_removed + made.metrics.files_removed,
            files_added=done.files_added + made.metrics.files_added,
            commits=done.commits + 1,
        )


def _batch_rows(head: lance.LanceDataset, memory_bytes: int) -> int:
    """Rows a batch so that the batches in flight fit into the memory."""
    rows = head.count_rows()
    fragments = [f.metadata for f in head.get_fragments()]
    size = sum(f.file_size_bytes or 0 for fragment in fragments for f in fragment.files)
    width = max(1, size // max(1, rows))
    return int(min(8192, max(64, memory_bytes // (16 * _READERS * width))))
