"""Leases that keep expiry and compaction away from what somebody is using.

A pin is a Lance tag (expiry keeps tagged versions, whoever runs it) named ``lake.pin.<job>``, with its
expiry time and the fragments that compaction must leave alone in the tag's metadata. A job that dies
leaves its pin to run out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import lance

from lake.table.snapshot import Snapshot, open_head, store_errors

PREFIX = "lake.pin."
LEASE = timedelta(hours=12)


@dataclass(frozen=True)
class Pin:
    """A version that is in use.

    Parameters
    ----------
    job : str
        Who uses it.
    version : int
        What is pinned.
    branch : str or None
        On which branch.
    expires : datetime
        When the lease runs out, in UTC.
    fragments : frozenset of int
        Fragments that compaction must not rewrite meanwhile.
    """

    job: str
    version: int
    branch: str | None
    expires: datetime
    fragments: frozenset[int] = frozenset()

    @property
    def alive(self) -> bool:
        """Whether the lease still runs."""
        return datetime.now(UTC) < self.expires


@contextmanager
def pin(snapshot: Snapshot, *, job: str, fragments: Iterable[int] = (), lease: timedelta = LEASE) -> Iterator[Pin]:
    """Keep a snapshot, and optionally the layout of some fragments, while the block runs.

    Parameters
    ----------
    job : str
        A name of the holder's; the same job pins anew after it was resubmitted.
    fragments : iterable of int
        Fragments that compaction is to leave as they are.
    lease : timedelta
        When the pin ends by itself, should this process die.
    """
    held = Pin(job, snapshot.version, snapshot.branch, datetime.now(UTC) + lease, frozenset(fragments))
    _create(snapshot, held)
    try:
        yield held
    finally:
        with store_errors(snapshot.location):
            _remove(open_head(snapshot.location), PREFIX + _safe(job))


def pins(dataset: lance.LanceDataset) -> list[Pin]:
    """Return the pins of a table whose lease still runs."""
    return [p for p in (_read(name, tag) for name, tag in dataset.tags.list().items()) if p is not None and p.alive]


def fenced(dataset: lance.LanceDataset) -> set[int]:
    """Fragments that compaction must leave alone."""
    return {fragment for p in pins(dataset) for fragment in p.fragments}


def drop_dead_pins(dataset: lance.LanceDataset) -> None:
    """Remove the pins whose lease ran out."""
    for name, tag in dataset.tags.list().items():
        found = _read(name, tag)
        if found is not None and not found.alive:
            _remove(dataset, name)


def _create(snapshot: Snapshot, held: Pin) -> None:
    name = PREFIX + _safe(held.job)
    dataset = open_head(snapshot.location)
    reference = snapshot.version if snapshot.branch is None else (snapshot.branch, snapshot.version)
    with store_errors(snapshot.location):
        if name in dataset.tags.list():
            dataset.tags.update(name, reference)
        else:
            dataset.tags.create(name, reference)
        metadata = {"expires": held.expires.isoformat(), "fragments": ",".join(map(str, sorted(held.fragments)))}
        dataset.tags.replace_metadata(name, metadata)


def _remove(dataset: lance.LanceDataset, name: str) -> None:
    try:
        dataset.tags.delete(name)
    except (OSError, ValueError):
        if name in dataset.tags.list():  # a lost response, or somebody else removed it
            raise


def _read(name: str, tag: lance.dataset.Tag) -> Pin | None:
    if not name.startswith(PREFIX):
        return None
    metadata = tag["metadata"]
    # A pin whose holder died between the two writes has no metadata: it runs from when it was made.
    made = tag["created_at"] or datetime.now(UTC)
    expires = datetime.fromisoformat(metadata["expires"]) if "expires" in metadata else made + LEASE
    listed = metadata.get("fragments", "")
    return Pin(
        name.removeprefix(PREFIX),
        tag["version"],
        tag["branch"],
        expires,
        frozenset(int(f) for f in listed.split(",") if f),
    )


def _safe(job: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", job)
