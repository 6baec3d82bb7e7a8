"""What must be built so that a table's indexes are as declared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import lance
import pyarrow.compute as pc

from lake.index.choose import partitions_for, settle
from lake.index.kinds import KINDS, fitting
from lake.index.segments import BuiltIndex, Segment, built_indexes, stale_rows
from lake.index.spec import IndexSpec, read_specs
from lake.index.stale import holds_removed_rows
from lake.index.vectors import estimate
from lake.schema import Schema
from lake.schema.arrow import vector_layout
from lake.table.snapshot import Snapshot

# Each segment costs every search its own probes, and gives compaction one more border that it respects. So
# workers share an index in pieces that are worth it, and when small segments have become many, they are
# built together anew.
SEGMENT_ROWS = 1 << 22
MOST_SMALL_SEGMENTS = 16
STALE_SHARE = 0.33
_TASK_ROWS = 200_000
# Centroids that the table has outgrown by this factor are trained anew: four times the rows.
_OUTGROWN = 2
_BASE_BYTES = 832 << 20
_BATCHES_BYTES = 64 << 20


@dataclass(frozen=True)
class IndexPlan:
    """The work for one index.

    Parameters
    ----------
    declared : IndexSpec
        As the manifest has it.
    spec : IndexSpec
        Definite: with partitions, and with a kind that the rows allow.
    note : str
        Why the definite spec is not the declared one, or why old segments go.
    reuse : bool
        Whether new segments share the model of those that are there.
    groups : tuple of tuple of int
        The fragments of each new segment.
    seen, replaced : frozenset of str
        The segments that were there, and those of them that the new ones replace.
    """

    declared: IndexSpec
    spec: IndexSpec
    note: str = ""
    reuse: bool = False
    groups: tuple[tuple[int, ...], ...] = ()
    seen: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.groups and not self.replaced


def plan_build(snapshot: Snapshot, names: Collection[str] | None, parts: int) -> list[IndexPlan]:
    """Plan the work for the declared indexes of a snapshot.

    Parameters
    ----------
    names : collection of str or None
        Only these.
    parts : int
        Into how many segments to divide an index that is large enough, so that as many workers share it.
    """
    dataset = snapshot.dataset
    rows = live_rows(dataset)
    built = built_indexes(dataset)
    specs = read_specs(dataset)
    return [
        _plan(snapshot, spec, built.get(name), rows, parts)
        for name, spec in specs.items()
        if names is None or name in names
    ]


def unbuildable(spec: IndexSpec, schema: Schema) -> str:
    """Say why a declared index cannot be built any more, or return the empty string."""
    if not spec.column:
        return "its column was dropped; drop the index"
    if spec.kind not in fitting(schema.column(spec.column)):
        return f"its column {spec.column!r} was replaced by one that {spec.kind} does not fit; drop the index"
    return ""


def live_rows(dataset: lance.LanceDataset) -> dict[int, int]:
    """Return the live rows of each fragment, from the manifest."""
    return {f.fragment_id: f.metadata.num_rows for f in dataset.get_fragments()}


def _plan(
    snapshot: Snapshot, declared: IndexSpec, built: BuiltIndex | None, rows: Mapping[int, int], parts: int
) -> IndexPlan:
    dataset = snapshot.dataset
    segments = built.segments if built else ()
    seen = frozenset(s.id for s in segments)
    if unbuildable(declared, snapshot.schema):
        return IndexPlan(declared, declared)
    vectors = estimate(dataset, declared.column) if declared.traits.vector else sum(rows.values())
    spec, note = settle(declared, vectors)
    covered = {f for s in segments for f in s.fragments}
    missing = {f for f in rows if f not in covered}
    if not vectors:
        return IndexPlan(declared, spec, "no values yet", seen=seen)
    wrong = built.mismatch(spec) if built else ""
    if built and not wrong and missing and spec.traits.vector:
        wrong = _outgrown(dataset, declared, built, vectors)
    if wrong or not segments:
        return IndexPlan(declared, spec, note or wrong, groups=divide(rows, rows, parts), seen=seen, replaced=seen)
    replaced = _worn(snapshot, spec, segments, missing, rows)
    again = {f for s in segments if s.id in replaced for f in s.fragments if f in rows}
    groups = divide(missing | again, rows, parts)
    return IndexPlan(declared, spec, note, reuse=spec.traits.vector, groups=groups, seen=seen, replaced=replaced)


def _outgrown(dataset: lance.LanceDataset, declared: IndexSpec, built: BuiltIndex, vectors: int) -> str:
    """Say whether the built partitions are not those that are wanted."""
    partitions = len(dataset.get_ivf_model(built.name).centroids)
    wanted = declared.params.get("partitions")
    if wanted:
        differs = partitions != min(wanted, vectors) and partitions < wanted
    else:
        differs = partitions_for(KINDS[built.kind], vectors) >= _OUTGROWN * partitions
    return f"the table has outgrown {partitions:,} partitions" if differs else ""


def _worn(
    snapshot: Snapshot,
    spec: IndexSpec,
    segments: Sequence[Segment],
    missing: Collection[int],
    rows: Mapping[int, int],
) -> frozenset[str]:
    """Find the segments that are to be built anew along with the missing fragments."""
    dataset = snapshot.dataset
    worn = {s.id for s in segments if not any(f in rows for f in s.fragments)}
    worn |= {s.id for s in segments if holds_removed_rows(snapshot, s.fragments, s.version)}
    stale = stale_rows(dataset, segments)
    for segment in segments:
        live = sum(rows.get(f, 0) for f in segment.fragments)
        if stale[segment.id] > STALE_SHARE * (live + stale[segment.id]):
            worn.add(segment.id)
    if missing and spec.traits.masks_together and dataset.has_stable_row_ids:
        oldest = _oldest_row(dataset, missing)
        worn |= {s.id for s in segments if s.version >= oldest}
    kept = [s for s in segments if s.id not in worn]
    small = {s.id for s in kept if sum(rows.get(f, 0) for f in s.fragments) < SEGMENT_ROWS // 2}
    if missing and len(small) >= MOST_SMALL_SEGMENTS:
        worn |= small
    return frozenset(worn)


def _oldest_row(dataset: lance.LanceDataset, fragments: Iterable[int]) -> int:
    """Return the version in which the oldest row of some fragments was inserted, wherever it lay then."""
    chosen = [dataset.get_fragment(fragment) for fragment in fragments]
    versions = dataset.scanner(columns=["_row_created_at_version"], fragments=chosen).to_table()
    oldest = pc.min(versions["_row_created_at_version"]).as_py()
    return dataset.version + 1 if oldest is None else int(oldest)


def divide(fragments: Collection[int], rows: Mapping[int, int], parts: int) -> tuple[tuple[int, ...], ...]:
    """Divide fragments into groups of about equal rows: one segment each.

    Neighbours stay together, as their rows were written at about the same time.
    """
    ordered = sorted(fragments)
    total = sum(rows[f] for f in ordered)
    if not total:
        return ()
    count = max(-(-total // SEGMENT_ROWS), min(parts, total // _TASK_ROWS), 1)
    count = -(-count // parts) * parts if count > parts else count
    groups: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for fragment in ordered:
        middle = before + rows[fragment] / 2
        groups[min(count - 1, int(middle * count / total))].append(fragment)
        before += rows[fragment]
    return tuple(tuple(group) for group in groups if group)


def memory_of(spec: IndexSpec, schema: Schema) -> int:
    """Project the peak memory of one task, in bytes."""
    layout = vector_layout(schema.column(spec.column).type)
    if layout is None:
        return _BASE_BYTES + _BASE_BYTES // 2
    partitions, dimension = spec.params["partitions"], layout[1]
    return _BASE_BYTES + _BATCHES_BYTES + 4 * int(partitions) * dimension * 4
