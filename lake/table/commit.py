"""Commits that take effect at most once, whatever the network does.

Lance commits by putting the manifest of version N+1 only if it is absent. Three things are added here.

*Identity.* Each transaction carries ``lake.commit`` in its properties. After any failure the writer
looks for its id in the history before it tries again, so a response that was lost on the way is found
to be the commit that it was. (Lance alone would rebase an append onto itself and double its rows.)

*Fence.* When a put may still be under way (a time-out), looking is not enough: it could land after the
look. A small commit of our own then takes the next version; every number up to it is decided for ever,
and a second look settles the matter.

*Stall.* Expiry may delete old manifests, and a put-if-absent of a deleted number succeeds again: the
version exists then, but no later one was built on it. Expiry therefore leaves everything younger than
`GRACE`; a commit that took longer than half of it, and an id that is found in an old version, count only
if the versions after it show them (`_lasting`). A change that was planned on a version after which others
have expired is planned again (`require_history`): Lance could not see what it conflicts with.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import lance
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata

from lake.errors import AlreadyExists, CommitUnknown, Conflict, InvalidInput, NotFound, StorageError
from lake.storage import Location, require_put_if_absent
from lake.table.snapshot import Snapshot, open_head, store_errors

COMMIT_ID = "lake.commit"
VERB = "lake.verb"
GRACE = timedelta(minutes=10)
_RETRIES = 30
_IO_RETRIES = 3
_ID_LENGTH = 256
_FENCE = "lake.fence"

Operation: TypeAlias = lance.LanceOperation.BaseOperation
Plan = Callable[[lance.LanceDataset], Operation | None]


@dataclass(frozen=True)
class Commit:
    """A commit that took effect.

    Parameters
    ----------
    version : int
        The version that it made.
    commit_id : str
        Its id in the history.
    repeated : bool
        It had taken effect before this call, which therefore did nothing.
    """

    version: int
    commit_id: str
    repeated: bool = False


def commit(  # noqa: C901  one attempt, top to bottom; cut up, the protocol could not be read
    location: Location,
    branch: str | None,
    plan: Plan,
    *,
    verb: str,
    commit_id: str | None = None,
    since: int = 0,
    properties: Mapping[str, str] | None = None,
) -> Commit:
    """Apply a change to the newest version of a table, at most once.

    Parameters
    ----------
    location, branch
        The table.
    plan : callable
        Makes the Lance operation from the newest version; it is asked again for each attempt, because
        another writer may have moved the table. ``None`` means that there is nothing to do.
    verb : str
        What the change is, for the history and for the other side of a conflict: ``"append"`` …
    commit_id : str, optional
        An id of the caller's. If the history holds it already, nothing is done.
    since : int
        The caller has looked for the id up to this version (`earlier`).
    properties : mapping, optional
        More to remember in the transaction; `plan` may fill it in.

    Raises
    ------
    Conflict
        Other writers kept preempting this change, or one made it impossible.
    CommitUnknown
        The store did not tell, and could not be asked; repeat with the same ``commit_id``.
    """
    require_put_if_absent(location)
    head = open_head(location, branch)
    if (done := earlier(head, location, branch, commit_id, since)) is not None:
        return done
    writer = _Writer(location, branch, verb, commit_id or uuid.uuid4().hex, {} if properties is None else properties)
    conflict: CommitConflictError | None = None
    failures = 0
    for attempt in range(_RETRIES):
        with store_errors(location, branch):  # no put is under way here: the earlier ones are settled
            if attempt:
                time.sleep(random.uniform(0, min(2.0, 0.01 * 2**attempt)))
                head.checkout_latest()
            operation = plan(head)
        if operation is None:
            return Commit(head.version, writer.commit_id)
        try:
            return writer.put(head, operation)
        except CommitConflictError as error:
            # Our own earlier put, sent again by the HTTP layer, looks like a conflict too.
            if (version := writer.settle(head, error, fence=False)) is not None:
                return Commit(version, writer.commit_id)
            conflict = error
        except (OSError, ValueError) as error:
            if "invalid user input" in str(error).lower():
                raise InvalidInput(f"{verb} on {location.uri}: {error}") from error
            failures += 1
            if (version := writer.settle(head, error, fence=True)) is not None:
                return Commit(version, writer.commit_id)
            if failures >= _IO_RETRIES:
                raise StorageError(
                    f"{verb} on {location.uri} did not take effect after {failures} attempts: {error}"
                ) from error
    theirs = latest_verb(location, branch)
    raise Conflict(
        f"{verb} on {location.uri} was preempted {_RETRIES} times, last by {theirs}: {conflict}",
        ours=verb,
        theirs=theirs,
    ) from conflict


def claim(newest: lance.LanceDataset, operation: lance.LanceOperation.Update) -> lance.LanceOperation.Update:
    """Let no two writes succeed that both claim, though neither knew of the other: the second is planned again.

    Lance sees no conflict between two inserts. So each also updates the oldest fragment, to what it is already.
    """
    oldest = min(newest.get_fragments(), key=lambda f: f.fragment_id)
    touched = {f.id for f in operation.updated_fragments} | set(operation.removed_fragment_ids)
    if oldest.fragment_id not in touched:
        operation.updated_fragments = [*operation.updated_fragments, oldest.metadata]
    return operation


def earlier(
    head: lance.LanceDataset, location: Location, branch: str | None, commit_id: str | None, since: int = 0
) -> Commit | None:
    """Return the commit that a caller's id stands for, if the history has it; moves ``head`` to the newest version."""
    if commit_id is None:
        return None
    check_commit_id(commit_id)
    with store_errors(location, branch):
        version = find(head, commit_id, since)
    return None if version is None else Commit(version, commit_id, repeated=True)


