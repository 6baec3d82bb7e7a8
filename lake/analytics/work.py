"""A deduplication at work, and what it keeps in its folder ``_jobs/<job>/<table>``.

What a job finds it finds in one version of the table, and keeps; a dry run is thus followed by the deletion of exactly
what it told of. A row is deleted from the newest version only if it, and the row that is kept in its place, are as they
were in the version that was read.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np

from lake.analytics import groups as grouping
from lake.analytics.groups import Groups
from lake.analytics.keep import arrange, order
from lake.analytics.near import ByRow, Search, link, plan_round
from lake.analytics.report import DedupReport
from lake.errors import InvalidInput, NotFound
from lake.index.jobs import job_folder
from lake.join import knn
from lake.join.runs import load, save
from lake.storage import Files, Location, table_name
from lake.table import pins
from lake.table.parts import PartedWrite, begin
from lake.table.snapshot import Snapshot
from lake.table.unchanged import delete_unchanged

_ASKED = "dedup.json"
_REPORT = "report.json"
_MEMBERS = "members.npy"


@dataclass(frozen=True)
class Asked:
    """What decides what is found; see `lake.analytics.dedup`."""

    within: float
    k: int
    column: str | None
    where: str | None
    keep: str
    metric: str | None
    recall: float
    into: str | None

    def of(self, snapshot: Snapshot) -> dict[str, object]:
        """Tell it of a table, for JSON."""
        return {"table": snapshot.location.uri, "branch": snapshot.branch, **asdict(self)}


@dataclass(frozen=True)
class Work:
    """A deduplication.

    Parameters
    ----------
    job : str
    folder : Location
        The job's.
    snapshot : Snapshot
        The version that it reads.
    asked : Asked
    """

    job: str
    folder: Location
    snapshot: Snapshot
    asked: Asked

    @classmethod
    def of(cls, job: str, snapshot: Snapshot, asked: Asked) -> Work:
        """Begin a job, or go on with one: it then reads the version that it read before.

        Raises
        ------
        InvalidInput
            A job of this id was begun, and is another.
        NotFound
            The version that it read has expired.
        """
        folder = job_folder(snapshot.location, job)
        files = Files(folder)
        if not files.exists(_ASKED):
            return cls(job, folder, snapshot, asked)
        known = json.loads(files.read(_ASKED))
        if known["asked"] != asked.of(snapshot):
            raise InvalidInput(
                f"job {job!r} was begun with other parameters: finish it as it was, or choose another id"
            )
        gone = f"job {job!r} read version {known['version']} of {snapshot.location.uri}, which is gone: choose an id"
        try:
            begun = Snapshot(snapshot.location, known["version"], snapshot.branch)
        except NotFound as error:
            raise NotFound(gone) from error
        if begun.time != datetime.fromisoformat(known["time"]):  # the table was dropped and made anew
            raise NotFound(gone)
        return cls(job, folder, begun, asked)

    @property
    def files(self) -> Files:
        """The job's files."""
        return Files(self.folder)

    def report(self) -> DedupReport | None:
        """Return what the job has found and done, if it has come to an end."""
        if not self.files.exists(_REPORT):
            return None
        try:
            return DedupReport(**json.loads(self.files.read(_REPORT)))
        except (ValueError, TypeError):  # torn: what it told is found again
            return None

    def finish(self, report: DedupReport) -> None:
        """Keep a report."""
        self.files.write(_REPORT, json.dumps(report.to_dict()).encode())

    def find(self, search: Search) -> DedupReport:
        """Find groups, keep them for a deletion, and write their table."""
        side, search, target = self._check(search)
        snapshot = self.snapshot
        assert snapshot.time is not None  # noqa: S101  it was looked up
        told = {"asked": self.asked.of(snapshot), "version": snapshot.version, "time": snapshot.time.isoformat()}
        self.files.write(_ASKED, json.dumps(told).encode())
        with pins.pin(snapshot, job=self.job):
            linked = link(side, search)
            places = arrange(snapshot, linked.ids, linked.groups, self.asked.keep)
            groups = Groups.of(linked.ids[places], linked.groups[places])
            distances = groups.distances(side, search.metric or "")
            save(self.folder, _MEMBERS, np.stack([groups.rows, groups.kept]))
            if target is not None:
                grouping.write(target, snapshot, groups, distances)
        duplicates = int(groups.duplicates.sum())
        return DedupReport(
            self.job,
            snapshot.location.uri,
            snapshot.version,
            linked.rows,
            linked.rows - linked.without_vector - duplicates,
            duplicates,
            linked.without_vector,
            len(groups.sizes),
            int(groups.sizes.max(initial=0)),
            float(distances.max(where=groups.duplicates, initial=0.0)),
            search.within,
            search.k,
            linked.crowded,
            linked.rounds,
            linked.recall,
            linked.source,
            None if target is None else target.location.uri,
        )

    def delete(self, report: DedupReport) -> DedupReport:
        """Delete the duplicates that a report tells of."""
        rows, kept = load(self.folder, _MEMBERS)
        going = rows != kept
        with pins.pin(self.snapshot, job=self.job):
            done = delete_unchanged(self.snapshot, rows[going], kept[going], commit_id=f"{self.job}.delete")
        return replace(report, deleted=done.rows, spared=report.duplicates - done.rows, deleted_version=done.version)

    def clear(self, *, all_of_it: bool, deleted: bool) -> None:
        """Remove what nobody needs any more; the report stays, and what a deletion would need."""
        kept = () if all_of_it else (_ASKED, _REPORT, *(() if deleted else (_MEMBERS,)))
        for name in list(self.files.names()):
            if name not in kept:
                self.files.delete(name)

    def _check(self, search: Search) -> tuple[ByRow, Search, PartedWrite | None]:
        """Refuse what makes no sense before anything is done; return what is compared, and where groups go."""
        snapshot, asked = self.snapshot, self.asked
        if not isinstance(asked.within, int | float) or not math.isfinite(asked.within):
            raise InvalidInput(f"within={asked.within!r}: give a distance, a finite number")
        given = knn.side(snapshot, asked.column, asked.where, (), "")
        side = ByRow(given.snapshot, given.column, given.where)
        order(asked.keep, snapshot.schema)
        plan, _ = plan_round(side, search)
        if plan.metric != "dot" and asked.within <= 0:
            raise InvalidInput(f"within={asked.within}: no {plan.metric} distance is less; give a radius above 0")
        target = None
        if asked.into is not None:
            schema = grouping.table_schema(snapshot)
            root = Location(snapshot.location.uri.rpartition("/")[0], snapshot.location.options)
            place = root.join(f"{table_name(asked.into)}.lance")
            target = begin(place, None, "create", schema, commit_id=self.job)
        return side, replace(search, metric=plan.metric), target
