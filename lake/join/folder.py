"""What a join or an analysis keeps in its folder ``_jobs/<job>``: what it was asked, what it reads, what it told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lake.errors import InvalidInput, NotFound
from lake.storage import Files, Location
from lake.table.snapshot import Snapshot, open_head

ASKED = "asked.json"
REPORT = "report.json"


def is_there(table: Location) -> bool:
    """Tell whether what a job made is still there; if it was dropped, the job makes it again."""
    try:
        open_head(table)
    except NotFound:
        return False
    return True


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job.

    Parameters
    ----------
    job : str
    kind : str
        What it does, such as ``dedup``.
    location : Location
    """

    job: str
    kind: str
    location: Location

    @property
    def files(self) -> Files:
        """The files in it."""
        return Files(self.location)

    def begun(self, asked: Mapping[str, Any], tables: Sequence[Snapshot]) -> tuple[Snapshot, ...]:
        """Return the versions to read: those given, or those that the job was begun with.

        Raises
        ------
        InvalidInput
            A job of this id was begun, and is another.
        NotFound
            A version that it read has expired.
        """
        if not self.files.exists(ASKED):
            return tuple(tables)
        known = json.loads(self.files.read(ASKED))
        if known["asked"] != self._signed(asked, tables):
            raise InvalidInput(
                f"job {self.job!r} was begun with other parameters: finish it as it was, or choose another id"
            )
        return tuple(self._again(table, *read) for table, read in zip(tables, known["read"], strict=True))

    def note(self, asked: Mapping[str, Any], tables: Sequence[Snapshot]) -> None:
        """Keep what is asked, and of which versions."""
        read = [(table.version, str(table.time)) for table in tables]
        self.files.write(ASKED, json.dumps({"asked": self._signed(asked, tables), "read": read}).encode())

    def report(self) -> dict[str, Any] | None:
        """Return what the job has told, if it has come to an end."""
        if not self.files.exists(REPORT):
            return None
        try:
            told: dict[str, Any] = json.loads(self.files.read(REPORT))
        except ValueError:  # torn: what it told is found again
            return None
        return told

    def finish(self, report: Mapping[str, Any]) -> None:
        """Keep a report."""
        self.files.write(REPORT, json.dumps(report).encode())

    def close(self, report: Mapping[str, Any], *, taken_up: bool) -> None:
        """End the job: keep a report if somebody may take the job up again, and nothing else."""
        self.finish(report)
        self.clear(*((ASKED, REPORT) if taken_up else ()))

    def clear(self, *kept: str) -> None:
        """Remove all files but some."""
        for name in list(self.files.names()):
            if name not in kept:
                self.files.delete(name)

    def _signed(self, asked: Mapping[str, Any], tables: Sequence[Snapshot]) -> Any:
        places = [(table.location.uri, table.branch) for table in tables]
        return json.loads(json.dumps({"kind": self.kind, "tables": places, **asked}, default=str))

    def _again(self, table: Snapshot, version: int, time: str) -> Snapshot:
        gone = f"job {self.job!r} read version {version} of {table.location.uri}, which is gone: choose an id"
        try:
            begun = Snapshot(table.location, version, table.branch)
        except NotFound as error:
            raise NotFound(gone) from error
        if begun.time != datetime.fromisoformat(time):  # the table was dropped and made anew
            raise NotFound(gone)
        return begun
