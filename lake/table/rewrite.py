"""Fragments written anew: by tasks, into files that no version names yet, and then put in place of the old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lance.commit import CommitConflictError
from lance.optimize import Compaction, CompactionMetrics, CompactionTask, RewriteResult

from lake.storage import Location
from lake.table.commit import require_history
from lake.table.pins import fenced
from lake.table.snapshot import Snapshot, open_head, store_errors

_ATTEMPTS = 5


@dataclass(frozen=True)
class RewriteFragments:
    """Write the rows of some fragments into new files.

    Parameters
    ----------
    snapshot : Snapshot
        The version that it was planned on.
    number : int
        Of the task.
    planned : str
        Lance's task, as JSON.
    rows, bytes : int
        Living rows, and the size of the files that are read.
    """

    snapshot: Snapshot
    number: int
    planned: str
    rows: int
    bytes: int

    @classmethod
    def of(cls, snapshot: Snapshot, number: int, task: CompactionTask) -> RewriteFragments:
        """Make one of Lance's tasks ours."""
        rows = sum(fragment.num_rows for fragment in task.fragments)
        size = sum(file.file_size_bytes or 0 for fragment in task.fragments for file in fragment.files)
        return cls(snapshot, number, task.json(), rows, size)

    @property
    def key(self) -> str:
        """The number."""
        return f"{self.number:06d}"

    def run(self) -> str:
        """Return what a commit needs to know, as JSON: each attempt writes files of its own."""
        with store_errors(self.snapshot.location, self.snapshot.branch):
            done: str = CompactionTask.from_json(self.planned).execute(self.snapshot.dataset).json()
        return done


@dataclass(frozen=True)
class Put:
    """What `put` did: the version that it made, and of how many rewrites; ``None`` and 0 if nothing was left to put."""

    version: int
    rewrites: int
    metrics: CompactionMetrics | None


def put(location: Location, branch: str | None, written: Sequence[str], options: Mapping[str, Any]) -> Put:
    """Put new fragments in place of the old ones, in one commit, as far as nobody has changed or fenced these since.

    A rewrite holds rows as they were when it was planned. So it counts only if its fragments are now what they were
    then, and Lance refuses the commit if one of them changes before it takes effect.
    """
    for _ in range(_ATTEMPTS):
        head = open_head(location, branch)
        with store_errors(location, branch):
            whole = _unchanged(head, [RewriteResult.from_json(text) for text in written])
            if not whole:
                break
            try:
                require_history(head)
                metrics = Compaction.commit(head, whole, dict(options))
            except OSError as error:
                if isinstance(error, CommitConflictError) or "conflict" in str(error).lower():
                    continue
                raise
        return Put(head.version, len(whole), metrics)
    return Put(head.version, 0, None)


def _unchanged(head: Any, written: Sequence[RewriteResult]) -> list[RewriteResult]:
    fence = fenced(head)
    now = {f.fragment_id: (f.metadata.files, f.metadata.deletion_file) for f in head.get_fragments()}
    return [
        rewrite
        for rewrite in written
        if all(f.id not in fence and now.get(f.id) == (f.files, f.deletion_file) for f in rewrite.original_fragments)
    ]
