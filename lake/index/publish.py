"""Publishing built segments: one commit, of what still describes the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import lance
from lance.dataset import Index

from lake.index.segments import built_indexes, removal
from lake.index.spec import IndexSpec, read_specs
from lake.index.work import Work
from lake.table.commit import commit
from lake.table.snapshot import Snapshot

VERB = "build indexes"


@dataclass
class Published:
    """What became of a build's segments.

    Parameters
    ----------
    version : int
        The version that holds them.
    left_out : set of str
        Indexes of which some segments no longer describe the table.
    unwanted : set of str
        Indexes that were dropped, or declared otherwise, meanwhile.
    """

    version: int
    left_out: set[str] = field(default_factory=set)
    unwanted: set[str] = field(default_factory=set)


def publish(snapshot: Snapshot, work: Sequence[Work], commit_id: str) -> Published:
    """Commit the segments of all indexes at once.

    The newest version decides: segments are left out whose fragments were rewritten meanwhile, and those of
    an index that somebody else extended. Searches scan what is left out.

    Parameters
    ----------
    snapshot : Snapshot
        What the segments were built from.
    work : sequence of Work
        Of healthy indexes.
    commit_id : str
        If the history has it already, nothing is committed.
    """
    published = Published(snapshot.version)

    def operation(head: lance.LanceDataset) -> lance.LanceOperation.CreateIndex | None:
        published.left_out.clear()
        published.unwanted.clear()
        added, removed = [], []
        specs, built = read_specs(head), built_indexes(head)
        for w in work:
            name = w.plan.declared.name
            if specs.get(name) != w.plan.declared:
                published.unwanted.add(name)
                continue
            there = built[name].segments if name in built else ()
            valid = _valid(snapshot.dataset, head, w) if {s.id for s in there} <= w.plan.seen else []
            if len(valid) < len(w.indexes):
                published.left_out.add(name)
            if valid or not w.indexes:
                added += valid
                removed += [removal(built[name], s) for s in there if s.id in w.plan.replaced]
        if not added and not removed:
            return None
        return lance.LanceOperation.CreateIndex(new_indices=added, removed_indices=removed)

    done = commit(snapshot.location, snapshot.branch, operation, verb=VERB, commit_id=commit_id)
    published.version = done.version
    return published


def _valid(before: lance.LanceDataset, head: lance.LanceDataset, work: Work) -> list[Index]:
    """Keep the segments whose fragments are all there and hold the very values that were indexed."""
    ids = _leaf_ids(before, work.plan.spec)
    indexed, now = _files(before, ids), _files(head, ids)
    return [index for index in work.indexes if all(indexed[f] == now.get(f) for f in index.fragment_ids)]


def _leaf_ids(dataset: lance.LanceDataset, spec: IndexSpec) -> frozenset[int]:
    """Return the ids of a column's parts: data files name the leaves of lists and structs."""
    found = set()
    left = [f for f in dataset.lance_schema.fields() if f.id() == spec.field_id]
    while left:
        part = left.pop()
        found.add(part.id())
        left += part.children()
    return frozenset(found)


def _files(dataset: lance.LanceDataset, ids: frozenset[int]) -> dict[int, frozenset[str]]:
    """Return the data files that hold a column, by fragment: the same file means the same values."""
    return {
        f.fragment_id: frozenset(file.path for file in f.metadata.files if ids & set(file.fields))
        for f in dataset.get_fragments()
    }
