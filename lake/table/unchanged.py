"""Delete rows that were chosen in a snapshot, if nothing that the choice rested on has changed since."""

from __future__ import annotations

from dataclasses import dataclass

import lance
import numpy as np
import numpy.typing as npt

from lake.errors import NotSupported
from lake.storage import require_put_if_absent
from lake.table.commit import Operation, commit, transactions
from lake.table.rows import _mask
from lake.table.snapshot import Snapshot, open_head

Ids = npt.NDArray[np.int64]

_DELETED = "lake.deleted"
_TIMES = ("_row_created_at_version", "_row_last_updated_at_version")


@dataclass(frozen=True)
class Deleted:
    """What `delete_unchanged` did.

    Parameters
    ----------
    version : int
        The version that it made, or the newest if nothing was to be deleted.
    rows : int
        Rows deleted.
    repeated : bool
        A commit of this id had deleted them before.
    """

    version: int
    rows: int
    repeated: bool


def delete_unchanged(since: Snapshot, rows: Ids, needs: Ids, *, commit_id: str) -> Deleted:
    """Delete rows from the newest version, each only if it and another row are as they were in a snapshot.

    Parameters
    ----------
    since : Snapshot
        In which the rows were chosen.
    rows : int64, shape (n,)
        Row ids.
    needs : int64, shape (n,)
        For each row the one that must be there, unchanged, for it to go. No writer can change or delete that
        one at the same time: one of the two commits is planned again.
    commit_id : str
        Repeating the call with it does nothing.

    Raises
    ------
    NotSupported
        Row ids of this table do not stay with their rows.
    """
    location, branch = since.location, since.branch
    if not since.dataset.has_stable_row_ids:
        raise NotSupported(
            f"{location.uri} was made without stable row ids, so nothing tells whether a row is the one that was "
            "read; copy it into a table of the lake, or delete by key"
        )
    require_put_if_absent(location)
    ids = np.unique(np.concatenate([rows, needs]))
    row, need = np.searchsorted(ids, rows), np.searchsorted(ids, needs)
    before = _find(since.dataset, ids)
    properties: dict[str, str] = {_DELETED: "0"}

    def plan(newest: lance.LanceDataset) -> Operation | None:
        now = _find(newest, ids)
        same = (now == before)[:, :2].all(axis=1) & (now[:, 0] >= 0)
        going = same[row] & same[need]
        properties[_DELETED] = str(int(going.sum()))
        if not going.any():
            return None
        updated, removed = _mask(newest, now[row[going], 2].astype(np.uint64))
        # A fragment that is named in a commit, though it stays as it is, conflicts with whoever changes it.
        touched = {f.id for f in updated} | set(removed)
        named = {int(f) for f in np.unique(now[need[going], 2] >> 32)} - touched
        updated += [newest.get_fragment(f).metadata for f in sorted(named)]
        return lance.LanceOperation.Delete(updated, removed, f"{properties[_DELETED]} rows by row id")

    done = commit(location, branch, plan, verb="delete", commit_id=commit_id, properties=properties)
    if done.repeated:
        head = open_head(location, branch)
        properties = next(p for version, p in transactions(head, done.version - 1) if version == done.version)
    return Deleted(done.version, int(properties[_DELETED]), done.repeated)


def _find(dataset: lance.LanceDataset, ids: Ids) -> Ids:
    """Look rows up: when each was created and last updated, and its address; -1 for those that are not there."""
    found = np.full((len(ids), 3), -1, np.int64)
    scanner = dataset.scanner(columns=list(_TIMES), with_row_id=True, with_row_address=True)
    for batch in scanner.to_batches() if len(ids) else ():
        here = batch.column("_rowid").to_numpy().astype(np.int64)
        at = np.minimum(np.searchsorted(ids, here), len(ids) - 1)
        wanted = ids[at] == here
        for column, name in enumerate((*_TIMES, "_rowaddr")):
            found[at[wanted], column] = batch.column(name).to_numpy()[wanted]
    return found
