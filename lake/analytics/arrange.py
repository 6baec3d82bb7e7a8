"""A table's rows in the order of a column: a rewrite by tasks, and one commit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from lake.analytics.layout import layout
from lake.analytics.stages import Ids, load, save
from lake.errors import Conflict, NotSupported
from lake.join.side import take
from lake.run import Callback, Executor, Ledger, Stage, run_stage
from lake.schema import Role
from lake.storage import Files, Location
from lake.table import pins
from lake.table.commit import Operation, commit, earlier, latest_verb, pinned
from lake.table.parts import Part, PartedWrite, begin
from lake.table.snapshot import Snapshot, open_head
from lake.table.stream import field_ids, file_bytes

_ATTEMPTS = 3
_BATCH_BYTES = 8 << 20
_VERB = "arrange"


@dataclass(frozen=True)
class WriteRows:
    """Write some rows into files of their own.

    Parameters
    ----------
    snapshot : Snapshot
    folder : Location
        The job's.
    order : str
        The file of the rows' ids, in their order.
    rows : int
        That are read at once.
    target : PartedWrite
    """

    snapshot: Snapshot
    folder: Location
    order: str
    rows: int
    target: PartedWrite

    @property
    def key(self) -> str:
        """The file of the ids."""
        return self.order

    def run(self) -> Part:
        """Read and write."""
        ids = load(self.folder, self.order)["ids"]
        return self.target.part(self._batches(ids), lambda _rows, _bytes: None)

    def _batches(self, ids: Ids) -> Iterator[pa.RecordBatch]:
        dataset = self.snapshot.dataset
        for start in range(0, len(ids), self.rows):
            yield from take(dataset, ids[start : start + self.rows], dataset.schema.names).to_batches()


@dataclass(frozen=True)
class Arranging:
    """A rewrite at work.

    Parameters
    ----------
    location : Location
    branch : str or None
    column : str
        Whole numbers; rows without one come last.
    rows : int
        That a fragment holds; one value's rows have fragments of their own only if they are more.
    job : str
    folder : Location
        The job's.
    memory : int
        Bytes that a task needs.
    """

    location: Location
    branch: str | None
    column: str
    rows: int
    job: str
    folder: Location
    memory: int

    def run(self, executor: Executor, on_event: Callback) -> int:
        """Rewrite the newest version and commit; return the version that it made.

        Raises
        ------
        Conflict
            Others kept changing the rows.
        """
        conflict: Conflict | None = None
        for _ in range(_ATTEMPTS):
            snapshot = pinned(self.location, self.branch)
            with pins.pin(snapshot, job=f"{self.job}-arrange"):  # also removes the pin of a driver that was killed
                head = open_head(self.location, self.branch)
                done = earlier(head, self.location, self.branch, self.commit_id)
                if done is not None:
                    return done.version
                parts = self._write(snapshot, executor, on_event)
                try:
                    return self._commit(snapshot, parts)
                except Conflict as error:
                    conflict = error
        assert conflict is not None  # noqa: S101  that is why the attempts ran out
        raise conflict

    @property
    def commit_id(self) -> str:
        """The id of the commit."""
        return f"{self.job}.arrange"

    def _write(self, snapshot: Snapshot, executor: Executor, on_event: Callback) -> list[Part]:
        target = begin(self.location, self.branch, "append")
        stage = f"arrange-{snapshot.version}"
        dataset = snapshot.dataset
        held = file_bytes([f.metadata for f in dataset.get_fragments()])
        at_once = int(min(8192, max(64, _BATCH_BYTES * dataset.count_rows() // max(1, held))))
        tasks = []
        for number, ids in enumerate(layout(dataset, self.column, self.rows)):
            name = f"{stage}-{number:06d}.npz"
            save(self.folder, name, ids=ids)
            tasks.append(WriteRows(snapshot, self.folder, name, at_once, target))
        ledger = Ledger(Files(self.folder.join("ledger")), self.job, _encode, _decode)
        done = list(run_stage(executor, Stage(stage, tasks, self.memory), ledger, on_event))
        return [result.value for result in sorted(done, key=lambda result: result.key)]

    def _commit(self, snapshot: Snapshot, parts: Sequence[Part]) -> int:
        read = {f.fragment_id: f.metadata.to_json() for f in snapshot.dataset.get_fragments()}

        def plan(newest: lance.LanceDataset) -> Operation | None:
            now = {f.fragment_id: f.metadata.to_json() for f in newest.get_fragments()}
            if any(now.get(fragment) != as_read for fragment, as_read in read.items()):
                theirs = latest_verb(self.location, self.branch)
                raise Conflict(
                    f"arrange on {self.location.uri}: rows were changed while they were rewritten, last by {theirs}; "
                    "run the job again when others are quieter",
                    ours=_VERB,
                    theirs=theirs,
                )
            made = [fragment for part in parts for fragment in part.fragments]
            return lance.LanceOperation.Update(
                removed_fragment_ids=list(read),
                new_fragments=made,
                # No index knows these rows: without this, Lance takes them for covered where the old ones were.
                fields_for_preserving_frag_bitmap=field_ids(newest, newest.schema.names),
                update_mode="rewrite_rows",
            )

        return commit(self.location, self.branch, plan, verb=_VERB, commit_id=self.commit_id).version


def check_arrange(snapshot: Snapshot) -> None:
    """Refuse a table whose rows cannot be rewritten one by one."""
    blobs = [c.name for c in snapshot.schema.columns if c.role == Role.BLOB]
    if blobs:
        raise NotSupported(f"arrange=True: {snapshot.location.uri} holds blobs in {blobs}; leave it as it is")


def _encode(part: Part) -> dict[str, Any]:
    return {"fragments": [f.to_json() for f in part.fragments], "rows": part.rows}


def _decode(kept: dict[str, Any]) -> Part:
    return Part(tuple(FragmentMetadata.from_json(json.dumps(f)) for f in kept["fragments"]), kept["rows"])
