"""Compaction: small fragments into large ones, deleted rows out of the files."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import lance
from lance.commit import CommitConflictError
from lance.optimize import Compaction

from lake.errors import Conflict, InvalidInput, NotSupported
from lake.storage import Location, require_put_if_absent
from lake.table.commit import latest_verb, require_history
from lake.table.pins import fenced
from lake.table.snapshot import open_head, store_errors

_ATTEMPTS = 5
_READERS = 2  # batches that Lance holds at once for each thread


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
    """

    version: int
    fragments_removed: int
    fragments_added: int
    files_removed: int
    files_added: int
    fenced: int
    seconds: float

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
) -> Compacted:
    """Rewrite small fragments and those with many deleted rows; the rows and their ids stay the same.

    Fragments that a running index build is working on are left as they are. Indexes go on covering
    rewritten rows.

    Parameters
    ----------
    target_rows : int
        Rows that a fragment should have.
    deleted : float
        Share of deleted rows from which on a fragment is rewritten.
    memory_bytes : int
        Memory for the batches in flight.
    """
    if target_rows < 1 or not 0 <= deleted <= 1:
        raise InvalidInput(
            f"compact(target_rows={target_rows}, deleted={deleted}): a positive number, and a share 0..1"
        )
    started = time.monotonic()
    require_put_if_absent(location)
    if branch is not None and open_head(location, branch).describe_indices():
        # Lance 14 writes the remapped index into the branch, and looks for it in the main line.
        raise NotSupported(f"compact: branch {branch!r} has indexes, and Lance would lose them; drop them there first")
    for _ in range(_ATTEMPTS):
        head = open_head(location, branch)
        with store_errors(location, branch):
            fence = fenced(head)
            options = {
                "target_rows_per_fragment": target_rows,
                "materialize_deletions_threshold": deleted,
                "batch_size": _batch_rows(head, memory_bytes),
                "num_threads": 1,
                "excluded_fragment_ids": sorted(fence),
            }
            try:
                plan = Compaction.plan(head, options)
                results = [task.execute(head) for task in plan.tasks]
                if results:
                    require_history(head)
                done = Compaction.commit(head, results, options) if results else None
            except OSError as error:
                if not isinstance(error, CommitConflictError) and "conflict" not in str(error).lower():
                    raise
                conflict = error
                continue
        seconds = time.monotonic() - started
        if done is None:
            return Compacted(head.version, 0, 0, 0, 0, len(fence), seconds)
        return Compacted(
            head.version,
            done.fragments_removed,
            done.fragments_added,
            done.files_removed,
            done.files_added,
            len(fence),
            seconds,
        )
    theirs = latest_verb(location, branch)
    raise Conflict(
        f"compact on {location.uri}: other writers changed the same fragments {_ATTEMPTS} times, last by {theirs}; try "
        f"when they are quieter, or in smaller pieces: {conflict}",
        ours="compact",
        theirs=theirs,
    ) from conflict


def _batch_rows(head: lance.LanceDataset, memory_bytes: int) -> int:
    """Rows a batch so that the batches in flight fit into the memory."""
    rows = head.count_rows()
    fragments = [f.metadata for f in head.get_fragments()]
    size = sum(f.file_size_bytes or 0 for fragment in fragments for f in fragment.files)
    width = max(1, size // max(1, rows))
    return int(min(8192, max(64, memory_bytes // (16 * _READERS * width))))
