"""A pinned version of a table: what every task, search and job works on."""

from __future__ import annotations

import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import lance

from lake.errors import CorruptTable, InvalidInput, LakeError, NotFound, NotSupported, StorageError
from lake.schema import Schema
from lake.storage import Files, Location
from lake.table.damage import damaged, panicked

_HANDLES = 64
_GONE = re.compile(r"not found: \S+/_versions\b(?!/)")


@dataclass(frozen=True)
class Snapshot:
    """One version of a table and how to reach it: immutable, picklable, and it prints no secret.

    Parameters
    ----------
    location : Location
        Where the table lies (``…/<name>.lance``).
    version : int
        A version of the table, from 1.
    branch : str or None
        The branch that the version is on; ``None`` is the main line.
    time : datetime, optional
        When the version was committed, in UTC. A table that was dropped and made anew has versions of
        the same numbers: what is kept for a snapshot must not be taken for one of another table. Looked up when
        it is not given.

    Raises
    ------
    NotFound
        There is no such version.
    """

    location: Location
    version: int
    branch: str | None = None
    time: datetime | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.time is None:
            dataset = open_head(self.location, self.branch, self.version)
            object.__setattr__(self, "time", _committed(dataset))
            _handles.keep(self, dataset)

    @classmethod
    def of(cls, head: lance.LanceDataset, location: Location, branch: str | None) -> Snapshot:
        """Pin the version that a handle stands on."""
        return cls(location, head.version, branch, _committed(head))

    @property
    def dataset(self) -> lance.LanceDataset:
        """The Lance dataset at this version. Handles are shared within the process: never move one."""
        return _handles.get(self)

    @property
    def folder(self) -> Location:
        """Where files lie that were written for it: those of a branch have a folder of their own."""
        return self.location if self.branch is None else self.location.join("tree", self.branch)

    @property
    def schema(self) -> Schema:
        """The semantic schema at this version."""
        return Schema.decode(self.dataset.schema)


class _Handles:
    """The datasets of the snapshots that were used last, since opening one costs requests."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Snapshot, lance.LanceDataset] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, snapshot: Snapshot) -> lance.LanceDataset:
        found = self._kept.get(snapshot)
        return found if found is not None else self.keep(snapshot, _open(snapshot))

    def keep(self, snapshot: Snapshot, dataset: lance.LanceDataset) -> lance.LanceDataset:
        with self._lock:
            self._kept[snapshot] = dataset
            while len(self._kept) > _HANDLES:
                self._kept.popitem(last=False)
        return dataset


def _open(snapshot: Snapshot) -> lance.LanceDataset:
    dataset = open_head(snapshot.location, snapshot.branch, snapshot.version)
    if _committed(dataset) != snapshot.time:
        raise NotFound(
            f"{snapshot.location.uri} version {snapshot.version} is not the one of {snapshot.time}: the table was "
            "dropped and made anew; open it again"
        )
    return dataset


def _committed(dataset: lance.LanceDataset) -> datetime:
    # Lance hands out naive times in the machine's zone; a worker's machine may be in another.
    time: datetime = dataset.get_version()["timestamp"]
    return time.astimezone(UTC)


_handles = _Handles()


def open_head(location: Location, branch: str | None = None, version: int | None = None) -> lance.LanceDataset:
    """Open a table at its newest version, or at a given one.

    Returns
    -------
    lance.LanceDataset
        A handle of the caller's own, so that it may move it with ``checkout_latest``.

    Raises
    ------
    NotFound
        No such table, branch or version.
    CorruptTable
        A manifest is there and cannot be read.
    """
    try:
        options = dict(location.options) or None
        dataset = lance.dataset(location.uri, None if branch else version, storage_options=options, session=_session())
        if branch is not None:
            dataset = dataset.checkout_version((branch, version))
    except BaseException as error:
        if not (isinstance(error, ValueError | OSError) or panicked(error)):
            raise
        raise explain(error, location, branch, version) from error
    if not dataset.schema.names:  # a manifest of zeros, as a crash of the machine may leave it, decodes to nothing
        raise CorruptTable(f"{location.uri}: the manifest of version {dataset.version} is empty")
    return dataset


def drop(location: Location) -> None:
    """Delete a table and everything in it."""
    try:
        lance.LanceDataset.drop(location.uri, storage_options=dict(location.options) or None)
    except (ValueError, OSError) as error:
        raise explain(error, location) from error


def move(old: Location, new: Location) -> None:
    """Give a table another place. Manifests are copied last and removed first: it is never seen in part.

    Raises
    ------
    NotSupported
        The table has branches, whose manifests name its place.
    """
    branches = sorted(open_head(old).branches.list())
    if branches:
        raise NotSupported(f"{old.uri} has branches {branches}, which cannot follow it elsewhere")
    if old.scheme == "file":
        Path(old.uri).rename(new.uri)
        return
    source, target = Files(old), Files(new)
    names = sorted(source.names(), key=lambda name: (name.startswith("_versions/"), name))
    for name in names:
        source.copy_to(target, name)
    for name in reversed(names):
        source.delete(name)


def explain(
    error: BaseException, location: Location, branch: str | None = None, version: int | None = None
) -> LakeError:
    """Turn an error of Lance's into the lake's, saying which table and what to do."""
    text = str(error)
    low = text.lower()
    where = location.uri + (f"@{branch}" if branch else "") + (f" version {version}" if version else "")
    if "not found" in low or "does not exist" in low:
        if version is None and branch is None:
            return NotFound(f"there is no table at {where}")
        return NotFound(f"{where} does not exist (never written, or expired)")
    if damaged(error) or panicked(error):
        return CorruptTable(f"{where}: the manifest cannot be read: {text}")
    return StorageError(f"{where}: {text}")


@contextmanager
def store_errors(location: Location, branch: str | None = None) -> Iterator[None]:
    """Turn whatever Lance raises about a table that is open into the lake's errors."""
    try:
        yield
    except LakeError:
        raise
    except BaseException as error:
        if not (isinstance(error, ValueError | OSError | RuntimeError) or panicked(error)):
            raise
        text, low = str(error), str(error).lower()
        where = location.uri + (f"@{branch}" if branch else "")
        if _GONE.search(low):
            raise NotFound(f"{where}: there is no table any more: it was dropped or renamed") from error
        if damaged(error) or panicked(error):
            raise CorruptTable(f"{where}: a file of the table cannot be read: {text}") from error
        if "invalid user input" in low:
            raise InvalidInput(f"{where}: {text}") from error
        if "version not found" in low or "ref not found" in low:
            raise NotFound(f"{where}: {text}") from error
        raise explain(error, location, branch) from error


@functools.cache
def _session() -> lance.Session:
    # One set of caches a process: snapshots of one table share index and metadata entries.
    return lance.Session()
