"""Compaction: small fragments into large ones, deleted rows out of the files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import lance
from lance.optimize import Compaction

from lake.errors import Conflict, InvalidInput, JobError, LakeError, NotSupported, TaskFailed
from lake.run import Callback, Executor, JobCommitted, Stage, engage, listening, run_stage
from lake.run.task import job_name
from lake.storage import Location, require_put_if_absent
from lake.table import pins
from lake.table.commit import VERB, latest_verb
from lake.table.rewrite import RewriteFragments, put
from lake.table.snapshot import Snapshot, open_head, store_errors

_ATTEMPTS = 5
_READERS = 2  # batches that Lance holds at once for each thread
_LITTLE = 256 << 20  # bytes; fewer are rewritten before worker processes have started
_COMMIT_SECONDS = 60.0
_WORK = 20  # times as long as the last commit took, at least, until the next


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Parameters
    ----------
    version : int
        The newest version that it made, or found.
    fragments_removed, fragments_added : int
        Fragments rewritten, and what became of them.
    files_removed, files_added : int
        Their data and deletion files.
    fenced : int
        Fragments left alone because a job works on them.
    seconds : float
        Wall time.
    commits : int
        How often it committed.
    conflicts : int
        Rewrites that were thrown away since somebody had changed their fragments, their indexes or the columns
        meanwhile, or a job had taken them; what is left to be done of them was planned again.
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
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> Compacted:
    """Rewrite small fragments and those with many deleted rows; the rows and their ids stay the same.

    Fragments that a running index build is working on are left as they are. Indexes go on covering rewritten rows,
    except zone maps and bloom filters, which are to be built again.

    What is done is committed about every minute, unless row ids change with it: a compaction that was interrupted loses
    no more than that, and the next one goes on from there. Other writers are not held up; what they change meanwhile is
    planned again.

    Parameters
    ----------
    location : Location
    branch : str or None
    target_rows, deleted, memory_bytes, executor, job_id, on_event
        As `lake.Table.compact` takes them; it names what is raised, too.
    """
    if target_rows < 1 or not 0 <= deleted <= 1 or memory_bytes < 1:
        raise InvalidInput(
            f"compact(target_rows={target_rows}, deleted={deleted}, memory_bytes={memory_bytes}): positive numbers, "
            "and a share 0..1"
        )
    started = time.monotonic()
    require_put_if_absent(location)
    options = {
        "target_rows_per_fragment": target_rows,
        "materialize_deletions_threshold": deleted,
        "num_threads": 1,
    }
    begun = open_head(location, branch).version
    with listening(on_event) as listen:
        work = _Compaction(location, branch, options, memory_bytes, job_name("compact", job_id), executor, listen)
        done = Compacted(begun)
        for _ in range(_ATTEMPTS):
            before = done.conflicts
            done = work.round(done)
            if done.conflicts == before:
                return replace(done, seconds=time.monotonic() - started)
    theirs = latest_verb(location, branch, begun, lambda properties: VERB not in properties)  # Lance commits for us
    raise Conflict(
        f"compact on {location.uri}: others changed what was being rewritten, {_ATTEMPTS} times, last by {theirs}; "
        f"{done.fragments_removed} fragments are compacted; try again when they are quieter",
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
    on_event: Callback

    def round(self, done: Compacted) -> Compacted:
        """Plan, rewrite, commit; what did not come to that is counted among the conflicts."""
        with store_errors(self.location, self.branch):
            head = open_head(self.location, self.branch)
            if self.branch is not None and head.describe_indices():
                # Lance 14 writes the remapped index into the branch, and looks for it in the main line.
                raise NotSupported(
                    f"compact: branch {self.branch!r} has indexes, and Lance would lose them; drop them there first"
                )
            fence = pins.fenced(head)
            rows = {"batch_size": _batch_rows(head, self.memory_bytes), "excluded_fragment_ids": sorted(fence)}
            planned = Compaction.plan(head, {**self.options, **rows}).tasks
        done = replace(done, version=head.version, fenced=len(fence))
        if not planned:
            return done
        snapshot = Snapshot.of(head, self.location, self.branch)
        tasks = [RewriteFragments.of(snapshot, number, task) for number, task in enumerate(planned)]
        try:
            with pins.pin(snapshot, job=self.job):
                return self._rewrite(snapshot, tasks, done)
        except TaskFailed as error:
            if isinstance(error.__cause__, LakeError) and not isinstance(error.__cause__, JobError):
                raise error.__cause__ from error
            raise

    def _rewrite(self, snapshot: Snapshot, tasks: Sequence[RewriteFragments], done: Compacted) -> Compacted:
        sizes = [task.bytes for task in tasks]
        stage = Stage("rewrite", tasks, min(self.memory_bytes, 2 * max(sizes)))
        waiting: list[str] = []
        # A commit writes indexes anew: where row ids do not stay all of them, and otherwise those that hold addresses.
        pause = _COMMIT_SECONDS if snapshot.dataset.has_stable_row_ids else float("inf")
        since = time.monotonic()
        with (
            engage(self.executor, little=len(tasks) == 1 or sum(sizes) < _LITTLE) as engine,
            closing(run_stage(engine, stage, None, self.on_event)) as results,
        ):
            try:
                for result in results:
                    waiting.append(result.value)
                    begun = time.monotonic()
                    if begun - since > pause:
                        done, waiting = self._put(snapshot, waiting, done), []
                        since = time.monotonic()
                        pause = max(pause, _WORK * (since - begun))
            except TaskFailed:
                self._put(snapshot, waiting, done)
                raise
        return self._put(snapshot, waiting, done)

    def _put(self, snapshot: Snapshot, written: Sequence[str], done: Compacted) -> Compacted:
        made = put(snapshot, written, self.options)
        done = replace(done, version=made.version, conflicts=done.conflicts + len(written) - made.rewrites)
        if made.metrics is None:
            return done
        self.on_event(JobCommitted(self.job, made.version))
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
