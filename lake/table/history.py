"""The versions of a table: what each did, tags, branches, time travel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import lance

from lake.errors import AlreadyExists, InvalidInput, NotFound
from lake.storage import Location
from lake.table.commit import COMMIT_ID, VERB, Operation, commit
from lake.table.pins import PREFIX
from lake.table.receipt import Receipt
from lake.table.snapshot import Snapshot, open_head, store_errors

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,99}")
# What Lance calls the operations that did not come from the lake.
_VERBS = {
    "Overwrite": "overwrite",
    "Append": "append",
    "Delete": "delete",
    "Update": "update",
    "Merge": "change columns",
    "Project": "change columns",
    "Rewrite": "compact",
    "CreateIndex": "index",
    "UpdateConfig": "settings",
    "Restore": "restore",
    "Clone": "branch",
    "BaseOperation": "reserve",
}


@dataclass(frozen=True)
class Version:
    """One version of a table.

    Parameters
    ----------
    version : int
        Its number.
    time : datetime
        When it was committed, by the writer's clock, in UTC.
    verb : str
        What made it: ``"append"``, ``"merge"``, ``"compact"`` …
    rows : int
        Live rows.
    fragments : int
        Fragments that hold them.
    commit_id : str
        The id of the commit; empty if another client wrote it.
    tags : tuple of str
        Tags on it.
    properties : mapping
        Whatever else its transaction carries.
    """

    version: int
    time: datetime
    verb: str
    rows: int
    fragments: int
    commit_id: str = ""
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "time": self.time.isoformat(), "tags": list(self.tags)}


def versions(location: Location, branch: str | None, limit: int | None = None) -> list[Version]:
    """Return the retained versions, newest first.

    Parameters
    ----------
    limit : int, optional
        Only the newest so many.
    """
    head = open_head(location, branch)
    tagged: dict[int, list[str]] = {}
    with store_errors(location, branch):
        for name, reference in tags(head).items():
            if reference.branch == branch:
                tagged.setdefault(reference.version, []).append(name)
        newest = sorted(head.versions(), key=lambda v: v["version"], reverse=True)[:limit]
    return [_version(head, v, tuple(sorted(tagged.get(v["version"], [])))) for v in newest]


def _version(head: lance.LanceDataset, found: lance.dataset.Version, names: tuple[str, ...]) -> Version:
    number, operation = found["version"], ""
    try:
        transaction = head.read_transaction(number)
    except (OSError, ValueError):
        transaction = None  # its file may be gone while the version is kept; the version still counts
    except TypeError:
        transaction = None  # pylance 14 cannot build the object of a compaction that rewrote an index
        operation = "Rewrite"
    properties = dict(transaction.transaction_properties or {}) if transaction else {}
    if transaction is not None:
        operation = type(transaction.operation).__name__
    return Version(
        number,
        _utc(found["timestamp"]),
        properties.pop(VERB, "") or _VERBS.get(operation, operation.lower() or "unknown"),
        int(found["metadata"].get("total_rows", 0)),
        int(found["metadata"].get("total_fragments", 0)),
        properties.pop(COMMIT_ID, ""),
        names,
        properties,
    )


def _utc(time: datetime) -> datetime:
    # Lance hands out naive times in the machine's zone.
    return time.astimezone(UTC)


@dataclass(frozen=True)
class Reference:
    """What a tag names."""

    version: int
    branch: str | None = None


def tags(head: lance.LanceDataset) -> dict[str, Reference]:
    """Return the tags that people made (pins are not among them)."""
    return {
        name: Reference(tag["version"], tag["branch"])
        for name, tag in head.tags.list().items()
        if not name.startswith(PREFIX)
    }


def resolve(location: Location, branch: str | None, at: int | str | datetime) -> Snapshot:
    """Find the version that a number, a tag or a time means.

    Parameters
    ----------
    at : int, str or datetime
        A version; a tag, or a time in ISO 8601; a time (a naive one is in UTC): the newest version that
        had been committed by then.

    Raises
    ------
    NotFound
        No such version or tag, or the table did not exist at that time.
    """
    head = open_head(location, branch)
    if isinstance(at, bool) or not isinstance(at, int | str | datetime):
        raise InvalidInput(f"at({at!r}): give a version number, a tag, or a time")
    if isinstance(at, str):
        with store_errors(location, branch):
            known = tags(head)
        if at in known:
            return Snapshot(location, known[at].version, known[at].branch)
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            raise NotFound(f"{location.uri} has no tag {at!r}; it has {sorted(known) or 'none'}") from None
    if isinstance(at, datetime):
        time = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        with store_errors(location, branch):
            before = [v["version"] for v in head.versions() if _utc(v["timestamp"]) <= time]
        if not before:
            raise NotFound(f"{location.uri} has no version as old as {time.isoformat()}")
        at = int(max(before))
    if at < 1:
        raise NotFound(f"{location.uri} has no version {at}; they begin at 1")
    return Snapshot(location, at, branch)


def tag(snapshot: Snapshot, name: str) -> None:
    """Name a version for ever; moving a tag means deleting it first."""
    check_reference(name)
    head = open_head(snapshot.location)
    reference = snapshot.version if snapshot.branch is None else (snapshot.branch, snapshot.version)
    with store_errors(snapshot.location):
        if name in head.tags.list():
            raise AlreadyExists(f"{snapshot.location.uri} has a tag {name!r} already; delete_tag first to move it")
        head.tags.create(name, reference)


def delete_tag(location: Location, name: str) -> None:
    """Remove a tag; its version may then expire."""
    head = open_head(location)
    with store_errors(location):
        if name not in (known := tags(head)):
            raise NotFound(f"{location.uri} has no tag {name!r}; it has {sorted(known) or 'none'}")
        head.tags.delete(name)


def create_branch(snapshot: Snapshot, name: str) -> None:
    """Begin a branch at a version: it shares the data and goes its own way."""
    check_reference(name)
    head = open_head(snapshot.location, snapshot.branch)
    with store_errors(snapshot.location, snapshot.branch):
        if name in head.branches.list():
            raise AlreadyExists(f"{snapshot.location.uri} has a branch {name!r} already")
        head.create_branch(name, snapshot.version)


def restore(location: Location, branch: str | None, snapshot: Snapshot, *, commit_id: str | None = None) -> Receipt:
    """Make an old version the newest one of its branch again; what came between stays in the history.

    Raises
    ------
    InvalidInput
        The snapshot is of another branch.
    """
    if snapshot.branch != branch:
        raise InvalidInput(
            f"restore: version {snapshot.version} is on branch {snapshot.branch or 'main'!r}, the table on "
            f"{branch or 'main'!r}; open that branch to restore it"
        )

    def plan(newest: lance.LanceDataset) -> Operation:
        _ = newest
        return lance.LanceOperation.Restore(snapshot.version)

    properties = {"lake.restored": str(snapshot.version)}
    done = commit(location, branch, plan, verb="restore", commit_id=commit_id, properties=properties)
    return Receipt.of(done, 0.0, {})


def check_reference(name: str) -> None:
    """Check the name of a tag or branch."""
    if not isinstance(name, str) or not _REF.fullmatch(name) or name.startswith(PREFIX) or name.endswith(".lock"):
        raise InvalidInput(
            f"{name!r} cannot name a tag or branch: use 1 to 100 letters, digits, '.', '_' or '-', beginning with "
            "a letter or digit"
        )