def create(
    location: Location, write: Callable[[dict[str, str]], lance.LanceDataset], *, commit_id: str | None = None
) -> Commit:
    """Make version 1 of a table; ``write`` gets the properties that the transaction must carry."""
    with contextlib.suppress(NotFound):
        if (done := earlier(open_head(location), location, None, commit_id)) is not None and done.version == 1:
            return done
    commit_id = commit_id or uuid.uuid4().hex
    try:
        dataset = write({COMMIT_ID: commit_id, VERB: "create"})
    except (OSError, ValueError) as error:
        try:
            existing = open_head(location)
        except StorageError as blind:
            raise CommitUnknown(f"creating {location.uri}: {error}", commit_id=commit_id) from blind
        except NotFound:
            if "_versions/" in str(error):  # the manifest's put may still be under way
                raise CommitUnknown(
                    f"creating {location.uri}: the store gave no answer ({error}); repeat with "
                    f"commit_id={commit_id!r}, which looks before it writes",
                    commit_id=commit_id,
                ) from error
            raise StorageError(f"cannot create {location.uri}: {error}") from error
        if find(existing, commit_id) == 1:
            return Commit(1, commit_id)
        raise AlreadyExists(
            f"{location.uri} exists already: open_table opens it; choose another name for a new one"
        ) from error
    return Commit(dataset.version, commit_id)


def check_commit_id(commit_id: str) -> None:
    """Refuse what could not be an id."""
    if not isinstance(commit_id, str) or not 1 <= len(commit_id) <= _ID_LENGTH or not commit_id.isprintable():
        raise InvalidInput(f"commit_id {commit_id!r}: give 1 to 256 printable characters")


def find(head: lance.LanceDataset, commit_id: str, since: int = 0) -> int | None:
    """Return the version that a commit made, newest first, or ``None`` if no retained version is its.

    Raises
    ------
    CommitUnknown
        A version carries the id, and nothing tells whether the later ones were built on it.
    """
    for version, properties in transactions(head, since):
        if properties.get(COMMIT_ID) == commit_id:
            if not _lasting(head, version):
                raise CommitUnknown(
                    f"version {version} of {head.uri} carries the commit id {commit_id!r}, but older versions have "
                    "expired and the later ones do not show the change: it was stalled and came too late, or was "
                    "compacted since. Look at the table; if the change is missing, repeat it with a new id",
                    commit_id=commit_id,
                )
            return version
    return None


def _lasting(head: lance.LanceDataset, version: int) -> bool:
    """Tell whether the versions after one were built on it, or it came late into a gap that expiry had left."""
    retained = {reference["version"] for reference in head.version_refs()}
    named = {tag["version"] for tag in head.tags.list().values()}
    later = retained - set(range(version + 1))
    # Expiry takes the oldest first, except what has a name: where the one before is, there was no gap.
    if not later or version in named or version - 1 in retained - named:
        return True
    operation = head.read_transaction(version).operation
    new = getattr(operation, "new_fragments", None) or getattr(operation, "fragments", None) or []
    made = _data_files(new) or _deletion_files(getattr(operation, "updated_fragments", []))
    next_one = [f.metadata for f in head.checkout_version(min(later)).get_fragments()]
    return bool(made & (_data_files(next_one) | _deletion_files(next_one)))


