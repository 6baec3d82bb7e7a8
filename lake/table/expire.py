"""Removal of old versions and of the files that only they name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import lance

from lake.errors import InvalidInput
from lake.storage import Location
from lake.table import commit as committing
from lake.table.pins import drop_dead_pins
from lake.table.snapshot import open_head, store_errors


@dataclass(frozen=True)
class Expiry:
    """What expiry removed, or would remove.

    Parameters
    ----------
    dry_run : bool
        Nothing was removed.
    versions : tuple of int
        Versions that go.
    kept : int
        Versions that stay.
    protected : tuple of int
        Of those that stay: old enough to go, but tagged, pinned or the base of a branch.
    files, bytes : int
        Files that go (data, deletion, index, transaction, manifest), and their bytes.
    """

    dry_run: bool
    versions: tuple[int, ...]
    kept: int
    protected: tuple[int, ...]
    files: int
    bytes: int

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dict, for JSON."""
        return asdict(self)


def expire(
    location: Location,
    *,
    older_than: timedelta = timedelta(days=14),
    keep: int = 1,
    dry_run: bool = True,
) -> Expiry:
    """Remove versions that are older than ``older_than``, except the newest ``keep``.

    Tagged versions, pinned snapshots (those of running jobs among them) and versions that a branch began
    at are kept. Files that no version names are removed only when they are a week old: they may belong to
    a write that is under way.

    Parameters
    ----------
    older_than : timedelta
        At least `lake.table.commit.GRACE`: a writer that was stalled for less must still find the numbers
        of the versions that it raced with.
    dry_run : bool
        Only tell.
    """
    if not isinstance(older_than, timedelta):
        raise InvalidInput(f"expire(older_than={older_than!r}): give a timedelta, such as timedelta(days=14)")
    if older_than < committing.GRACE:
        raise InvalidInput(
            f"expire(older_than={older_than}): the youngest version that may go is {committing.GRACE} old"
        )
    if keep < 1:
        raise InvalidInput(f"expire(keep={keep}): at least the newest version stays")
    head = open_head(location)
    with store_errors(location):
        if not dry_run:
            drop_dead_pins(head)
        limit = datetime.now(UTC) - older_than
        found = sorted(head.versions(), key=lambda v: v["version"])
        old = [v["version"] for v in found[:-keep] if v["timestamp"].astimezone(UTC) < limit]
        protected = sorted(set(old) & _referenced(head))
        going = sorted(set(old) - set(protected))
        return _remove(head, going, len(found) - len(going), tuple(protected), dry_run=dry_run)


def _remove(
    head: lance.LanceDataset, going: list[int], kept: int, protected: tuple[int, ...], *, dry_run: bool
) -> Expiry:
    if not going:
        return Expiry(dry_run, (), kept, protected, 0, 0)
    options = {"versions": going, "error_if_tagged_old_versions": False}
    stats = head.explain_cleanup_old_versions(**options).stats if dry_run else head.cleanup_old_versions(**options)
    files = (
        stats.data_files_removed
        + stats.deletion_files_removed
        + stats.index_files_removed
        + stats.transaction_files_removed
        + stats.old_versions
    )
    return Expiry(dry_run, tuple(going), kept, protected, files, stats.bytes_removed)


def _referenced(head: lance.LanceDataset) -> set[int]:
    tagged = {tag["version"] for tag in head.tags.list().values() if tag["branch"] is None}
    bases = {b["parent_version"] for b in head.branches.list().values() if b["parent_branch"] is None}
    return tagged | bases
