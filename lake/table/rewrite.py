"""Fragments written anew: by tasks, into files that no version names yet, and then put in place of the old ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lance
from lance.commit import CommitConflictError
from lance.optimize import Compaction, CompactionMetrics, CompactionTask, RewriteResult

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
    """What `put` did: the newest version, how many rewrites are in it, and what they changed, if any are."""

    version: int
    rewrites: int
    metrics: CompactionMetrics | None


def put(planned: Snapshot, written: Sequence[str], options: Mapping[str, Any]) -> Put:
    """Put new fragments in place of the old ones, in one commit, as far as these are what they were.

    Lance would compare a rewrite with all that was committed since it was planned, fragment by fragment and operation
    by operation: an append that bears an id, a new column without values, would undo hours of work. And of versions
    that have expired since, it would see nothing. So what a rewrite rests on is compared here, with the newest version,
    and Lance is told that it was planned on that; it refuses the commit if another takes effect before.

    Parameters
    ----------
    planned : Snapshot
        The version that all of them were planned on.
    written : sequence of str
        What the tasks returned.
    options : mapping
        As they were planned with.
    """
    location, branch = planned.location, planned.branch
    for _ in range(_ATTEMPTS):
        head = open_head(location, branch)
        with store_errors(location, branch):
            whole = _valid(planned.dataset, head, written)
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


def _valid(planned: lance.LanceDataset, head: lance.LanceDataset, written: Sequence[str]) -> list[RewriteResult]:
    """Return the rewrites that rest on nothing that has changed, as if they had been planned on the newest version."""
    then, now, fence = _State(planned), _State(head), fenced(head)
    found = []
    for text in written if then.fields <= now.fields else ():
        fragments = {fragment.id for fragment in RewriteResult.from_json(text).original_fragments}
        if fence.isdisjoint(fragments) and then.of(fragments) == now.of(fragments):
            found.append(RewriteResult.from_json(json.dumps(json.loads(text) | {"read_version": head.version})))
    return found


class _State:
    """What a rewrite rests on: fragments, the indexes that cover them, and the columns that its files hold."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self.fields = set(_fields(dataset.lance_schema.fields()))
        self._fragments = {
            fragment.fragment_id: (held.files, held.deletion_file, held.overlays)
            for fragment in dataset.get_fragments()
            for held in [fragment.metadata]
        }
        self._covered = [(i.name, set(s.fragment_ids)) for i in dataset.describe_indices() for s in i.segments]

    def of(self, fragments: set[int]) -> tuple[list[Any], set[tuple[str, frozenset[int]]]]:
        """Return what is to be as it was."""
        covered = {(name, frozenset(segment & fragments)) for name, segment in self._covered if segment & fragments}
        return [self._fragments.get(fragment) for fragment in sorted(fragments)], covered


def _fields(fields: Sequence[Any]) -> Iterator[tuple[int, str]]:
    """Yield number and type of each column, and of what is within: numbers of dropped ones are given again."""
    for field in fields:
        yield field.id(), str(field.to_arrow().type)
        yield from _fields(field.children())