def _data_files(fragments: Iterable[FragmentMetadata]) -> set[str]:
    return {file.path for fragment in fragments for file in fragment.files}


def _deletion_files(fragments: Iterable[FragmentMetadata]) -> set[str]:
    return {str(f.to_json()["deletion_file"]) for f in fragments if f.deletion_file is not None}


def transactions(head: lance.LanceDataset, since: int = 0) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield ``(version, transaction properties)`` of the versions after ``since``, newest first."""
    head.checkout_latest()
    known: Iterable[int] = range(head.version, since, -1)
    if since == 0:  # the whole history: do not ask for versions that expiry removed
        known = sorted((ref["version"] for ref in head.version_refs()), reverse=True)
    for version in known:
        try:
            transaction = head.read_transaction(version)
        except TypeError:
            continue  # pylance 14 cannot build the object of a compaction that rewrote an index: never one of ours
        except (OSError, ValueError) as error:
            if "not found" in str(error).lower():
                continue
            raise StorageError(f"{head.uri}: cannot read the history at version {version}: {error}") from error
        if transaction is not None:
            yield version, dict(transaction.transaction_properties or {})


def require_history(head: lance.LanceDataset) -> None:
    """Refuse to commit what was planned on a version if expiry removed versions since: Lance sees no conflict there.

    Raises
    ------
    CommitConflictError
        So that it is planned again.
    """
    newest = head.latest_version
    if newest > head.version:
        retained = {reference["version"] for reference in head.version_refs()}
        gone = [v for v in range(head.version + 1, newest + 1) if v not in retained]
        if gone:
            raise CommitConflictError(f"versions {gone[0]} to {gone[-1]} expired since version {head.version} was read")


@dataclass(frozen=True)
class _Writer:
    location: Location
    branch: str | None
    verb: str
    commit_id: str
    properties: Mapping[str, str]

    def put(self, head: lance.LanceDataset, operation: Operation) -> Commit:
        """Try once. Lance's own retries are off: it would not look for our id in between."""
        transaction = lance.Transaction(
            read_version=head.version,
            operation=operation,
            transaction_properties={**self.properties, COMMIT_ID: self.commit_id, VERB: self.verb},
        )
        started = time.monotonic()
        if not isinstance(operation, lance.LanceOperation.Append):  # appends fit after anything
            require_history(head)
        done = lance.LanceDataset.commit(
            head, transaction, max_retries=0, storage_options=dict(self.location.options) or None
        )
        version: int = done.version
        if time.monotonic() - started > GRACE.total_seconds() / 2 and done.latest_version > version:
            raise CommitUnknown(
                f"{self.verb} on {self.location.uri} was stalled for more than {GRACE / 2}, and the table has "
                f"moved on from version {version}; repeat with commit_id={self.commit_id!r}",
                commit_id=self.commit_id,
            )
        return Commit(version, self.commit_id)

    def settle(self, head: lance.LanceDataset, error: Exception, *, fence: bool) -> int | None:
        """Find out whether a failed put took effect; with a fence, it cannot any more afterwards."""
        try:
            before = head.version
            version = find(head, self.commit_id, since=before)
            if version is not None or not fence:
                return version
            fresh = open_head(self.location, self.branch)
            fresh.update_config({_FENCE: uuid.uuid4().hex})
            return find(fresh, self.commit_id, since=before)
        except (OSError, ValueError, StorageError) as blind:
            raise CommitUnknown(
                f"{self.verb} on {self.location.uri}: the store gave no answer ({error}), nor could it be asked "
                f"({blind}); repeat with commit_id={self.commit_id!r}, which looks before it writes",
                commit_id=self.commit_id,
            ) from error


def latest_verb(
    location: Location,
    branch: str | None,
    since: int | None = None,
    ours: Callable[[Mapping[str, str]], bool] = lambda _: False,
) -> str:
    """Say what made the newest version, for the other side of a conflict.

    Parameters
    ----------
    since : int, optional
        Look at all versions after this one.
    ours : callable, optional
        Tells by a commit's properties whether it is to be passed over.
    """
    head = open_head(location, branch)
    for version, properties in transactions(head, head.version - 1 if since is None else since):
        if not ours(properties):
            return f"{properties.get(VERB, 'a writer outside the lake')} at version {version}"
    return "an unknown writer"


def pinned(location: Location, branch: str | None = None) -> Snapshot:
    """Pin the newest version."""
    return Snapshot.of(open_head(location, branch), location, branch)
